package keyspace

import (
	"slices"

	"github.com/meshkv/meshkv/crdt"
)

const (
	// regretFor is how long a cell that somebody else removed may still turn out to
	// have been collected by mistake. The removal is an op; that the incarnation was
	// closed comes with a session, a few seconds later.
	regretFor = 60_000 // ms

	maxRegrets = 1 << 16 // removed cells that are kept for that; more are forgotten
)

// registry is what this process has put bound to itself and still stands for, so
// that it can be put again when its incarnation was closed by mistake, or is
// replaced by another. Pure; not safe for concurrent use.
type registry struct {
	cells map[crdt.Dot]*crdt.Cell // live
	gone  []regret                // removed by others, oldest first
}

type regret struct {
	at   int64 // ms since the Unix epoch
	cell *crdt.Cell
}

func newRegistry() registry { return registry{cells: make(map[crdt.Dot]*crdt.Cell)} }

// add takes up a cell that this process put.
func (r *registry) add(c *crdt.Cell) {
	if c.Ephemeral() {
		r.cells[c.Dot] = c
	}
}

// remove takes note that c is no longer live: because of a local call, which ends
// it, or because of somebody else, which may have been a collection.
func (r *registry) remove(c *crdt.Cell, local bool, nowMs int64) {
	if !c.Ephemeral() || r.cells[c.Dot] == nil {
		return
	}
	delete(r.cells, c.Dot)
	if !local && len(r.gone) < maxRegrets {
		r.gone = append(r.gone, regret{nowMs, c})
	}
}

// tick forgets what was removed long ago.
func (r *registry) tick(nowMs int64) {
	n := 0
	for n < len(r.gone) && nowMs-r.gone[n].at >= regretFor {
		n++
	}
	if n > 0 {
		r.gone = slices.Delete(r.gone, 0, n)
	}
}

// nextDue is when tick next has something to do, in ms. False: never.
func (r *registry) nextDue() (ms int64, ok bool) {
	if len(r.gone) == 0 {
		return 0, false
	}
	return r.gone[0].at + regretFor, true
}

// take empties the registry and returns its cells in the order of their dots, and
// those that were removed lately only if they were regretted: their incarnation
// was closed while this process lived.
func (r *registry) take(regretted bool) []*crdt.Cell {
	out := make([]*crdt.Cell, 0, len(r.cells))
	for _, c := range r.cells {
		out = append(out, c)
	}
	if regretted {
		for _, g := range r.gone {
			out = append(out, g.cell)
		}
	}
	clear(r.cells)
	r.gone = nil
	slices.SortFunc(out, func(a, b *crdt.Cell) int { return a.Dot.Compare(b.Dot) })
	return out
}
