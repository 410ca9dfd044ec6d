package crdt

import (
	"cmp"
	"iter"
	"maps"
	"slices"
	"strings"
)

// Cells holds the live cells of a replica, S. Replica is its only writer.
// Implementations may allow concurrent reads of their own.
type Cells interface {
	// ByKey is the live cells of key in no particular order. The slice must
	// not be modified, and must stay as it is when cells are added or removed.
	ByKey(key string) []*Cell
	// ByPath is the live cells of key with that path, in no particular order.
	ByPath(key, path string) []*Cell
	// Ascend is the live cells of key whose path is from or above, ascending by ComparePaths. Nothing may be
	// changed meanwhile.
	Ascend(key, from string) iter.Seq[*Cell]
	// Descend yields the live cells of key, the highest by Compare first, until yield says false. yield must not
	// look at the key.
	Descend(key string, yield func(*Cell) bool)
	// Top is the live cell of key that is highest by Compare, or nil.
	Top(key string) *Cell
	// ByDot is the live cell with that dot, or nil.
	ByDot(d Dot) *Cell
	// Add makes c live. The replica calls it only for a dot that is not live.
	Add(c *Cell)
	// Remove takes out a live cell.
	Remove(c *Cell)
	// Replace is Remove(old) and Add(c) for two cells of one key, such that a
	// concurrent reader sees one or the other, and never none.
	Replace(old, c *Cell)
	// Len is the number of live cells.
	Len() int
}

// MapCells is the plain implementation of Cells.
type MapCells struct {
	keys map[string][]*Cell
	dots map[Dot]*Cell
}

// NewMapCells is an empty set of cells.
func NewMapCells() *MapCells {
	return &MapCells{keys: make(map[string][]*Cell), dots: make(map[Dot]*Cell)}
}

// ByKey implements Cells.
func (m *MapCells) ByKey(key string) []*Cell { return slices.Clip(m.keys[key]) }

// ByPath implements Cells.
func (m *MapCells) ByPath(key, path string) []*Cell {
	var cells []*Cell
	for _, c := range m.keys[key] {
		if c.Path == path {
			cells = append(cells, c)
		}
	}
	return cells
}

// Ascend implements Cells.
func (m *MapCells) Ascend(key, from string) iter.Seq[*Cell] {
	var cells []*Cell
	for _, c := range m.keys[key] {
		if c.Path >= from {
			cells = append(cells, c)
		}
	}
	slices.SortFunc(cells, ComparePaths)
	return slices.Values(cells)
}

// ComparePaths orders the cells of a key as Cells.Ascend does.
func ComparePaths(a, b *Cell) int {
	return cmp.Or(strings.Compare(a.Path, b.Path), a.Dot.Compare(b.Dot))
}

// Descend implements Cells.
func (m *MapCells) Descend(key string, yield func(*Cell) bool) {
	for _, c := range slices.SortedFunc(slices.Values(m.keys[key]), func(a, b *Cell) int { return b.Compare(a) }) {
		if !yield(c) {
			return
		}
	}
}

// Top implements Cells.
func (m *MapCells) Top(key string) *Cell {
	cells := m.keys[key]
	if len(cells) == 0 {
		return nil
	}
	return slices.MaxFunc(cells, (*Cell).Compare)
}

// ByDot implements Cells.
func (m *MapCells) ByDot(d Dot) *Cell { return m.dots[d] }

// Len implements Cells.
func (m *MapCells) Len() int { return len(m.dots) }

// Add implements Cells.
func (m *MapCells) Add(c *Cell) {
	m.dots[c.Dot] = c
	m.keys[c.Key] = append(m.keys[c.Key], c) // beyond the end of what ByKey returned
}

// Remove implements Cells.
func (m *MapCells) Remove(c *Cell) {
	delete(m.dots, c.Dot)
	cells := m.keys[c.Key]
	if len(cells) == 1 {
		delete(m.keys, c.Key)
		return
	}
	i := slices.IndexFunc(cells, func(x *Cell) bool { return x.Dot == c.Dot })
	m.keys[c.Key] = slices.Concat(cells[:i], cells[i+1:])
}

// Replace implements Cells.
func (m *MapCells) Replace(old, c *Cell) {
	m.Remove(old)
	m.Add(c)
}

// All yields every live cell, ascending by dot.
func (m *MapCells) All() iter.Seq[*Cell] {
	return func(yield func(*Cell) bool) {
		for _, d := range slices.SortedFunc(maps.Keys(m.dots), Dot.Compare) {
			if !yield(m.dots[d]) {
				return
			}
		}
	}
}
