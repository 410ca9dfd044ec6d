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

// ordered holds the refs of a slab that have a key, ascending by key. It copies no
// key, but for one short fence per leaf: the keys of cells that were replaced long ago
// would keep those alive. Overwrites do not concern it. A new key finds its leaf by the
// fences, which are few enough to stay in the cache, and its place among the others by
// their hints: to compare the keys would be three misses of the cache for each.
// Not safe for concurrent use.
type ordered struct {
	cells *slab
	// fences are the leaves by a string that is above all keys of the leaf before
	// and not above any of its own. The first is "", and is always there.
	fences *btree.Map[string, *orderedLeaf]
	n      int
}

// An orderedLeaf has in hints[i] the four bytes that follow the first skip ones in the
// key of refs[i]. Every key begins with fence[:skip], so the hints ascend as well.
type orderedLeaf struct {
	fence string
	refs  []ref // ascending by key
	skip  int   // at most len(fence)
	hints [leafCells]uint32
}

func newOrdered(cells *slab) *ordered {
	o := &ordered{cells: cells, fences: btree.NewMap[string, *orderedLeaf](32)}
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

// key is that of r.
func (o *ordered) key(r ref) string { return o.cells.get(r).Key }

// find is where key is in l, or where it would be put.
func (o *ordered) find(l *orderedLeaf, key string) (i int, found bool) {
	n := len(l.refs)
	if !l.hinted(key) {
		return n, false // it is not below the fence, and so above all that begin like it
	}
	h := hint(key, l.skip)
	i, _ = slices.BinarySearch(l.hints[:n], h)
	end := i
	for end < n && l.hints[end] == h {
		end++
	}
	at, found := slices.BinarySearchFunc(l.refs[i:end], key, func(r ref, key string) int {
		return strings.Compare(o.key(r), key)
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

// hintAll makes the hints of l tell apart as many of the keys as they can. was are the
// hints of the same keys where skip bytes were left out, or nil.
func (o *ordered) hintAll(l *orderedLeaf, was []uint32, skip int) {
	l.skip = 0
	if n := len(l.refs); n > 0 {
		l.skip = common(l.fence, o.key(l.refs[n-1])) // and so of all between
	}
	if was != nil && skip == l.skip {
		copy(l.hints[:], was)
		return
	}
	for i, r := range l.refs {
		l.hints[i] = hint(o.key(r), l.skip)
	}
}

// insert puts r, of a key that is not there, at i of l, where it belongs.
func (o *ordered) insert(l *orderedLeaf, i int, key string, r ref) {
	n := len(l.refs)
	if n == cap(l.refs) {
		l.refs = append(make([]ref, 0, n+leafStep), l.refs...)
	}
	l.refs = slices.Insert(l.refs, i, r)
	if !l.hinted(key) {
		o.hintAll(l, nil, 0)
		return
	}
	copy(l.hints[i+1:n+1], l.hints[i:n])
	l.hints[i] = hint(key, l.skip)
}

// delete takes out what is at i.
func (l *orderedLeaf) delete(i int) {
	copy(l.hints[i:], l.hints[i+1:len(l.refs)])
	l.refs = slices.Delete(l.refs, i, i+1)
}

// Get is the cell of key, or nil.
func (o *ordered) Get(key string) *crdt.Cell {
	l := o.leaf(key)
	if i, found := o.find(l, key); found {
		return o.cells.get(l.refs[i])
	}
	return nil
}

// Insert makes r, which holds its cell already, the ref of key, which has none.
func (o *ordered) Insert(key string, r ref) {
	l := o.leaf(key)
	i, _ := o.find(l, key)
	o.n++
	if len(l.refs) == leafCells {
		if right, at := o.split(l, i); key >= right.fence {
			l, i = right, i-at
		}
	}
	o.insert(l, i, key, r)
}

// split moves the refs of the full leaf l from some place on to a new leaf, to
// make room at i. A leaf that grows at its end is left all but full.
func (o *ordered) split(l *orderedLeaf, i int) (right *orderedLeaf, at int) {
	at = len(l.refs) / 2
	if i == len(l.refs) {
		at = i - 1
	}
	low, high := l.refs[:at], l.refs[at:]
	right = &orderedLeaf{fence: fenceBetween(o.key(low[at-1]), o.key(high[0]))}
	right.refs = append(make([]ref, 0, len(high)+leafStep), high...)
	if at > leafCells/2 {
		l.refs = low
	} else {
		l.refs = append(make([]ref, 0, at+leafStep), low...)
	}
	was, skip := l.hints, l.skip
	o.hintAll(l, was[:at], skip)
	o.hintAll(right, was[at:], skip)
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

// Delete takes key out, whose cell is still in the slab.
func (o *ordered) Delete(key string) {
	l := o.leaf(key)
	i, found := o.find(l, key)
	if !found {
		return
	}
	o.n--
	l.delete(i)
	switch n := len(l.refs); {
	case n == 0 && l.fence != "":
		o.fences.Delete(l.fence)
	case n <= leafCells/4:
		o.absorb(l)
	}
}

// absorb joins l, of which few refs are left, with a neighbour that has few as
// well, or else gives back what l does not need.
func (o *ordered) absorb(l *orderedLeaf) {
	if o.join(o.before(l), l) || o.join(l, o.after(l)) {
		return
	}
	if n := len(l.refs); cap(l.refs) > 2*n+leafStep {
		l.refs = append(make([]ref, 0, n+leafStep), l.refs...)
	}
}

// join moves all refs of high to low, the leaf before it, if both have few.
func (o *ordered) join(low, high *orderedLeaf) bool {
	if low == nil || high == nil || len(low.refs)+len(high.refs) > leafCells/2 {
		return false
	}
	low.refs = append(append(make([]ref, 0, leafCells/2), low.refs...), high.refs...)
	o.hintAll(low, nil, 0)
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
			i, _ = o.find(l, from)
		}
		for _, r := range l.refs[i:] {
			if !yield(o.cells.get(r)) {
				return false
			}
		}
		return true
	})
}
