package group

import (
	"github.com/hashicorp/raft"
	"github.com/meshkv/meshkv/consensus/heartbeat"
	"github.com/meshkv/meshkv/consensus/raftnet"
)

// Heartbeats carry those of one group; heartbeat.Line does it together with those of
// other groups.
type Heartbeats interface {
	// Send sends one to the group's replica at a node and returns the answer, or
	// an error well within an election timeout; the group sends the heartbeat itself
	// then.
	Send(node string, b heartbeat.Beat) (heartbeat.Answer, error)
	// Ask is Send without a delay.
	Ask(node string, b heartbeat.Beat) (heartbeat.Answer, error)
	// Take has take told of each answer by which the replica at a node follows as before,
	// until stop is called. It must not block. Send may keep an answer to itself as long as
	// take reports that it has told Raft.
	Take(node string, take func(heartbeat.Beat, heartbeat.Answer) bool) (stop func())
	// Rest is called when this replica leads no more: nobody is told that it does.
	Rest()
	// Handle sets who answers those that come in, or says that it cannot.
	Handle(h func(heartbeat.Beat) (heartbeat.Answer, bool))
	// Close ends Send.
	Close()
}

// ask sends req, a heartbeat, at once, and fills in the answer.
func (t *transport) ask(to raft.Server, req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	if t.heartbeats != nil {
		a, err := t.heartbeats.Ask(string(to.Address), beatOf(req))
		if err == nil {
			fill(resp, req, a)
			return nil
		}
	}
	return t.Member.AppendEntries(to.ID, to.Address, req, resp)
}

func beatOf(req *raft.AppendEntriesRequest) heartbeat.Beat {
	return heartbeat.Beat{Term: req.Term, Leader: string(req.ID), Addr: string(req.Addr)}
}

func fill(resp *raft.AppendEntriesResponse, req *raft.AppendEntriesRequest, a heartbeat.Answer) {
	*resp = raft.AppendEntriesResponse{RPCHeader: req.RPCHeader, Term: a.Term, LastLog: a.Last, Success: a.OK}
}

// beat sends req, a heartbeat, by Heartbeats, and reports whether it was answered.
func (t *transport) beat(id raft.ServerID, to raft.ServerAddress, req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) bool {
	if t.heartbeats == nil {
		return false
	}
	before := t.progress.commitOf(id, req.Term)
	a, err := t.heartbeats.Send(string(to), beatOf(req))
	if err != nil {
		return false
	}
	if a.Commit < before {
		t.progress.lost(id, req.Term) // it was started anew
	}
	fill(resp, req, a)
	return true
}

// hear has Raft hear by a pipeline of the heartbeats that its follower answers, instead of
// waking for each. It returns how to end that.
func (t *transport) hear(p raftnet.Pipeline, id raft.ServerID, to raft.ServerAddress) (stop func()) {
	if t.heartbeats == nil {
		return func() {}
	}
	return t.heartbeats.Take(string(to), func(b heartbeat.Beat, a heartbeat.Answer) bool {
		t.progress.answers(id)
		req := &raft.AppendEntriesRequest{Term: b.Term}
		resp := new(raft.AppendEntriesResponse)
		fill(resp, req, a)
		return p.Heard(req, resp)
	})
}

// answerBeat answers a heartbeat that came by Heartbeats. Raft would write a new term
// to the disk before it answers, and so it would for a candidate: such a heartbeat is
// not answered here, and the leader sends it itself.
func (g *Group) answerBeat(b heartbeat.Beat) (heartbeat.Answer, bool) {
	handler := g.transport.heartbeatHandler.Load()
	if handler == nil || g.raft.State() != raft.Follower || g.raft.CurrentTerm() != b.Term {
		return heartbeat.Answer{}, false
	}
	answers := make(chan raft.RPCResponse, 1)
	(*handler)(raft.RPC{
		Command: &raft.AppendEntriesRequest{
			RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(b.Leader), Addr: []byte(b.Addr)},
			Term:      b.Term,
		},
		RespChan: answers,
	})
	select {
	case r := <-answers:
		resp, ok := r.Response.(*raft.AppendEntriesResponse)
		if !ok || r.Error != nil {
			return heartbeat.Answer{}, false
		}
		return heartbeat.Answer{OK: resp.Success, Term: resp.Term, Last: resp.LastLog, Commit: g.raft.CommitIndex()}, true
	default: // Raft gives none when it ends
		return heartbeat.Answer{}, false
	}
}
