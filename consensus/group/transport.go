package group

import (
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// transport is Raft's own, with these differences:
//
//   - It sees what followers answer, for progress.
//   - Heartbeats go by Config.Heartbeats, if they can.
//   - An append to a follower that was not reached waits until a heartbeat reaches it.
//     Raft counts failures, and would try again after up to 10 s, which a follower that
//     was started anew would be without entries for.
//   - A pipeline does not send an append without entries whose commit index its
//     follower knows. Raft makes one after each commitTimeout, for each follower.
//   - A pipeline ends with the first answer that is no success. Raft (1.8.0) reads no
//     more answers after that one, but sends another request if there is an entry to
//     send at that moment. It has room for two, so that one waits for ever: the
//     follower gets heartbeats and no more entries, and Shutdown does not return.
type transport struct {
	*raft.NetworkTransport
	progress         *progress
	heartbeats       Heartbeats // nil: Raft's own
	heartbeatHandler atomic.Pointer[func(raft.RPC)]
	closing          sync.Once
	closed           chan struct{}
}

// SetHeartbeatHandler implements raft.Transport.
func (t *transport) SetHeartbeatHandler(h func(raft.RPC)) {
	t.heartbeatHandler.Store(&h)
	t.NetworkTransport.SetHeartbeatHandler(h)
}

// Close ends what is under way. It may be called twice.
func (t *transport) Close() error {
	t.closing.Do(func() { close(t.closed) })
	if t.heartbeats != nil {
		t.heartbeats.Close()
	}
	return t.NetworkTransport.Close()
}

// AppendEntries implements raft.Transport.
func (t *transport) AppendEntries(id raft.ServerID, to raft.ServerAddress, req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	if !isHeartbeat(req) {
		t.awaitReachable(id)
		return t.append(id, to, req, resp)
	}
	if t.beat(id, to, req, resp) {
		t.progress.answers(id)
		return nil
	}
	t.progress.beats.Add(1)
	err := t.NetworkTransport.AppendEntries(id, to, req, resp)
	if err != nil {
		t.progress.failed(id, req.Term)
		return err
	}
	t.progress.answers(id)
	return nil
}

// append sends an append that is no heartbeat.
func (t *transport) append(id raft.ServerID, to raft.ServerAddress, req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	t.progress.sent.Add(1)
	err := t.NetworkTransport.AppendEntries(id, to, req, resp)
	if err != nil {
		t.progress.failed(id, req.Term)
		return err
	}
	t.progress.appended(id, to, req, resp)
	return nil
}

// awaitReachable waits for at most reachTimeout; then Raft may count a failure.
func (t *transport) awaitReachable(id raft.ServerID) {
	reached := t.progress.unreachable(id)
	if reached == nil {
		return
	}
	timer := time.NewTimer(reachTimeout)
	defer timer.Stop()
	select {
	case <-reached:
	case <-timer.C:
	case <-t.closed:
	}
}

// InstallSnapshot implements raft.Transport.
func (t *transport) InstallSnapshot(id raft.ServerID, to raft.ServerAddress, req *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	err := t.NetworkTransport.InstallSnapshot(id, to, req, resp, data)
	if err == nil && resp.Success {
		t.progress.has(id, to, req.Term, req.LastLogIndex, 0)
	}
	return err
}

// AppendEntriesPipeline implements raft.Transport.
func (t *transport) AppendEntriesPipeline(id raft.ServerID, to raft.ServerAddress) (raft.AppendPipeline, error) {
	inner, err := t.NetworkTransport.AppendEntriesPipeline(id, to)
	if err != nil {
		return nil, err
	}
	p := &pipeline{AppendPipeline: inner, to: raft.Server{ID: id, Address: to}, progress: t.progress, answers: make(chan raft.AppendFuture), closed: make(chan struct{})}
	go p.run() // until Close, which Raft defers
	return p, nil
}

// isHeartbeat reports whether req is one, as Raft's transport tells them apart.
func isHeartbeat(req *raft.AppendEntriesRequest) bool {
	return req.PrevLogEntry == 0 && req.PrevLogTerm == 0 && len(req.Entries) == 0 && req.LeaderCommitIndex == 0
}

// appendRequest is an append of term's leader, which is this replica. As it is, it is
// a heartbeat.
func (g *Group) appendRequest(term uint64) raft.AppendEntriesRequest {
	self := g.transport.EncodePeer(raft.ServerID(g.cfg.ID), g.transport.LocalAddr())
	return raft.AppendEntriesRequest{
		RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(g.cfg.ID), Addr: self},
		Term:      term,
	}
}

// A pipeline ends with the first answer that is no success: it refuses what comes
// later, and takes the answers to what was on its way.
type pipeline struct {
	raft.AppendPipeline
	to       raft.Server
	progress *progress
	answers  chan raft.AppendFuture
	failed   atomic.Bool
	closed   chan struct{}
	once     sync.Once
}

// AppendEntries returns no future if the request needed not to be sent: Raft looks at
// those from Consumer alone.
func (p *pipeline) AppendEntries(req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	if p.failed.Load() {
		return nil, raft.ErrPipelineShutdown
	}
	if len(req.Entries) == 0 && p.progress.knows(p.to.ID, req) {
		return nil, nil
	}
	p.progress.sent.Add(1)
	return p.AppendPipeline.AppendEntries(req, resp)
}

func (p *pipeline) Consumer() <-chan raft.AppendFuture { return p.answers }

func (p *pipeline) Close() error {
	p.once.Do(func() { close(p.closed) })
	return p.AppendPipeline.Close()
}

func (p *pipeline) run() {
	for {
		var f raft.AppendFuture
		select {
		case f = <-p.AppendPipeline.Consumer():
		case <-p.closed:
			return
		}
		if p.failed.Load() {
			continue // Raft does not read it
		}
		req, resp, err := f.Request(), f.Response(), f.Error()
		if err != nil || !resp.Success || resp.Term > req.Term {
			p.failed.Store(true)
		}
		select {
		case p.answers <- f: // first: Raft may commit by it
		case <-p.closed:
			return
		}
		if err != nil {
			p.progress.lost(p.to.ID, req.Term)
		} else {
			p.progress.appended(p.to.ID, p.to.Address, req, resp)
		}
	}
}
