package keyspace

import (
	"iter"
	"slices"
	"sync/atomic"

	"github.com/puzpuzpuz/xsync/v4"

	"github.com/meshkv/meshkv/crdt"
)

// An index holds the live cells of one replica three ways: by key in a hash map
// that any goroutine may read, by dot, and by key in order. It implements
// crdt.Cells. Everything but newest and siblings belongs to the owner of the
// replica.
type index struct {
	newest   *table                           // per key, the highest cell
	siblings *xsync.Map[string, []*crdt.Cell] // the other cells, of keys that have more than one
	crowded  atomic.Int64                     // keys in siblings
	dots     *dotIndex
	keys     *ordered     // what newest holds
	bytes    atomic.Int64 // of keys, paths and values
	len      atomic.Int64
}

func newIndex() *index {
	return &index{
		newest:   newTable(),
		siblings: xsync.NewMap[string, []*crdt.Cell](),
		dots:     newDotIndex(),
		keys:     newOrdered(),
	}
}

func cellBytes(c *crdt.Cell) int64 { return int64(len(c.Key) + len(c.Path) + len(c.Value)) }

// top is the highest live cell of key, or nil. Safe for concurrent use.
func (x *index) top(key string) *crdt.Cell {
	return x.newest.Load(key)
}

// others are the live cells of key but the highest. Safe for concurrent use.
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

// all is every live cell of key, the highest first. Safe for concurrent use:
// each returned cell was live at some moment of the call.
func (x *index) all(key string) []*crdt.Cell {
	top := x.newest.Load(key)
	if top == nil {
		return nil
	}
	rest := x.others(key)
	cells := make([]*crdt.Cell, 0, 1+len(rest))
	cells = append(cells, top)
	for _, c := range rest {
		if c.Dot != top.Dot {
			cells = append(cells, c)
		}
	}
	return cells
}

// ByKey implements crdt.Cells.
func (x *index) ByKey(key string) []*crdt.Cell { return x.all(key) }

// ByDot implements crdt.Cells.
func (x *index) ByDot(d crdt.Dot) *crdt.Cell { return x.dots.get(d) }

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
	x.dots.add(c)
	x.bytes.Add(cellBytes(c))
	x.len.Add(1)
	top := x.newest.Load(c.Key)
	if top == nil {
		x.keys.Set(c)
		x.newest.Store(c)
		return
	}
	rest := x.others(c.Key)
	if c.Compare(top) > 0 {
		x.keys.Replace(top, c)
		top, c = c, top
	}
	i, _ := slices.BinarySearchFunc(rest, c, func(a, b *crdt.Cell) int { return b.Compare(a) })
	x.setOthers(c.Key, len(rest), slices.Insert(slices.Clone(rest), i, c))
	x.newest.Store(top)
}

// Remove implements crdt.Cells.
func (x *index) Remove(c *crdt.Cell) {
	x.dots.remove(c)
	x.bytes.Add(-cellBytes(c))
	x.len.Add(-1)
	top := x.newest.Load(c.Key)
	rest := x.others(c.Key)
	n := len(rest)
	if n == 0 {
		x.newest.Delete(c.Key)
		x.keys.Delete(c.Key)
		return
	}
	if top.Dot == c.Dot {
		x.keys.Replace(top, rest[0])
		x.newest.Store(rest[0])
		rest = rest[1:]
	} else {
		rest = slices.DeleteFunc(slices.Clone(rest), func(s *crdt.Cell) bool { return s.Dot == c.Dot })
	}
	x.setOthers(c.Key, n, rest)
}

// Replace implements crdt.Cells.
func (x *index) Replace(old, c *crdt.Cell) {
	if len(x.others(c.Key)) > 0 {
		x.Add(c)
		x.Remove(old)
		return
	}
	x.dots.add(c) // first, so that the page of both does not become empty
	x.dots.remove(old)
	x.bytes.Add(cellBytes(c) - cellBytes(old))
	x.keys.Replace(old, c)
	x.newest.Store(c)
}
