package raftnet

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"github.com/meshkv/meshkv/consensus/calls"
	"github.com/meshkv/meshkv/consensus/streams"
)

const (
	// rpcTimeout bounds each exchange with another replica.
	rpcTimeout = 2 * time.Second
	// pieceBytes is how many bytes of entries go with one message, if it is not one entry
	// that has more: other groups wait for no longer message.
	pieceBytes = 1 << 20
)

// A Member is the transport of one replica. Safe for concurrent use.
type Member struct {
	net         *Net
	group, addr string
	layer       *streams.Layer // snapshots
	rpcs        chan raft.RPC
	queue       chan appended
	snapshots   chan struct{} // holds one for each that is coming in
	heartbeat   atomic.Pointer[func(raft.RPC)]
	observer    atomic.Pointer[Observer]
	refused     atomic.Uint64
	ctx         context.Context // ends with Close, or the Net
	cancel      context.CancelFunc
	work        sync.WaitGroup // snapshots

	mu    sync.Mutex // protects ended
	ended bool       // nothing is queued any more
}

// An Observer is told what Raft is not. Its functions must not block.
type Observer struct {
	// Answered is told of every answer in a pipeline, after Raft.
	Answered func(Answer)
	// Broken is told when the connection to another node has ended, which may have been
	// started anew. A pipeline that had nothing on its way goes on with the next one.
	Broken func(addr raft.ServerAddress)
}

// An Answer is what became of an append in a pipeline. Err is that of the connection, or
// of the other replica.
type Answer struct {
	To       raft.Server
	Request  *raft.AppendEntriesRequest
	Response *raft.AppendEntriesResponse
	Err      error
}

var (
	_ raft.Transport   = (*Member)(nil)
	_ raft.WithPreVote = (*Member)(nil)
	_ raft.WithClose   = (*Member)(nil)
)

// nameAt is how the group's replica at addr is called.
func (m *Member) nameAt(addr string) string { return m.group + "@" + addr }

// Observe sets who is told, before Raft begins.
func (m *Member) Observe(o *Observer) { m.observer.Store(o) }

// Refused counts appends that came and did not find room.
func (m *Member) Refused() uint64 { return m.refused.Load() }

// Consumer implements raft.Transport.
func (m *Member) Consumer() <-chan raft.RPC { return m.rpcs }

// LocalAddr implements raft.Transport.
func (m *Member) LocalAddr() raft.ServerAddress { return raft.ServerAddress(m.addr) }

// EncodePeer implements raft.Transport.
func (m *Member) EncodePeer(_ raft.ServerID, addr raft.ServerAddress) []byte { return []byte(addr) }

// DecodePeer implements raft.Transport.
func (m *Member) DecodePeer(addr []byte) raft.ServerAddress { return raft.ServerAddress(addr) }

// SetHeartbeatHandler implements raft.Transport.
func (m *Member) SetHeartbeatHandler(h func(raft.RPC)) { m.heartbeat.Store(&h) }

// Close ends what is under way. It may be called twice.
func (m *Member) Close() error {
	m.mu.Lock()
	m.ended = true
	m.mu.Unlock()
	m.cancel()
	m.net.forget(m)
	err := m.layer.Close()
	m.work.Wait()
	return err
}

// isHeartbeat reports whether req is one, as raft.NetworkTransport tells them apart.
func isHeartbeat(req *raft.AppendEntriesRequest) bool {
	return req.PrevLogEntry == 0 && req.PrevLogTerm == 0 && len(req.Entries) == 0 && req.LeaderCommitIndex == 0
}

// call sends a message and waits for the answer, for rpcTimeout at most.
func (m *Member) call(to raft.ServerAddress, kind calls.Kind, body []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(m.ctx, rpcTimeout)
	defer cancel()
	return m.net.client.Call(ctx, string(to), m.nameAt(string(to)), kind, body)
}

// AppendEntries implements raft.Transport. Requests with much in them go in pieces.
func (m *Member) AppendEntries(_ raft.ServerID, to raft.ServerAddress, req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	kind := kindAppend
	if isHeartbeat(req) {
		kind = kindHeartbeat
	}
	for rest := req; rest != nil; {
		var piece *raft.AppendEntriesRequest
		piece, rest = cut(rest)
		answer, err := m.call(to, kind, appendAppend(nil, piece, piece.Entries))
		if err != nil {
			return err
		}
		if err := decodeAppendAnswer(answer, resp); err != nil {
			return err
		}
		if !resp.Success || resp.Term > req.Term {
			return nil
		}
	}
	return nil
}

// StartAppend is AppendEntries of a request without entries that waits for nothing. If it
// returns nil, done is called once; it must not block.
func (m *Member) StartAppend(to raft.ServerAddress, req *raft.AppendEntriesRequest, done func(*raft.AppendEntriesResponse, error)) error {
	return m.net.client.Start(string(to), m.nameAt(string(to)), kindAppend, appendAppend(nil, req, nil), func(answer []byte, err error) {
		resp := new(raft.AppendEntriesResponse)
		if err == nil {
			err = decodeAppendAnswer(answer, resp)
		}
		done(resp, err)
	})
}

// cut is as much of an append as goes with one message, and the rest, nil if there is none.
// Each is an append like another: what comes after builds upon what came before.
func cut(req *raft.AppendEntriesRequest) (piece, rest *raft.AppendEntriesRequest) {
	n, bytes := 0, 0
	for _, e := range req.Entries {
		bytes += len(e.Data) + len(e.Extensions) + maxEntry
		if n > 0 && bytes > pieceBytes {
			break
		}
		n++
	}
	if n == len(req.Entries) {
		return req, nil
	}
	first, then := *req, *req
	first.Entries, then.Entries = req.Entries[:n], req.Entries[n:]
	last := first.Entries[n-1]
	// A follower takes for committed what it has up to there: of what comes after the piece it
	// may have another leader's entries.
	first.LeaderCommitIndex = min(first.LeaderCommitIndex, last.Index)
	then.PrevLogEntry, then.PrevLogTerm = last.Index, last.Term
	return &first, &then
}

// RequestVote implements raft.Transport.
func (m *Member) RequestVote(_ raft.ServerID, to raft.ServerAddress, req *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	answer, err := m.call(to, kindVote, appendVote(nil, req))
	if err != nil {
		return err
	}
	resp.Term, resp.Granted, err = decodeVoteAnswer(answer)
	return err
}

// RequestPreVote implements raft.WithPreVote.
func (m *Member) RequestPreVote(_ raft.ServerID, to raft.ServerAddress, req *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	answer, err := m.call(to, kindPreVote, appendPreVote(nil, req))
	if err != nil {
		return err
	}
	resp.Term, resp.Granted, err = decodeVoteAnswer(answer)
	return err
}

// TimeoutNow implements raft.Transport.
func (m *Member) TimeoutNow(_ raft.ServerID, to raft.ServerAddress, req *raft.TimeoutNowRequest, _ *raft.TimeoutNowResponse) error {
	_, err := m.call(to, kindTimeoutNow, appendHeader(nil, &req.RPCHeader))
	return err
}
