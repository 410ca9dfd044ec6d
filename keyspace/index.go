package keyspace

import (
	"iter"
	"slices"
	"sync/atomic"

	"github.com/puzpuzpuz/xsync/v4"

	"github.com/meshkv/meshkv/crdt"
)

// An index holds the live cells of one replica in a slab, and finds them there three
// ways: by key in a hash table that any goroutine may read, by dot, and by key in
// order. It implements crdt.Cells. A key has one ref for as long as it has cells, that
// of its highest cell, which is replaced there; its other cells have refs of their own.
// Everything but newest and siblings belongs to the owner of the replica.
type index struct {
	cells    *slab
	newest   *table                           // per key, the highest cell
	siblings *xsync.Map[string, []*crdt.Cell] // the other cells, of keys that have more than one
	crowds   *xsync.Map[string, *crowd]       // all cells, of keys that have many: they are not in siblings
	crowded  atomic.Int64                     // keys in both
	dots     *dotIndex
	keys     *ordered     // what newest holds
	bytes    atomic.Int64 // of keys, paths and values
	len      atomic.Int64
}

func newIndex() *index {
	cells := newSlab()
	return &index{
		cells:    cells,
		newest:   newTable(cells),
		siblings: xsync.NewMap[string, []*crdt.Cell](),
		crowds:   xsync.NewMap[string, *crowd](),
		dots:     newDotIndex(),
		keys:     newOrdered(cells),
	}
}

func cellBytes(c *crdt.Cell) int64 { return int64(len(c.Key) + len(c.Path) + len(c.Value)) }

// top is the highest live cell of key, or nil. Safe for concurrent use.
func (x *index) top(key string) *crdt.Cell {
	return x.newest.Load(key)
}

// crowd is all cells of key if they are many, or nil. Safe for concurrent use. Who looks at the others of a
// key besides must look there first: they move from there to a crowd, and never back.
func (x *index) crowd(key string) *crowd {
	if x.crowded.Load() == 0 {
		return nil
	}
	w, _ := x.crowds.Load(key)
	return w
}

// alone reports whether key has one cell at most.
func (x *index) alone(key string) bool { return len(x.others(key)) == 0 && x.crowd(key) == nil }

// others are the live cells of key but the highest, if it has no crowd. Safe for concurrent use.
func (x *index) others(key string) []*crdt.Cell {
	if x.crowded.Load() == 0 { // as a rule no key has siblings
		return nil
	}
	rest, _ := x.siblings.Load(key)
	return rest
}

// setOthers replaces the cells of key but the highest, which were n.
func (x *index) setOthers(key string, n int, rest []*crdt.Cell) {
	switch {
	case len(rest) == 0 && n > 0:
		x.siblings.Delete(key)
		x.crowded.Add(-1)
	case len(rest) > 0:
		if n == 0 {
			x.crowded.Add(1)
		}
		x.siblings.Store(key, rest)
	}
}

// looks is how often all looks again at a key that changes meanwhile.
const looks = 64

// all is every live cell of key, the highest first. Safe for concurrent use:
// each returned cell was live at some moment of the call, and none is missing that was
// live all the time, unless the key changes more often than a reader can look.
func (x *index) all(key string) []*crdt.Cell {
	top := x.newest.Load(key)
	var rest []*crdt.Cell
	for range looks {
		if top == nil {
			return nil
		}
		rest = x.others(key)
		if w := x.crowd(key); len(rest) == 0 && w != nil {
			cells := make([]*crdt.Cell, 0, w.len())
			w.descend(func(c *crdt.Cell) bool {
				cells = append(cells, c)
				return true
			})
			return cells
		}
		now := x.newest.Load(key)
		if now == top {
			break
		}
		top = now // and what took its place was among the others
	}
	if top == nil {
		return nil
	}
	cells := make([]*crdt.Cell, 0, 1+len(rest))
	cells = append(cells, top)
	for _, c := range rest {
		if c.Dot != top.Dot {
			cells = append(cells, c)
		}
	}
	return cells
}

// Descend implements crdt.Cells. Safe for concurrent use, with what all promises.
func (x *index) Descend(key string, yield func(*crdt.Cell) bool) {
	top := x.top(key)
	alone := len(x.others(key)) == 0 // before the crowd: see there
	if w := x.crowd(key); w != nil {
		w.descend(yield)
		return
	}
	if alone && x.top(key) == top { // as a rule; else top may have gone, and the next one have taken its place
		if top != nil {
			yield(top)
		}
		return
	}
	for _, c := range x.all(key) {
		if !yield(c) {
			return
		}
	}
}

// sum is that of the dots of all cells of key.
func (x *index) sum(key string) (s dotSum) {
	if w := x.crowd(key); w != nil {
		return w.sum
	}
	if top := x.top(key); top != nil {
		s = sumOf(top.Dot)
	}
	for _, c := range x.others(key) {
		s = s.plus(sumOf(c.Dot))
	}
	return s
}

// ByKey implements crdt.Cells.
func (x *index) ByKey(key string) []*crdt.Cell { return x.all(key) }

