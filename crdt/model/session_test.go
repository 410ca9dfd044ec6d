package model

import (
	"iter"
	"slices"

	"github.com/meshkv/meshkv/crdt"
)

// A snapshot is what a side of a session took when the session began for it.
type snapshot struct {
	cells   []*crdt.Cell
	has     dotSet // the dots of cells
	clock   *crdt.Clock
	pending crdt.Dots
	ref     refState
}

// A side is one end of a session.
type side struct {
	node     *node
	snap     *snapshot
	inbox    []offer // offered cells that have not arrived
	got      []offer // those that have, which may arrive again
	finished bool
}

// An offer is a cell, twice.
type offer struct{ real, ref *crdt.Cell }

// A session reconciles two nodes. It lasts for many steps of a schedule.
type session struct{ a, b *side }

func (w *world) snapshotCells(n *node, s *snapshot) {
	s.cells = slices.Collect(n.cells.All())
	s.has = make(dotSet, len(s.cells))
	for _, c := range s.cells {
		s.has[c.Dot] = true
	}
	s.ref.S = n.ref.copy().S
}

func (w *world) snapshotClock(n *node, s *snapshot) {
	cells := s.ref.S
	s.clock, s.pending, s.ref = n.real.Clock().Clone(), n.real.Pending(), n.ref.copy()
	s.ref.S = cells
}

func (w *world) snapshot(n *node) *snapshot {
	s := &snapshot{}
	w.snapshotClock(n, s)
	w.snapshotCells(n, s)
	return s
}

func (w *world) openSession() {
	a, b := w.node(), w.node()
	if a != b && len(w.sessions) < maxSessions {
		w.sessions = append(w.sessions, w.open(a, b))
	}
}

// open begins a session at a; it begins at b when a's first message arrives.
func (w *world) open(a, b *node) *session {
	return &session{a: &side{node: a, snap: w.snapshot(a)}, b: &side{node: b}}
}

// accept begins a session at b, which fixes what either offers.
func (w *world) accept(s *session) {
	s.b.snap = w.snapshot(s.b.node)
	switch w.bug {
	case bugCellsLater:
		w.snapshotCells(s.a.node, s.a.snap)
	case bugClockLater:
		w.snapshotClock(s.a.node, s.a.snap)
	}
	w.offer(s.a, s.b)
	w.offer(s.b, s.a)
	if w.bug == bugDropEarly {
		w.dropLacking(s.a, s.b)
		w.dropLacking(s.b, s.a)
	}
}

// offer puts on their way the cells of from whose dot the clock of to lacks.
func (w *world) offer(from, to *side) {
	for _, c := range from.snap.cells {
		if to.snap.clock.Contains(c.Dot) {
			continue
		}
		if w.bug == bugHideProvisional && !from.snap.clock.Contains(c.Dot) {
			continue
		}
		ref := from.snap.ref.S[c.Dot]
		if ref == nil || to.snap.ref.knows(c.Dot) {
			w.fail("node %d: offers %v to node %d, the reference does not", from.node.id, c.Dot, to.node.id)
		}
		to.inbox = append(to.inbox, offer{c, ref})
	}
	w.rng.Shuffle(len(to.inbox), func(i, j int) { to.inbox[i], to.inbox[j] = to.inbox[j], to.inbox[i] })
}

func (w *world) dropLacking(at, peer *side) {
	for c := range at.node.cells.All() {
		if peer.snap.clock.Contains(c.Dot) && !peer.snap.has[c.Dot] {
			w.dropBehindTheRules(at.node, c.Dot)
		}
	}
}

func (w *world) advanceSession() {
	if len(w.sessions) == 0 {
		return
	}
	s := w.sessions[w.rng.IntN(len(w.sessions))]
	for range 1 + w.rng.IntN(6) {
		w.advance(s)
	}
	if s.a.finished && s.b.finished {
		w.sessions = slices.DeleteFunc(w.sessions, func(x *session) bool { return x == s })
	}
}

// advance makes one step of a session.
func (w *world) advance(s *session) {
	if s.b.snap == nil {
		w.accept(s)
		return
	}
	at, peer := s.a, s.b
	if w.chance(50) {
		at, peer = peer, at
	}
	switch {
	case at.finished:
	case len(at.got) > 0 && w.chance(10): // it arrives again
		w.provide(at.node, at.got[w.rng.IntN(len(at.got))])
	case w.bug == bugConcludeEarly && w.chance(10):
		w.conclude(at, peer)
	case len(at.inbox) > 0:
		o := at.inbox[len(at.inbox)-1]
		at.inbox = at.inbox[:len(at.inbox)-1]
		at.got = append(at.got, o)
		w.provide(at.node, o)
	default:
		w.conclude(at, peer)
	}
}

func (w *world) provide(n *node, o offer) {
	got, want := n.real.Provide(o.real), n.ref.provide(o.ref)
	if got != want {
		w.fail("node %d: took the offered %v: %v, in the reference %v", n.id, o.real.Dot, got, want)
	}
	if got {
		w.tally.Provided++
	} else {
		w.tally.Refused++
	}
	w.settle(n)
}

func (w *world) conclude(at, peer *side) {
	n := at.node
	n.real.Conclude(crdt.Known{Clock: peer.snap.clock, Pending: peer.snap.pending}, w.lacks(n, peer.snap))
	w.reject(n, n.ref.conclude(peer.snap.ref, w.lastInc))
	at.finished = true
	n.met = n.met || peer.node.met
	w.tally.Concluded++
	w.settle(n)
	if w.chance(20) {
		w.check(n)
	}
}

// lacks are the live dots at n that the peer did not hold. A session may well
// name dots that are not live any more.
func (w *world) lacks(n *node, peer *snapshot) iter.Seq[crdt.Dot] {
	return func(yield func(crdt.Dot) bool) {
		for c := range n.cells.All() {
			if !peer.has[c.Dot] && !yield(c.Dot) {
				return
			}
		}
		for inc := range min(w.lastInc, 3) {
			if d := (crdt.Dot{Inc: inc + 1, Seq: 1}); !peer.has[d] && !yield(d) {
				return
			}
		}
	}
}

// abortSession ends a session in the middle. What has arrived stays.
func (w *world) abortSession() {
	if len(w.sessions) > 0 {
		w.tally.Aborted++
		i := w.rng.IntN(len(w.sessions))
		w.sessions = slices.Delete(w.sessions, i, i+1)
	}
}

// fullSession runs a session from beginning to end.
func (w *world) fullSession(a, b *node) {
	s := w.open(a, b)
	for !s.a.finished || !s.b.finished {
		w.advance(s)
	}
}
