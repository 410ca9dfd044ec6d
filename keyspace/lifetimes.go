package keyspace

import (
	"container/heap"
	"slices"
	"time"

	"github.com/meshkv/meshkv/crdt"
)

// collectAfter is how long an expired cell stays, hidden, before its origin
// removes it with an op.
const collectAfter = time.Minute

// lifetimes keeps track of the live cells that do not live for ever: those with
// a time to live and those bound to their writer. It decides which of them are
// hidden as far as watches are concerned, and which are due for collection. It
// changes nothing in the replica. Pure; not safe for concurrent use.
type lifetimes struct {
	byOwner map[crdt.Inc]map[crdt.Dot]*crdt.Cell // tracked cells by writer
	hidden  map[crdt.Dot]crdt.Visibility         // tracked cells that are hidden
	veiled  map[string]dotSum                    // by key, of the cells that are hidden and no registers
	due     dueHeap                              // times at which a tracked cell needs a look
}

// A dueCell is a look at a cell: to hide it when it expires, or to collect it.
type dueCell struct {
	at      int64 // ms since the Unix epoch
	cell    *crdt.Cell
	collect bool
}

type dueHeap []dueCell

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].at < h[j].at }
func (h dueHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *dueHeap) Push(x any)        { *h = append(*h, x.(dueCell)) }
func (h *dueHeap) Pop() any {
	last := (*h)[len(*h)-1]
	(*h)[len(*h)-1] = dueCell{}
	*h = (*h)[:len(*h)-1]
	return last
}

func newLifetimes() *lifetimes {
	return &lifetimes{
		byOwner: make(map[crdt.Inc]map[crdt.Dot]*crdt.Cell),
		hidden:  make(map[crdt.Dot]crdt.Visibility),
		veiled:  make(map[string]dotSum),
	}
}

func lives(c *crdt.Cell) bool { return c.Expires == 0 && !c.Ephemeral() }

// add tracks a cell that became live, whose writer is in the given state.
func (l *lifetimes) add(c *crdt.Cell, nowMs int64, owner crdt.OwnerState) {
	if lives(c) {
		return
	}
	cells := l.byOwner[c.Dot.Inc]
	if cells == nil {
		cells = make(map[crdt.Dot]*crdt.Cell)
		l.byOwner[c.Dot.Inc] = cells
	}
	cells[c.Dot] = c
	l.set(c, crdt.Visible(c, nowMs, owner))
	if c.Expires != 0 {
		heap.Push(&l.due, dueCell{at: c.Expires, cell: c})
	}
}

// remove forgets a cell that is no longer live. Its place in the heap is freed
// when it comes up, or by compact.
func (l *lifetimes) remove(c *crdt.Cell) {
	if lives(c) {
		return
	}
	l.set(c, crdt.Shown)
	cells := l.byOwner[c.Dot.Inc]
	delete(cells, c.Dot)
	if len(cells) == 0 {
		delete(l.byOwner, c.Dot.Inc)
	}
	l.compact()
}

// compact rebuilds the heap when most of it is cells that are gone, so that a
// key whose time to live is renewed again and again costs one place, not many.
func (l *lifetimes) compact() {
	if len(l.due) < 1024 {
		return
	}
	tracked := 0
	for _, cells := range l.byOwner {
		tracked += len(cells)
	}
	if len(l.due) < 4*tracked {
		return
	}
	l.due = slices.DeleteFunc(l.due, func(d dueCell) bool { return !l.tracks(d.cell) })
	heap.Init(&l.due)
}

func (l *lifetimes) tracks(c *crdt.Cell) bool {
	_, ok := l.byOwner[c.Dot.Inc][c.Dot]
	return ok
}

// shown reports whether c is visible as far as watches have been told.
func (l *lifetimes) shown(c *crdt.Cell) bool {
	if len(l.hidden) == 0 || lives(c) {
		return true
	}
	_, hidden := l.hidden[c.Dot]
	return !hidden
}

// tick returns the cells that expired since the last one, now hidden, and those
// whose collection is due.
func (l *lifetimes) tick(nowMs int64) (expired, collect []*crdt.Cell) {
	for len(l.due) > 0 && l.due[0].at <= nowMs {
		d := heap.Pop(&l.due).(dueCell)
		switch {
		case !l.tracks(d.cell):
		case d.collect:
			collect = append(collect, d.cell)
		default:
			expired = append(expired, d.cell)
			heap.Push(&l.due, dueCell{at: d.at + collectAfter.Milliseconds(), cell: d.cell, collect: true})
		}
	}
	return expired, collect
}

// nextDue is when tick next has something to do, in ms. False: never.
func (l *lifetimes) nextDue() (ms int64, ok bool) {
	if len(l.due) == 0 {
		return 0, false
	}
	return l.due[0].at, true
}

// again asks for another look at a cell that could not be collected yet.
func (l *lifetimes) again(c *crdt.Cell, at int64) {
	heap.Push(&l.due, dueCell{at: at, cell: c, collect: true})
}

// ownedBy are the ephemeral cells of inc, ascending by dot.
func (l *lifetimes) ownedBy(inc crdt.Inc) []*crdt.Cell {
	var cells []*crdt.Cell
	for _, c := range l.byOwner[inc] {
		if c.Ephemeral() {
			cells = append(cells, c)
		}
	}
	slices.SortFunc(cells, func(a, b *crdt.Cell) int { return a.Dot.Compare(b.Dot) })
	return cells
}

// set records the visibility of a tracked cell and reports change.
func (l *lifetimes) set(c *crdt.Cell, v crdt.Visibility) (changed bool) {
	old := l.hidden[c.Dot]
	if v == crdt.Shown {
		delete(l.hidden, c.Dot)
	} else {
		l.hidden[c.Dot] = v
	}
	if (old == crdt.Shown) != (v == crdt.Shown) && c.Kind != crdt.KindRegister {
		l.veil(c, v != crdt.Shown)
	}
	return old != v
}

// veil counts a cell of a type among the hidden ones of its key, or no longer.
func (l *lifetimes) veil(c *crdt.Cell, hidden bool) {
	sum := l.veiled[c.Key]
	if hidden {
		sum = sum.plus(sumOf(c.Dot))
	} else {
		sum = sum.minus(sumOf(c.Dot))
	}
	if l.veiled[c.Key] = sum; sum == (dotSum{}) {
		delete(l.veiled, c.Key)
	}
}
