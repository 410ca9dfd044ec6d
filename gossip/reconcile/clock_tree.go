package reconcile

import (
	"cmp"
	"slices"
	"sort"

	"github.com/meshkv/meshkv/crdt"
)

// A clockTree is the same as a Trie for the entries of one clock, which is
// small and does not change: entries ordered by place, and running sums.
type clockTree struct {
	entries []clockItem
	sums    []uint64 // sums[i] is the sum of the hashes of entries[:i]
}

type clockItem struct {
	place uint64
	inc   crdt.Inc
	entry crdt.Entry
}

// incPlace is where the entry of an incarnation is put.
func incPlace(seed uint64, inc crdt.Inc) uint64 {
	return mix(mix(seed+0x8cb92ba72f3d8dd7) + uint64(inc))
}

func newClockTree(seed uint64, c *crdt.Clock) *clockTree {
	t := &clockTree{entries: make([]clockItem, 0, c.Len()), sums: make([]uint64, 1, c.Len()+1)}
	for _, inc := range c.Incs() {
		t.entries = append(t.entries, clockItem{incPlace(seed, inc), inc, c.Entry(inc)})
	}
	slices.SortFunc(t.entries, func(a, b clockItem) int {
		return cmp.Or(cmp.Compare(a.place, b.place), cmp.Compare(a.inc, b.inc))
	})
	for i, it := range t.entries {
		t.sums = append(t.sums, t.sums[i]+EntryHash(seed, it.inc, it.entry))
	}
	return t
}

// at is the index of the first entry at or after place.
func (t *clockTree) at(place uint64) int {
	return sort.Search(len(t.entries), func(i int) bool { return t.entries[i].place >= place })
}

// bounds are the indexes of the entries under p.
func (t *clockTree) bounds(p prefix) (lo, hi int) {
	last := p.last()
	return t.at(p.bits), sort.Search(len(t.entries), func(i int) bool { return t.entries[i].place > last })
}

// under are the entries under p, ordered by place.
func (t *clockTree) under(p prefix) []clockItem {
	lo, hi := t.bounds(p)
	return t.entries[lo:hi]
}

func (t *clockTree) sum(p prefix) Sum {
	lo, hi := t.bounds(p)
	return Sum{t.sums[hi] - t.sums[lo], uint64(hi - lo)}
}

func (t *clockTree) children(p prefix) (sums [fanout]Sum) {
	for i := range sums {
		sums[i] = t.sum(p.child(i))
	}
	return sums
}
