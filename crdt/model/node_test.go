package model

import (
	"maps"
	"slices"

	"github.com/meshkv/meshkv/crdt"
)

// An image is a data directory: what a store holds that was told of every
// Changes, together with the state of the reference at that time.
type image struct {
	cells   map[crdt.Dot]*crdt.Cell
	clock   *crdt.Clock
	pending dotSet
	ref     refState
	inc     crdt.Inc
	seq     uint64
	clean   bool // written by a clean stop
	met     bool
}

func newImage() *image {
	return &image{cells: map[crdt.Dot]*crdt.Cell{}, clock: crdt.NewClock(), pending: dotSet{}, ref: newRefState()}
}

// A node is one replica, twice.
type node struct {
	id     int
	real   *crdt.Replica
	ref    *reference
	disk   *image // kept by Changes alone; its ref is not
	dead   dotSet // dots that have been in C and not in S in this life
	life   int    // process starts
	skew   int64  // of its clock
	hidden dotSet // under the bug of closing by event
	met    bool   // it has completed a session since it began with nothing
	cells  *crdt.MapCells
}

// boot starts a process on a data directory, which stays as it is.
func (n *node) boot(from *image, inc crdt.Inc, seq uint64) {
	n.disk = &image{cells: maps.Clone(from.cells), clock: from.clock.Clone(), pending: maps.Clone(from.pending)}
	n.ref = &reference{refState: from.ref.copy(), inc: inc, seq: seq}
	n.dead = dotSet{}
	n.hidden = dotSet{}
	n.met = from.met
	n.life++
	n.cells = crdt.NewMapCells()
	for _, c := range from.cells {
		n.cells.Add(c)
	}
	n.real = crdt.NewReplica(crdt.State{
		Inc: inc, Seq: seq, Cells: n.cells, Clock: from.clock.Clone(),
		Pending: crdt.DotsOf(slices.Collect(maps.Keys(from.pending))...),
	})
}

// image is a copy of the data directory now.
func (n *node) image(clean bool) *image {
	return &image{
		cells: maps.Clone(n.disk.cells), clock: n.disk.clock.Clone(), pending: maps.Clone(n.disk.pending),
		ref: n.ref.copy(), inc: n.real.Inc(), seq: n.real.Seq(), clean: clean, met: n.met,
	}
}

// shown is the visible cells of a key in the real replica.
func (n *node) shown(key string, now int64) []crdt.Dot {
	var cells []*crdt.Cell
	for _, c := range n.real.Cells().ByKey(key) {
		owner := crdt.OwnerAlive
		if n.real.Clock().Entry(c.Dot.Inc).Closed {
			owner = crdt.OwnerClosed
		}
		if crdt.Visible(c, now, owner) == crdt.Shown && !n.hidden[c.Dot] {
			cells = append(cells, c)
		}
	}
	slices.SortFunc(cells, func(a, b *crdt.Cell) int { return b.Compare(a) })
	dots := make([]crdt.Dot, len(cells))
	for i, c := range cells {
		dots[i] = c.Dot
	}
	return dots
}

// settle takes over what a step changed, as a store would, and makes the checks
// that cost no more than the change.
func (w *world) settle(n *node) {
	ch := n.real.Changes()
	for _, c := range ch.Added {
		if n.dead[c.Dot] || w.rejected[c.Dot] && n.real.Clock().Retired(c.Dot.Inc) {
			w.fail("node %d: dead %v came back", n.id, c.Dot)
		}
		n.disk.cells[c.Dot] = c
	}
	for _, inc := range ch.Clock {
		before, after := n.disk.clock.Entry(inc), n.real.Clock().Entry(inc)
		forgot := before.Closed && !after.Closed || before.Prefix > after.Prefix
		for _, is := range before.Islands {
			forgot = forgot || !after.Covers(is)
		}
		if forgot && !n.real.Clock().Retired(inc) {
			w.fail("node %d: clock of %v went from %+v to %+v", n.id, inc, before, after)
		}
		n.disk.clock.Set(inc, after)
	}
	for _, c := range ch.Removed {
		if !n.real.Clock().Contains(c.Dot) && !n.real.IsPending(c.Dot) {
			w.fail("node %d: %v was removed and forgotten", n.id, c.Dot)
		}
		n.dead[c.Dot] = true
		delete(n.disk.cells, c.Dot)
		w.justified(n, c.Dot)
	}
	for _, d := range ch.PendingAdded {
		n.disk.pending[d] = true
	}
	for _, d := range ch.PendingDiscarded {
		if !n.real.Clock().Contains(d) {
			w.fail("node %d: pending %v was forgotten", n.id, d)
		}
		delete(n.disk.pending, d)
	}
	ch.Reset()
	if n.real.Cells().Len() != len(n.ref.S) || n.real.PendingLen() != len(n.ref.D) {
		w.fail("node %d: %d cells, %d pending; reference: %d, %d", n.id,
			n.real.Cells().Len(), n.real.PendingLen(), len(n.ref.S), len(n.ref.D))
	}
}

// knows walks the dots in the real clock.
func (n *node) knows(f func(crdt.Dot)) {
	clock := n.real.Clock()
	for _, inc := range clock.Incs() {
		if inc == 0 { // the horizon
			continue
		}
		e := clock.Entry(inc)
		for seq := uint64(1); seq <= e.Prefix; seq++ {
			f(crdt.Dot{Inc: inc, Seq: seq})
		}
		for _, is := range e.Islands {
			for seq := is.Lo; seq <= is.Hi; seq++ {
				f(crdt.Dot{Inc: inc, Seq: seq})
			}
		}
	}
}
