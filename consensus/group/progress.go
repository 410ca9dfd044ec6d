package group

import (
	"maps"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"
)

// progress is what the followers of this replica are known to have, by their answers
// to appends. It belongs to the newest term that such an append was sent in.
type progress struct {
	mu        sync.Mutex // protects the fields below
	term      uint64
	followers map[raft.ServerID]follower
	down      map[raft.ServerID]chan struct{} // closed when the follower is reached again

	sent     atomic.Uint64 // appends, without heartbeats
	beats    atomic.Uint64 // heartbeats that went alone
	answered chan struct{} // of capacity 1: a follower has more than before, or was lost, or reached
	asked    chan struct{} // of capacity 1: a follower waits for more than it was told
}

// A follower has answered an append of the term, or was not reached by one.
type follower struct {
	addr   raft.ServerAddress
	match  uint64 // its log is ours up to here
	commit uint64 // it knows that entries up to here are committed; commit <= match
	asked  uint64 // it waits for this one to be known there
	losses uint64 // how often what it was told may have got lost
}

// lose is of a follower that may have been started anew: a replica begins without a
// commit index.
func (f *follower) lose() {
	f.commit, f.asked = 0, 0
	f.losses++
}

func newProgress() *progress {
	return &progress{followers: make(map[raft.ServerID]follower), down: make(map[raft.ServerID]chan struct{}), answered: make(chan struct{}, 1), asked: make(chan struct{}, 1)}
}

// in returns the follower called id and true, if term is not over. It is called with
// mu held.
func (p *progress) in(term uint64, id raft.ServerID) (follower, bool) {
	if term > p.term {
		p.term = term
		clear(p.followers)
		for id := range p.down {
			p.reached(id)
		}
	}
	return p.followers[id], term == p.term
}

// appended is told of each append that was answered.
func (p *progress) appended(id raft.ServerID, addr raft.ServerAddress, req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) {
	if !resp.Success || isHeartbeat(req) {
		return
	}
	end := req.PrevLogEntry
	if n := len(req.Entries); n > 0 {
		end = req.Entries[n-1].Index
	}
	p.has(id, addr, req.Term, end, req.LeaderCommitIndex)
}

// has says that the log of a follower is that of term's leader up to match, and that
// it was told that commit is committed.
func (p *progress) has(id raft.ServerID, addr raft.ServerAddress, term, match, commit uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f, ok := p.in(term, id)
	if !ok {
		return
	}
	f.addr, f.match = addr, max(f.match, match)
	f.commit = max(f.commit, min(commit, f.match))
	p.followers[id] = f
	signal(p.answered)
}

// waits says that somebody waits at a follower for index to be known there.
func (p *progress) waits(id raft.ServerID, term, index uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f, ok := p.in(term, id)
	if !ok || f.match == 0 || f.commit >= index || f.asked >= index { // of one that never answered nothing is known
		return
	}
	f.asked = index
	p.followers[id] = f
	signal(p.asked)
}

// lost says that a follower could not be reached.
func (p *progress) lost(id raft.ServerID, term uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if f, ok := p.in(term, id); ok {
		f.lose()
		p.followers[id] = f
		signal(p.answered)
	}
}

// lostAt is lost for whoever is at addr.
func (p *progress) lostAt(addr raft.ServerAddress) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for id, f := range p.followers {
		if f.addr == addr {
			f.lose()
			p.followers[id] = f
		}
	}
	signal(p.answered)
}

// failed says that a request to a follower failed, and answers that one did not.
func (p *progress) failed(id raft.ServerID, term uint64) {
	p.lost(id, term)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.down[id] == nil {
		p.down[id] = make(chan struct{})
	}
}

func (p *progress) answers(id raft.ServerID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reached(id)
}

// reached is called with mu held.
func (p *progress) reached(id raft.ServerID) {
	if c := p.down[id]; c != nil {
		close(c)
		delete(p.down, id)
		signal(p.answered)
	}
}

// unreachable is closed when a follower answers again, or nil if the last request to it
// did not fail.
func (p *progress) unreachable(id raft.ServerID) <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.down[id]
}

// commitOf is up to where a follower knows entries to be committed.
func (p *progress) commitOf(id raft.ServerID, term uint64) uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	f, _ := p.in(term, id)
	return f.commit
}

// knows reports whether req, which has no entries, tells a follower nothing new.
func (p *progress) knows(id raft.ServerID, req *raft.AppendEntriesRequest) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	f, ok := p.in(req.Term, id)
	return ok && req.PrevLogEntry <= f.match && req.LeaderCommitIndex <= f.commit
}

// of is a copy of the followers in term.
func (p *progress) of(term uint64) map[raft.ServerID]follower {
	p.mu.Lock()
	defer p.mu.Unlock()
	if term != p.term {
		return nil
	}
	return maps.Clone(p.followers)
}
