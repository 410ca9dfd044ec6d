package keyspace

import (
	"slices"
	"strings"

	"github.com/tidwall/btree"

	"github.com/meshkv/meshkv/crdt"
)

const (
	leafCells = 64 // at most, of one leaf
	leafStep  = 8  // in which a leaf grows: half of the memory would be slack with doubling
)

// ordered holds one cell of each key, ascending by key: the newest. It points to
// cells that are there anyway and copies no key, but for one short fence per leaf:
// the keys of cells that were replaced long ago would keep those alive. An
// overwrite finds its leaf by the fences, which are few enough to stay in the
// cache, and there the old cell by its address, without touching the others.
// Not safe for concurrent use.
type ordered struct {
	// fences are the leaves by a string that is above all keys of the leaf before
	// and not above any of its own. The first is "", and is always there.
	fences *btree.Map[string, *orderedLeaf]
	n      int
}

type orderedLeaf struct {
	fence string
	cells []*crdt.Cell // ascending by key
}

func newOrdered() *ordered {
	o := &ordered{fences: btree.NewMap[string, *orderedLeaf](32)}
	o.fences.Set("", &orderedLeaf{})
	return o
}

// Len is the number of keys.
func (o *ordered) Len() int { return o.n }

// leaf is where key belongs.
func (o *ordered) leaf(key string) (l *orderedLeaf) {
	o.fences.Descend(key, func(_ string, found *orderedLeaf) bool {
		l = found
		return false
	})
	return l
}

func (l *orderedLeaf) find(key string) (i int, found bool) {
	return slices.BinarySearchFunc(l.cells, key, func(c *crdt.Cell, key string) int {
		return strings.Compare(c.Key, key)
	})
}

// Get is the cell of key, or nil.
func (o *ordered) Get(key string) *crdt.Cell {
	l := o.leaf(key)
	if i, found := l.find(key); found {
		return l.cells[i]
	}
	return nil
}

// Set makes c the cell of its key.
func (o *ordered) Set(c *crdt.Cell) {
	l := o.leaf(c.Key)
	i, found := l.find(c.Key)
	if found {
		l.cells[i] = c
		return
	}
	o.n++
	if len(l.cells) == leafCells {
		if right, at := o.split(l, i); c.Key >= right.fence {
			l, i = right, i-at
		}
	}
	if len(l.cells) == cap(l.cells) {
		l.cells = append(make([]*crdt.Cell, 0, len(l.cells)+leafStep), l.cells...)
	}
	l.cells = slices.Insert(l.cells, i, c)
}

// split moves the cells of the full leaf l from some place on to a new leaf, to
// make room at i. A leaf that grows at its end is left all but full.
func (o *ordered) split(l *orderedLeaf, i int) (right *orderedLeaf, at int) {
	at = len(l.cells) / 2
	if i == len(l.cells) {
		at = i - 1
	}
	low, high := l.cells[:at], l.cells[at:]
	right = &orderedLeaf{fence: fenceBetween(low[at-1].Key, high[0].Key)}
	right.cells = append(make([]*crdt.Cell, 0, len(high)+leafStep), high...)
	if at > leafCells/2 {
		clear(high)
		l.cells = low
	} else {
		l.cells = append(make([]*crdt.Cell, 0, at+leafStep), low...)
	}
	o.fences.Set(right.fence, right)
	return right, at
}

// fenceBetween is a copy of the shortest prefix of high that is above low.
func fenceBetween(low, high string) string {
	n := 0
	for n < len(low) && n < len(high) && low[n] == high[n] {
		n++
	}
	return strings.Clone(high[:n+1])
}

// Replace is Set(c) where old is the cell of the same key.
func (o *ordered) Replace(old, c *crdt.Cell) {
	cells := o.leaf(c.Key).cells
	if i := slices.Index(cells, old); i >= 0 {
		cells[i] = c
		return
	}
	o.Set(c)
}

// Delete takes key out.
func (o *ordered) Delete(key string) {
	l := o.leaf(key)
	i, found := l.find(key)
	if !found {
		return
	}
	o.n--
	l.cells = slices.Delete(l.cells, i, i+1)
	switch n := len(l.cells); {
	case n == 0 && l.fence != "":
		o.fences.Delete(l.fence)
	case n <= leafCells/4:
		o.absorb(l)
	}
}

// absorb joins l, of which few cells are left, with a neighbour that has few as
// well, or else gives back what l does not need.
func (o *ordered) absorb(l *orderedLeaf) {
	if o.join(o.before(l), l) || o.join(l, o.after(l)) {
		return
	}
	if n := len(l.cells); cap(l.cells) > 2*n+leafStep {
		l.cells = append(make([]*crdt.Cell, 0, n+leafStep), l.cells...)
	}
}

// join moves all cells of high to low, the leaf before it, if both have few.
func (o *ordered) join(low, high *orderedLeaf) bool {
	if low == nil || high == nil || len(low.cells)+len(high.cells) > leafCells/2 {
		return false
	}
	low.cells = append(append(make([]*crdt.Cell, 0, leafCells/2), low.cells...), high.cells...)
	o.fences.Delete(high.fence)
	return true
}

func (o *ordered) before(l *orderedLeaf) (found *orderedLeaf) {
	o.fences.Descend(l.fence, func(_ string, x *orderedLeaf) bool {
		found = x
		return x == l
	})
	return unless(found, l)
}

func (o *ordered) after(l *orderedLeaf) (found *orderedLeaf) {
	o.fences.Ascend(l.fence, func(_ string, x *orderedLeaf) bool {
		found = x
		return x == l
	})
	return unless(found, l)
}

// unless is found, or nil if that is l.
func unless(found, l *orderedLeaf) *orderedLeaf {
	if found == l {
		return nil
	}
	return found
}

// Ascend yields the cells from key on, until yield says false.
func (o *ordered) Ascend(from string, yield func(c *crdt.Cell) bool) {
	first := o.leaf(from)
	o.fences.Ascend(first.fence, func(_ string, l *orderedLeaf) bool {
		i := 0
		if l == first {
			i, _ = l.find(from)
		}
		for _, c := range l.cells[i:] {
			if !yield(c) {
				return false
			}
		}
		return true
	})
}
