package reconcile

import (
	"fmt"
	"testing"

	"github.com/meshkv/meshkv/crdt"
)

func filledTrie(n int) (*Trie, []*crdt.Cell) {
	t, cells := NewTrie(testSeed), make([]*crdt.Cell, n)
	for i := range cells {
		cells[i] = cellAt(fmt.Sprint("key", i), 1, uint64(i)+1)
		t.Insert(cells[i])
	}
	return t, cells
}

// A scrub looks at every cell of the trie as it was, in steps, and finds nothing
// wrong with what changes meanwhile.
func TestScrubOfASoundTrie(t *testing.T) {
	const n = 5000
	trie, cells := filledTrie(n)
	s, steps := trie.Scrub(), 0
	for !s.Step(100, func(*crdt.Cell) bool { return true }) {
		trie.Remove(cells[steps])
		trie.Insert(cellAt(fmt.Sprint("new", steps), 2, uint64(steps)+1))
		steps++
	}
	if s.Cells() != n || s.Wrong() != 0 {
		t.Errorf("%d cells, %d wrong", s.Cells(), s.Wrong())
	}
	if steps < n/200 {
		t.Errorf("%d steps of 100 cells", steps)
	}
}

// It finds whatever is wrong: in an item, a leaf, an inner node, or beside them.
func TestScrubFindsWhatIsWrong(t *testing.T) {
	leafOf := func(trie *Trie) *node {
		n := &trie.root
		for n.kids != nil {
			n = &n.kids.nodes[5]
		}
		return n
	}
	for name, spoil := range map[string]func(*Trie) (dead *crdt.Cell){
		"the hash of an item": func(trie *Trie) *crdt.Cell { leafOf(trie).items[0].low ^= 1; return nil },
		"the sum of a leaf":   func(trie *Trie) *crdt.Cell { leafOf(trie).hash ^= 1 << 40; return nil },
		"an inner sum":        func(trie *Trie) *crdt.Cell { trie.root.kids.nodes[3].hash++; return nil },
		"a count":             func(trie *Trie) *crdt.Cell { trie.root.kids.count--; return nil },
		"a cell elsewhere": func(trie *Trie) *crdt.Cell {
			leaf, other := leafOf(trie), &trie.root.kids.nodes[1]
			for other.kids != nil {
				other = &other.kids.nodes[1]
			}
			leaf.items[0], other.items[0] = other.items[0], leaf.items[0]
			return nil
		},
		"a dead cell": func(trie *Trie) *crdt.Cell { return trie.cells.get(leafOf(trie).items[0].ref) },
	} {
		trie, _ := filledTrie(3000)
		dead := spoil(trie)
		s := trie.Scrub()
		for !s.Step(1000, func(c *crdt.Cell) bool { return c != dead }) {
		}
		if s.Wrong() == 0 {
			t.Errorf("%s: nothing found", name)
		}
	}
}
