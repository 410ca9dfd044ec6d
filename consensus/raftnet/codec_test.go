package raftnet

import (
	"bytes"
	"context"
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"pgregory.net/rapid"
)

func drawBytes(t *rapid.T, name string) []byte {
	b := rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(t, name)
	if len(b) == 0 {
		return nil
	}
	return b
}

func drawHeader(t *rapid.T) raft.RPCHeader {
	return raft.RPCHeader{ProtocolVersion: raft.ProtocolVersion(rapid.IntRange(0, 3).Draw(t, "version")), ID: drawBytes(t, "id"), Addr: drawBytes(t, "addr")}
}

func drawAppend(t *rapid.T) *raft.AppendEntriesRequest {
	number := rapid.Uint64()
	r := &raft.AppendEntriesRequest{
		RPCHeader: drawHeader(t), Term: number.Draw(t, "term"), PrevLogEntry: number.Draw(t, "prev"),
		PrevLogTerm: number.Draw(t, "prev term"), LeaderCommitIndex: number.Draw(t, "commit"),
	}
	for range rapid.IntRange(0, 5).Draw(t, "entries") {
		e := &raft.Log{
			Index: number.Draw(t, "index"), Term: number.Draw(t, "term"), Type: raft.LogType(rapid.Byte().Draw(t, "type")),
			Data: drawBytes(t, "data"), Extensions: drawBytes(t, "extensions"),
		}
		if at := rapid.Int64().Draw(t, "at"); at != 0 {
			e.AppendedAt = time.Unix(0, at)
		}
		r.Entries = append(r.Entries, e)
	}
	return r
}

// TestMessagesComeAsTheyWere also cuts each message, and adds to it: both are refused.
func TestMessagesComeAsTheyWere(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		number := rapid.Uint64()
		check := func(b []byte, want any, decode func([]byte) (any, error)) {
			t.Helper()
			got, err := decode(b)
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Fatalf("got %+v, %v, want %+v", got, err, want)
			}
			for _, wrong := range [][]byte{b[:rapid.IntRange(0, len(b)-1).Draw(t, "cut")], append(bytes.Clone(b), 0)} {
				if _, err := decode(wrong); !errors.Is(err, errMalformed) {
					t.Fatalf("%d bytes instead of %d of %+v: %v", len(wrong), len(b), want, err)
				}
			}
		}
		appended := drawAppend(t)
		check(appendAppend(nil, appended, appended.Entries), appended, func(b []byte) (any, error) { return decodeAppend(b) })
		answer := raft.AppendEntriesResponse{Term: number.Draw(t, "term"), LastLog: number.Draw(t, "last"), Success: rapid.Bool().Draw(t, "success"), NoRetryBackoff: rapid.Bool().Draw(t, "no backoff")}
		check(appendAppendAnswer(nil, &answer), answer, func(b []byte) (any, error) {
			var r raft.AppendEntriesResponse
			err := decodeAppendAnswer(b, &r)
			return r, err
		})
		vote := &raft.RequestVoteRequest{RPCHeader: drawHeader(t), Term: number.Draw(t, "term"), LastLogIndex: number.Draw(t, "index"), LastLogTerm: number.Draw(t, "last term"), LeadershipTransfer: rapid.Bool().Draw(t, "transfer")}
		check(appendVote(nil, vote), vote, func(b []byte) (any, error) { return decodeVote(b) })
		pre := &raft.RequestPreVoteRequest{RPCHeader: vote.RPCHeader, Term: vote.Term, LastLogIndex: vote.LastLogIndex, LastLogTerm: vote.LastLogTerm}
		check(appendPreVote(nil, pre), pre, func(b []byte) (any, error) { return decodePreVote(b) })
		now := &raft.TimeoutNowRequest{RPCHeader: vote.RPCHeader}
		check(appendHeader(nil, &now.RPCHeader), now, func(b []byte) (any, error) { return decodeTimeoutNow(b) })
		snapshot := &raft.InstallSnapshotRequest{
			RPCHeader: vote.RPCHeader, SnapshotVersion: 1, Term: vote.Term, LastLogIndex: vote.LastLogIndex, LastLogTerm: vote.LastLogTerm,
			ConfigurationIndex: number.Draw(t, "configuration"), Size: rapid.Int64Min(0).Draw(t, "size"), Configuration: drawBytes(t, "servers"),
		}
		check(appendSnapshot(nil, snapshot), snapshot, func(b []byte) (any, error) { return decodeSnapshot(b) })
		granted := [2]any{vote.Term, answer.Success}
		check(appendVoteAnswer(nil, vote.Term, answer.Success), granted, func(b []byte) (any, error) {
			term, ok, err := decodeVoteAnswer(b)
			return [2]any{term, ok}, err
		})
		installed := raft.InstallSnapshotResponse{Term: vote.Term, Success: answer.Success}
		check(appendSnapshotAnswer(nil, &installed), installed, func(b []byte) (any, error) {
			var r raft.InstallSnapshotResponse
			err := decodeSnapshotAnswer(b, &r)
			return r, err
		})
	})
}

// FuzzAppend: whatever comes is refused, or is what it says.
func FuzzAppend(f *testing.F) {
	f.Add(appendAppend(nil, &raft.AppendEntriesRequest{Term: 3}, nil))
	f.Add(appendAppend(nil, &raft.AppendEntriesRequest{Term: 3, PrevLogEntry: 7}, []*raft.Log{{Index: 8, Term: 3, Data: []byte("data"), AppendedAt: time.Unix(1, 1)}, {Index: 9, Type: raft.LogNoop}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decodeAppend(b)
		if err != nil {
			return
		}
		again, err := decodeAppend(appendAppend(nil, r, r.Entries))
		if err != nil || !reflect.DeepEqual(again, r) {
			t.Fatalf("got %+v, %v, want %+v", again, err, r)
		}
	})
}

// What goes past Raft's main loop must be a heartbeat, whatever its sender calls it.
func TestOnlyHeartbeatsGoPast(t *testing.T) {
	n := &Net{members: make(map[string]*Member)}
	m := &Member{net: n, group: "g", addr: "a"}
	m.ctx, m.cancel = context.WithCancel(t.Context())
	defer m.cancel()
	n.members[m.nameAt("a")] = m
	m.SetHeartbeatHandler(func(rpc raft.RPC) { rpc.Respond(&raft.AppendEntriesResponse{Term: 3}, nil) })
	for name, req := range map[string]*raft.AppendEntriesRequest{
		"heartbeat": {Term: 3},
		"entries":   {Term: 3, Entries: []*raft.Log{{Index: 1}}},
		"previous":  {Term: 3, PrevLogEntry: 1, PrevLogTerm: 1},
		"commit":    {Term: 3, LeaderCommitIndex: 1},
	} {
		if _, err := n.Serve(t.Context(), "g@a", kindHeartbeat, appendAppend(nil, req, req.Entries)); (err == nil) != (name == "heartbeat") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
