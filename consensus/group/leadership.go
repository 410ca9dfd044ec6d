package group

import (
	"sync"

	"github.com/hashicorp/raft"
)

// A Leadership says whether a replica leads its group.
type Leadership struct {
	Leads bool
	Term  uint64 // that it leads; 0 if it does not
}

// Leadership is the present one as far as it is known, and a channel that is closed
// when there is another. Whoever acts for the leader looks, works, and looks again
// when the channel is closed. It may miss changes that were over when it looked, but
// never the last one; a leadership that was lost and won again has another term.
//
// It tells of changes after they happened: that this replica still leads is proved
// by Propose and ReadIndex alone.
func (g *Group) Leadership() (now Leadership, changed <-chan struct{}) { return g.leadership.look() }

// leadership is the newest Leadership.
type leadership struct {
	mu      sync.Mutex // protects the fields below
	now     Leadership
	changed chan struct{}
}

func (l *leadership) look() (Leadership, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.now, l.changed
}

func (l *leadership) set(now Leadership) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now == l.now {
		return
	}
	l.now = now
	close(l.changed)
	l.changed = make(chan struct{})
}

// watchLeadership takes what Raft says of its leadership. Raft waits for it at each
// change, so it does nothing else. Of a leadership that is over already Raft will say
// so next: while it waits with that, it cannot win another.
func (g *Group) watchLeadership(notify <-chan bool) {
	defer g.leadership.set(Leadership{})
	for {
		select {
		case won := <-notify:
			if !won {
				if g.cfg.Heartbeats != nil {
					g.cfg.Heartbeats.Rest()
				}
				g.leadership.set(Leadership{})
			} else if term, ok := g.leads(); ok {
				g.leadership.set(Leadership{Leads: true, Term: term})
			}
		case <-g.ctx.Done():
			return
		}
	}
}

// leads is the term that this replica leads, if it does. Terms only rise, and one
// that is the same before and after is the one of the state between.
func (g *Group) leads() (term uint64, ok bool) {
	term = g.raft.CurrentTerm()
	leader := g.raft.State() == raft.Leader
	return term, leader && g.raft.CurrentTerm() == term
}
