package group

import (
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"github.com/meshkv/meshkv/consensus/raftnet"
)

// transport is raftnet's, with these differences:
//
//   - It sees what followers answer, for progress.
//   - Heartbeats go by Config.Heartbeats, if they can.
//   - An append to a follower that was not reached waits until a heartbeat reaches it.
//     Raft counts failures, and would try again after up to 10 s, which a follower that
//     was started anew would be without entries for.
//   - A request says of no commit that is not on this disk (see aheadLog), nor of one
//     beyond what it shows to be the same in both logs: a follower takes for committed
//     what it has up to there, which may be another leader's. Raft reads the commit index
//     after it has chosen the entries.
//   - A pipeline does not send an append without entries whose commit index its
//     follower knows. Raft makes one after each commitTimeout, for each follower.
type transport struct {
	*raftnet.Member
	progress         *progress
	limit            func(commit uint64) uint64
	heartbeats       Heartbeats // nil: Raft's own
	heartbeatHandler atomic.Pointer[func(raft.RPC)]
	closing          sync.Once
	closed           chan struct{}
}

func newTransport(m *raftnet.Member, p *progress, limit func(commit uint64) uint64, h Heartbeats) *transport {
	m.Observe(&raftnet.Observer{
		Answered: func(a raftnet.Answer) {
			if a.Err != nil {
				p.lost(a.To.ID, a.Request.Term)
			} else {
				p.appended(a.To.ID, a.To.Address, a.Request, a.Response)
			}
		},
		Broken: p.lostAt,
	})
	return &transport{Member: m, progress: p, limit: limit, heartbeats: h, closed: make(chan struct{})}
}

// SetHeartbeatHandler implements raft.Transport.
func (t *transport) SetHeartbeatHandler(h func(raft.RPC)) {
	t.heartbeatHandler.Store(&h)
	t.Member.SetHeartbeatHandler(h)
}

// Close ends what is under way. It may be called twice.
func (t *transport) Close() error {
	t.closing.Do(func() { close(t.closed) })
	if t.heartbeats != nil {
		t.heartbeats.Close()
	}
	return t.Member.Close()
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
	err := t.Member.AppendEntries(id, to, req, resp)
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
	t.cap(req)
	err := t.Member.AppendEntries(id, to, req, resp)
	if err != nil {
		t.progress.failed(id, req.Term)
		return err
	}
	t.progress.appended(id, to, req, resp)
	return nil
}

// cap lowers the commit index of an append to what the request may say.
func (t *transport) cap(req *raft.AppendEntriesRequest) {
	end := req.PrevLogEntry
	if n := len(req.Entries); n > 0 {
		end = req.Entries[n-1].Index
	}
	req.LeaderCommitIndex = min(t.limit(req.LeaderCommitIndex), end)
}

// notify sends an append without entries and does not wait. If it returns nil, done is called once.
func (t *transport) notify(to raft.Server, req *raft.AppendEntriesRequest, done func()) error {
	t.progress.sent.Add(1)
	err := t.StartAppend(to.Address, req, func(resp *raft.AppendEntriesResponse, err error) {
		if err != nil {
			t.progress.failed(to.ID, req.Term)
		} else {
			t.progress.appended(to.ID, to.Address, req, resp)
		}
		done()
	})
	if err != nil {
		t.progress.failed(to.ID, req.Term)
	}
	return err
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
	err := t.Member.InstallSnapshot(id, to, req, resp, data)
	if err == nil && resp.Success {
		t.progress.has(id, to, req.Term, req.LastLogIndex, 0)
	}
	return err
}

// AppendEntriesPipeline implements raft.Transport.
func (t *transport) AppendEntriesPipeline(id raft.ServerID, to raft.ServerAddress) (raft.AppendPipeline, error) {
	inner, err := t.Member.AppendEntriesPipeline(id, to)
	if err != nil {
		return nil, err
	}
	p := inner.(raftnet.Pipeline) // it is one
	return &pipeline{p, id, t, t.hear(p, id, to)}, nil
}

// isHeartbeat reports whether req is one, as raft.NetworkTransport tells them apart.
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

// A pipeline leaves out what its follower knows, and hears of its heartbeats.
type pipeline struct {
	raftnet.Pipeline
	to   raft.ServerID
	t    *transport
	deaf func() // ends that it hears
}

// Close implements raft.AppendPipeline.
func (p *pipeline) Close() error {
	p.deaf()
	return p.Pipeline.Close()
}

// AppendEntries returns no future if the request needed not to be sent: Raft looks at
// those from Consumer alone.
func (p *pipeline) AppendEntries(req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	p.t.cap(req)
	if len(req.Entries) == 0 && p.t.progress.knows(p.to, req) {
		return nil, nil
	}
	p.t.progress.sent.Add(1)
	return p.Pipeline.AppendEntries(req, resp)
}
