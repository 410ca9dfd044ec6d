package reconcile

import "github.com/meshkv/meshkv/crdt"

// A Scrub compares the sums of a trie, as it was at the beginning, with what its
// cells say, a few at a time: so a bug or a flipped bit in a sum, which every
// later sum would inherit, does not stay.
type Scrub struct {
	trie  *Trie
	stack []scrubNode
	cells int
	wrong int
}

type scrubNode struct {
	node  *node
	under prefix
}

// Scrub begins to compare.
func (t *Trie) Scrub() *Scrub {
	s := &Scrub{trie: t.Snapshot()}
	s.stack = append(s.stack, scrubNode{node: &s.trie.root})
	return s
}

// Step goes on until about so many cells were looked at, and reports whether all
// have been. live is asked for each cell whether the replica holds it.
func (s *Scrub) Step(cells int, live func(*crdt.Cell) bool) (done bool) {
	for cells > 0 && len(s.stack) > 0 {
		last := len(s.stack) - 1
		at := s.stack[last]
		s.stack = s.stack[:last]
		cells -= 1 + s.check(at, live)
	}
	return len(s.stack) == 0
}

// check looks at one node and says how many cells that took.
func (s *Scrub) check(at scrubNode, live func(*crdt.Cell) bool) (cells int) {
	var sum Sum
	if k := at.node.kids; k != nil {
		for i := range k.nodes {
			kid := &k.nodes[i]
			sum.Hash += kid.hash
			sum.Count += kid.count()
			s.stack = append(s.stack, scrubNode{kid, at.under.child(i)})
		}
	} else {
		for _, it := range at.node.items {
			c := s.trie.cells.get(it.ref)
			place, hash := DataHash(s.trie.seed, c)
			if it.hash() != hash || !at.under.contains(place) || !live(c) {
				s.wrong++
			}
			sum.add(hash)
		}
		s.cells += len(at.node.items)
		cells = len(at.node.items)
	}
	if sum != at.node.sum() {
		s.wrong++
	}
	return cells
}

// Cells is the number of cells looked at.
func (s *Scrub) Cells() int { return s.cells }

// Wrong is the number of cells and sums that are not what they should be.
func (s *Scrub) Wrong() int { return s.wrong }

// Has reports whether c is in the trie.
func (t *Trie) Has(c *crdt.Cell) bool {
	place, hash := DataHash(t.seed, c)
	leaf, _ := t.find(prefix{place, maxDepth})
	return t.indexOf(leaf.items, hash, c.Dot) >= 0
}

// All yields every cell of a trie that is not changed meanwhile, in the order of
// their places.
func (t *Trie) All(yield func(*crdt.Cell) bool) {
	w := t.walk(prefix{})
	for c := w.next(); c != nil && yield(c); c = w.next() {
	}
}