// ByPath implements crdt.Cells.
func (x *index) ByPath(key, path string) []*crdt.Cell {
	if w := x.crowd(key); w != nil {
		return w.at(path)
	}
	if top := x.top(key); len(x.others(key)) == 0 { // as a rule
		if top == nil || top.Path != path {
			return nil
		}
		return []*crdt.Cell{top}
	}
	return slices.DeleteFunc(x.all(key), func(c *crdt.Cell) bool { return c.Path != path })
}

// Ascend implements crdt.Cells.
func (x *index) Ascend(key, from string) iter.Seq[*crdt.Cell] {
	if w := x.crowd(key); w != nil {
		return w.ascend(from)
	}
	if len(x.others(key)) == 0 { // as a rule
		return func(yield func(*crdt.Cell) bool) {
			if top := x.top(key); top != nil && top.Path >= from {
				yield(top)
			}
		}
	}
	cells := slices.DeleteFunc(x.all(key), func(c *crdt.Cell) bool { return c.Path < from })
	slices.SortFunc(cells, crdt.ComparePaths)
	return slices.Values(cells)
}

// Top implements crdt.Cells.
func (x *index) Top(key string) *crdt.Cell { return x.top(key) }

// ByDot implements crdt.Cells.
func (x *index) ByDot(d crdt.Dot) *crdt.Cell { return x.cells.get(x.dots.get(d)) }

// All yields every live cell.
func (x *index) All() iter.Seq[*crdt.Cell] {
	return func(yield func(*crdt.Cell) bool) {
		x.keys.Ascend("", func(c *crdt.Cell) bool {
			for _, c := range x.all(c.Key) {
				if !yield(c) {
					return false
				}
			}
			return true
		})
	}
}

// Len implements crdt.Cells; safe for concurrent use.
func (x *index) Len() int { return int(x.len.Load()) }

// Add implements crdt.Cells.
func (x *index) Add(c *crdt.Cell) {
	x.bytes.Add(cellBytes(c))
	x.len.Add(1)
	r := x.newest.Find(c.Key)
	if r == 0 {
		r = x.cells.put(c) // first: the others find it there
		x.dots.add(c.Dot, r)
		x.keys.Insert(c.Key, r)
		x.newest.Insert(c.Key, r)
		return
	}
	top := x.cells.get(r)
	rest := x.others(c.Key)
	other := c
	if c.Compare(top) > 0 {
		other = top
		x.dots.add(c.Dot, r)
		x.dots.move(top.Dot, x.cells.put(top))
	} else {
		x.dots.add(c.Dot, x.cells.put(c))
	}
	if w := x.crowd(c.Key); w != nil {
		w.add(c)
	} else if len(rest) == crowdAbove {
		x.crowds.Store(c.Key, newCrowd(append(append([]*crdt.Cell{top}, rest...), c)))
		x.crowded.Add(1)
		x.setOthers(c.Key, len(rest), nil)
	} else {
		i, _ := slices.BinarySearchFunc(rest, other, func(a, b *crdt.Cell) int { return b.Compare(a) })
		x.setOthers(c.Key, len(rest), slices.Insert(slices.Clone(rest), i, other))
	}
	if other == top {
		x.cells.set(r, c)
	}
}

// Remove implements crdt.Cells.
func (x *index) Remove(c *crdt.Cell) {
	x.bytes.Add(-cellBytes(c))
	x.len.Add(-1)
	r := x.dots.get(c.Dot)
	rest := x.others(c.Key)
	n := len(rest)
	if w := x.crowd(c.Key); w != nil {
		r = x.leave(w, c, r)
	} else if n == 0 {
		x.newest.Delete(c.Key)
		x.keys.Delete(c.Key)
	} else {
		if x.cells.get(x.newest.Find(c.Key)).Dot == c.Dot { // the next one takes its place
			r = x.succeed(r, rest[0])
			rest = rest[1:]
		} else {
			rest = slices.DeleteFunc(slices.Clone(rest), func(s *crdt.Cell) bool { return s.Dot == c.Dot })
		}
		x.setOthers(c.Key, n, rest)
	}
	x.dots.remove(c.Dot)
	x.cells.drop(r)
}

// leave takes c, whose ref is r, out of its crowd, and returns the ref that is free then.
func (x *index) leave(w *crowd, c *crdt.Cell, r ref) ref {
	w.remove(c)
	if x.cells.get(x.newest.Find(c.Key)).Dot == c.Dot {
		r = x.succeed(r, w.top())
	}
	if w.len() == 1 {
		x.crowds.Delete(c.Key)
		x.crowded.Add(-1)
	}
	return r
}

// succeed makes next the highest cell of its key, whose ref is r, and returns the one that next had.
func (x *index) succeed(r ref, next *crdt.Cell) (free ref) {
	x.cells.set(r, next)
	free = x.dots.get(next.Dot)
	x.dots.move(next.Dot, r)
	return free
}

// Replace implements crdt.Cells.
func (x *index) Replace(old, c *crdt.Cell) {
	if !x.alone(c.Key) {
		x.Add(c)
		x.Remove(old)
		return
	}
	r := x.dots.get(old.Dot)
	x.dots.add(c.Dot, r) // first, so that the page of both does not become empty
	x.dots.remove(old.Dot)
	x.bytes.Add(cellBytes(c) - cellBytes(old))
	x.cells.set(r, c)
}
