package model

import (
	"bytes"
	"slices"

	"github.com/meshkv/meshkv/crdt"
)

// check compares a node with its reference and its disk, and its D and S with
// what the ops in its C say.
func (w *world) check(n *node) {
	known, removed := 0, w.scratch
	clear(removed)
	n.knows(func(d crdt.Dot) {
		op := w.issued[d]
		if op == nil {
			w.fail("node %d: knows %v, which was never issued", n.id, d)
		}
		if !n.ref.C[d] {
			w.fail("node %d: knows %v, the reference does not", n.id, d)
		}
		known++
	})
	for d := range n.ref.A {
		for _, r := range w.issued[d].removes {
			removed[r] = true
		}
	}
	if known != len(n.ref.C) {
		w.fail("node %d: knows %d dots, the reference %d", n.id, known, len(n.ref.C))
	}
	for inc := range w.lastInc + 1 {
		e := n.real.Clock().Entry(inc)
		if e.Closed != n.ref.closed[inc] {
			w.fail("node %d: closed bit of %v differs from the reference", n.id, inc)
		}
		if e.Sealed != n.ref.sealed[inc] || e.Sealed && !e.Closed {
			w.fail("node %d: sealed bit of %v differs from the reference", n.id, inc)
		}
		if got, want := n.real.Clock().Retired(inc), inc > 0 && n.ref.retired(inc); got != want && inc > 0 {
			w.fail("node %d: %v is retired: %v, in the reference %v", n.id, inc, got, want)
		}
		last := e.Prefix
		for _, is := range e.Islands {
			if is.Lo < last+2 || is.Hi < is.Lo {
				w.fail("node %d: entry of %v is not in the one form of its dots: %+v", n.id, inc, e)
			}
			last = is.Hi
		}
	}
	if !n.real.Clock().Equal(n.disk.clock) {
		w.fail("node %d: clock on disk differs", n.id)
	}

	pending := n.real.Pending()
	for d := range pending.All() {
		switch {
		case !n.ref.D[d]:
			w.fail("node %d: %v is pending, not in the reference", n.id, d)
		case !n.disk.pending[d]:
			w.fail("node %d: %v is pending, not on disk", n.id, d)
		case n.real.Clock().Contains(d):
			w.fail("node %d: %v is pending and known", n.id, d)
		case n.real.Cells().ByDot(d) != nil:
			w.fail("node %d: %v is pending and live", n.id, d)
		case !removed[d]:
			w.fail("node %d: %v is pending, no known op removed it", n.id, d)
		}
	}
	for d := range removed {
		if !n.real.Clock().Contains(d) && !n.real.IsPending(d) {
			w.fail("node %d: %v was removed, is unknown and not pending", n.id, d)
		}
	}
	if pending.Len() != len(n.ref.D) || len(n.disk.pending) != len(n.ref.D) {
		w.fail("node %d: %d pending, on disk %d, reference %d", n.id, pending.Len(), len(n.disk.pending), len(n.ref.D))
	}

	if n.cells.Len() != len(n.ref.S) || len(n.disk.cells) != len(n.ref.S) {
		w.fail("node %d: %d cells, on disk %d, reference %d", n.id, n.cells.Len(), len(n.disk.cells), len(n.ref.S))
	}
	for d, want := range n.ref.S {
		op := w.issued[d]
		switch got := n.cells.ByDot(d); {
		case got == nil || n.disk.cells[d] != got:
			w.fail("node %d: %v is live in the reference: replica %v, disk %v", n.id, d, got != nil, n.disk.cells[d] != nil)
		case op == nil || op.cell == nil || !sameCell(op.cell, got) || !sameCell(want, got):
			w.fail("node %d: %v is not the cell that was put", n.id, d)
		case removed[d]:
			w.fail("node %d: %v is live and was removed by a known op", n.id, d)
		}
	}
	n.knows(func(d crdt.Dot) {
		live := n.cells.ByDot(d) != nil
		if !live {
			n.dead[d] = true
		}
		if !live && w.issued[d].cell != nil && !removed[d] {
			w.fail("node %d: %v is known and not live, no known op removed it", n.id, d)
		}
	})
}

func sameCell(a, b *crdt.Cell) bool {
	return a.Dot == b.Dot && a.HLC == b.HLC && a.Key == b.Key && a.Path == b.Path && a.Kind == b.Kind &&
		a.Flags == b.Flags && a.Expires == b.Expires && bytes.Equal(a.Value, b.Value)
}

// quiesce lets the replicas exchange all they have, and checks that every one
// then holds every put that some replica had seen, minus everything removed.
func (w *world) quiesce() {
	w.tally.Quiesced++
	w.drain()
	known, seen, removed := dotSet{}, dotSet{}, dotSet{}
	for _, n := range w.nodes {
		w.check(n)
		n.knows(func(d crdt.Dot) { known[d], seen[d] = true, true })
		for d := range n.ref.A {
			for _, r := range w.issued[d].removes {
				removed[r] = true
			}
		}
		for c := range n.cells.All() {
			seen[c.Dot] = true
		}
	}
	// Along a line of all nodes and back, everything gets everywhere.
	order := w.rng.Perm(len(w.nodes))
	for i := 1; i < len(order); i++ {
		w.fullSession(w.nodes[order[i-1]], w.nodes[order[i]])
	}
	for i := len(order) - 2; i > 0; i-- {
		w.fullSession(w.nodes[order[i-1]], w.nodes[order[i]])
	}
	for _, n := range w.nodes {
		w.check(n)
		for d := range seen {
			want := w.issued[d].cell != nil && !removed[d]
			if want && w.rejected[d] { // or not, if all who had retired it went back to an older state
				want = w.nodes[0].cells.ByDot(d) != nil
			}
			if live := n.cells.ByDot(d) != nil; live != want {
				w.fail("node %d: after quiescence %v is live: %v, want %v", n.id, d, live, want)
			}
		}
		for c := range n.cells.All() {
			if !seen[c.Dot] {
				w.fail("node %d: after quiescence %v is live, nobody had seen it", n.id, c.Dot)
			}
		}
		for d := range known {
			if !n.real.Clock().Contains(d) {
				w.fail("node %d: after quiescence does not know %v", n.id, d)
			}
		}
		if !n.real.Clock().Equal(w.nodes[0].real.Clock()) || !slices.Equal(n.real.Pending(), w.nodes[0].real.Pending()) {
			w.fail("node %d: after quiescence clock or pending differ from node 0", n.id)
		}
		for _, key := range keys {
			got, want, first := n.shown(key, w.now), n.ref.shown(key, w.now), w.nodes[0].shown(key, w.now)
			if w.bug != bugCloseEvent && !slices.Equal(got, want) {
				w.fail("node %d: shows %v at %q, the reference %v", n.id, got, key, want)
			}
			if !slices.Equal(got, first) {
				w.fail("node %d: shows %v at %q, node 0 %v", n.id, got, key, first)
			}
		}
	}
}
