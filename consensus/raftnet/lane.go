package raftnet

import (
	"context"
	"fmt"

	"github.com/hashicorp/raft"
	"github.com/meshkv/meshkv/consensus/calls"
)

// laneRoom is how many appends may wait for a replica; more are refused. A leader has
// inFlight on their way, and one notice.
const laneRoom = 32

// appended is an append that came.
type appended struct {
	req    *raft.AppendEntriesRequest
	answer func([]byte, error)
}

// take queues an append for lane. It reports whether there was room; whatever is wrong
// with the message it answers itself.
func (m *Member) take(body []byte, answer func([]byte, error)) bool {
	req, err := decodeAppend(append([]byte(nil), body...)) // entries are kept
	if err != nil {
		req = nil // lane says so: from here nothing is answered
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ended {
		return false
	}
	select {
	case m.queue <- appended{req, answer}:
		return true
	default:
		m.refused.Add(1)
		return false
	}
}

// lane has Raft carry out the appends that came, one after the other, as it does anyway.
func (m *Member) lane() {
	for {
		select {
		case a := <-m.queue:
			if a.req == nil {
				a.answer(nil, errMalformed)
				continue
			}
			a.answer(m.carryOut(m.ctx, a.req))
		case <-m.ctx.Done():
			for { // nothing is queued any more
				select {
				case a := <-m.queue:
					a.answer(nil, absent(m.nameAt(m.addr)))
				default:
					return
				}
			}
		}
	}
}

// carryOut gives a message to Raft and encodes its answer.
func (m *Member) carryOut(ctx context.Context, command any) ([]byte, error) {
	responses := make(chan raft.RPCResponse, 1)
	select {
	case m.rpcs <- raft.RPC{Command: command, RespChan: responses}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-m.ctx.Done():
		return nil, absent(m.nameAt(m.addr))
	}
	return m.await(ctx, responses)
}

// answerHeartbeat is carryOut for a heartbeat, which does not wait for Raft's main loop.
func (m *Member) answerHeartbeat(ctx context.Context, req *raft.AppendEntriesRequest) ([]byte, error) {
	handler := m.heartbeat.Load()
	if handler == nil {
		return m.carryOut(ctx, req)
	}
	responses := make(chan raft.RPCResponse, 1)
	(*handler)(raft.RPC{Command: req, RespChan: responses})
	return m.await(ctx, responses)
}

func (m *Member) await(ctx context.Context, responses <-chan raft.RPCResponse) ([]byte, error) {
	select {
	case r := <-responses:
		return encodeResponse(r)
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-m.ctx.Done():
		return nil, absent(m.nameAt(m.addr))
	}
}

func encodeResponse(r raft.RPCResponse) ([]byte, error) {
	if r.Error != nil {
		return nil, &calls.Refusal{Code: refusedFailed, Detail: r.Error.Error()}
	}
	switch r := r.Response.(type) {
	case *raft.AppendEntriesResponse:
		return appendAppendAnswer(nil, r), nil
	case *raft.RequestVoteResponse:
		return appendVoteAnswer(nil, r.Term, r.Granted), nil
	case *raft.RequestPreVoteResponse:
		return appendVoteAnswer(nil, r.Term, r.Granted), nil
	case *raft.TimeoutNowResponse:
		return nil, nil
	case *raft.InstallSnapshotResponse:
		return appendSnapshotAnswer(nil, r), nil
	}
	return nil, fmt.Errorf("raft answered with a %T", r.Response)
}
