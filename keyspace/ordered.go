package keyspace

import (
	"encoding/binary"
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
// cache, and there the old cell by its address, without touching the others. A new
// key finds its place among the others by their hints: to compare the keys would be
// two misses of the cache for each.
// Not safe for concurrent use.
type ordered struct {
	// fences are the leaves by a string that is above all keys of the leaf before
	// and not above any of its own. The first is "", and is always there.
	fences *btree.Map[string, *orderedLeaf]
	n      int
}

// An orderedLeaf has in hints[i] the four bytes that follow the first skip ones in the
// key of cells[i]. Every key begins with fence[:skip], so the hints ascend as well.
type orderedLeaf struct {
	fence string
	cells []*crdt.Cell // ascending by key
	skip  int          // at most len(fence)
	hints [leafCells]uint32
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

// find is where key is, or where it would be put.
func (l *orderedLeaf) find(key string) (i int, found bool) {
	n := len(l.cells)
	if !l.hinted(key) {
		return n, false // it is not below the fence, and so above all that begin like it
	}
	h := hint(key, l.skip)
	i, _ = slices.BinarySearch(l.hints[:n], h)
	end := i
	for end < n && l.hints[end] == h {
		end++
	}
	at, found := slices.BinarySearchFunc(l.cells[i:end], key, func(c *crdt.Cell, key string) int {
		return strings.Compare(c.Key, key)
	})
	return i + at, found
}

// hinted reports whether key, which belongs into l, begins like the keys of l.
func (l *orderedLeaf) hinted(key string) bool { return strings.HasPrefix(key, l.fence[:l.skip]) }

// hint is the four bytes of key from skip on. What is beyond its end counts as zero.
func hint(key string, skip int) uint32 {
	var b [4]byte
	copy(b[:], key[min(skip, len(key)):])
	return binary.BigEndian.Uint32(b[:])
}

// hintAll makes the hints tell apart as many of the keys as they can. was are the
// hints of the same cells where skip bytes were left out, or nil.
func (l *orderedLeaf) hintAll(was []uint32, skip int) {
	l.skip = 0
	if n := len(l.cells); n > 0 {
		l.skip = common(l.fence, l.cells[n-1].Key) // and so of all between
	}
	if was != nil && skip == l.skip {
		copy(l.hints[:], was)
		return
	}
	for i, c := range l.cells {
		l.hints[i] = hint(c.Key, l.skip)
	}
}

// insert puts c, whose key is not there, at i, where it belongs.
func (l *orderedLeaf) insert(i int, c *crdt.Cell) {
	n := len(l.cells)
	if n == cap(l.cells) {
		l.cells = append(make([]*crdt.Cell, 0, n+leafStep), l.cells...)
	}
	l.cells = slices.Insert(l.cells, i, c)
	if !l.hinted(c.Key) {
		l.hintAll(nil, 0)
		return
	}
	copy(l.hints[i+1:n+1], l.hints[i:n])
	l.hints[i] = hint(c.Key, l.skip)
}

// delete takes out what is at i.
func (l *orderedLeaf) delete(i int) {
	copy(l.hints[i:], l.hints[i+1:len(l.cells)])
	l.cells = slices.Delete(l.cells, i, i+1)
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
	l.insert(i, c)
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
	was, skip := l.hints, l.skip
	l.hintAll(was[:at], skip)
	right.hintAll(was[at:], skip)
	o.fences.Set(right.fence, right)
	return right, at
}

// fenceBetween is a copy of the shortest prefix of high that is above low.
func fenceBetween(low, high string) string {
	return strings.Clone(high[:common(low, high)+1])
}

// common is the length of the longest prefix of both.
func common(a, b string) (n int) {
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
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
	l.delete(i)
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
	low.hintAll(nil, 0)
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
