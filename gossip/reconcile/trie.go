package reconcile

import "github.com/meshkv/meshkv/crdt"

const (
	splitAbove = 64 // items of a leaf
	mergeBelow = 16 // items under an inner node
)

// A Trie holds the live cells of one replica by the hashes of their keys, and
// the Sum of every subtree. It adapts to its size: a leaf splits over 64 items
// and an inner node with fewer than 16 becomes a leaf again, so two tries with
// the same cells may differ in shape, but never in a Sum. An item costs 20 to
// 36 bytes beside its cell, the most when leaves have just split. Not safe for concurrent use, but its snapshots may
// be read at the same time.
type Trie struct {
	seed   uint64
	epoch  uint64 // nodes of an earlier epoch are shared with a snapshot
	frozen bool
	root   *node
}

type node struct {
	epoch uint64
	sum   Sum
	kids  *[fanout]*node // nil: a leaf
	items []item         // of a leaf, in no order
}

type item struct {
	hash uint64
	cell *crdt.Cell
}

// NewTrie is an empty trie. The seed must be the same at every replica of the
// keyspace.
func NewTrie(seed uint64) *Trie { return &Trie{seed: seed, root: &node{}} }

// Root is the sum of all cells.
func (t *Trie) Root() Sum { return t.root.sum }

// Len is the number of cells.
func (t *Trie) Len() int { return int(t.root.sum.Count) }

// Snapshot is the trie as it is now, immutable, in O(1): what is changed from
// now on is copied first.
func (t *Trie) Snapshot() *Trie {
	if t.frozen {
		return t
	}
	t.epoch++
	return &Trie{seed: t.seed, frozen: true, root: t.root}
}

// own is n if it may be changed, or a copy that may.
func (t *Trie) own(n *node) *node {
	if n.epoch == t.epoch {
		return n
	}
	c := &node{epoch: t.epoch, sum: n.sum}
	if n.kids != nil {
		kids := *n.kids
		c.kids = &kids
	} else {
		c.items = append(make([]item, 0, grown(len(n.items)+1)), n.items...)
	}
	return c
}

// grown is the capacity for n items: in small steps, since half of all memory
// would be slack with doubling.
func grown(n int) int { return (n + 3) &^ 3 }

// Insert adds a live cell, which must not be in the trie.
func (t *Trie) Insert(c *crdt.Cell) {
	t.mustChange()
	place, hash := DataHash(t.seed, c)
	t.root = t.own(t.root)
	n := t.root
	depth := uint8(0)
	for ; n.kids != nil; depth++ {
		n.sum.add(hash)
		slot := &n.kids[nibble(place, depth)]
		if *slot == nil {
			*slot = &node{epoch: t.epoch}
		} else {
			*slot = t.own(*slot)
		}
		n = *slot
	}
	n.sum.add(hash)
	if len(n.items) == cap(n.items) {
		n.items = append(make([]item, 0, grown(len(n.items)+1)), n.items...)
	}
	n.items = append(n.items, item{hash, c})
	if len(n.items) > splitAbove && depth < maxDepth {
		t.split(n, depth)
	}
}

// split makes an inner node of a leaf at depth.
func (t *Trie) split(n *node, depth uint8) {
	var counts [fanout]int
	for _, it := range n.items {
		counts[nibble(t.place(it), depth)]++
	}
	n.kids = new([fanout]*node)
	for i, k := range counts {
		if k > 0 {
			n.kids[i] = &node{epoch: t.epoch, items: make([]item, 0, grown(k))}
		}
	}
	for _, it := range n.items {
		kid := n.kids[nibble(t.place(it), depth)]
		kid.items = append(kid.items, it)
		kid.sum.add(it.hash)
	}
	n.items = nil
	for _, kid := range n.kids {
		if kid != nil && len(kid.items) > splitAbove && depth+1 < maxDepth {
			t.split(kid, depth+1)
		}
	}
}

// place is where an item belongs: recomputed where it is needed, which is
// seldom, rather than kept.
func (t *Trie) place(it item) uint64 {
	return keyHash(t.seed, it.cell)&^(1<<32-1) | it.hash>>32
}

// Remove takes out a live cell and reports whether it was there.
func (t *Trie) Remove(c *crdt.Cell) bool {
	t.mustChange()
	place, hash := DataHash(t.seed, c)
	leaf, depth := t.find(prefix{place, maxDepth})
	if leaf == nil || indexOf(leaf.items, hash, c.Dot) < 0 {
		return false
	}
	t.root = t.own(t.root)
	n := t.root
	for d := uint8(0); ; d++ {
		n.sum.remove(hash)
		if n.kids == nil {
			break
		}
		if n.sum.Count < mergeBelow {
			// The leaf is below, and depth says how far: collect the others.
			n.items = n.appendItems(make([]item, 0, grown(int(n.sum.Count)+1)))
			n.kids = nil
			break
		}
		slot := &n.kids[nibble(place, d)]
		if d+1 == depth && (*slot).sum.Count == 1 {
			*slot = nil
			return true
		}
		*slot = t.own(*slot)
		n = *slot
	}
	i, last := indexOf(n.items, hash, c.Dot), len(n.items)-1
	n.items[i] = n.items[last]
	n.items[last] = item{}
	n.items = n.items[:last]
	return true
}

func indexOf(items []item, hash uint64, d crdt.Dot) int {
	for i := range items {
		if items[i].hash == hash && items[i].cell.Dot == d {
			return i
		}
	}
	return -1
}

func (n *node) appendItems(out []item) []item {
	if n.kids == nil {
		return append(out, n.items...)
	}
	for _, kid := range n.kids {
		if kid != nil {
			out = kid.appendItems(out)
		}
	}
	return out
}

func (t *Trie) mustChange() {
	if t.frozen {
		panic("reconcile: change of a snapshot")
	}
}

// find is the node whose places are those of p, at p.depth, or else the leaf
// above that holds them among others, at a smaller depth. It is nil if there
// are none.
func (t *Trie) find(p prefix) (n *node, depth uint8) {
	n = t.root
	for n != nil && n.kids != nil && depth < p.depth {
		n = n.kids[nibble(p.bits, depth)]
		depth++
	}
	return n, depth
}

// sum is the sum of the cells under p.
func (t *Trie) sum(p prefix) Sum {
	n, depth := t.find(p)
	switch {
	case n == nil:
		return Sum{}
	case depth == p.depth:
		return n.sum
	}
	var s Sum
	for _, it := range n.items {
		if p.contains(t.place(it)) {
			s.add(it.hash)
		}
	}
	return s
}

// children are the sums of the 16 prefixes below p.
func (t *Trie) children(p prefix) (sums [fanout]Sum) {
	n, _ := t.find(p)
	switch {
	case n == nil:
	case n.kids != nil:
		for i, kid := range n.kids {
			if kid != nil {
				sums[i] = kid.sum
			}
		}
	default:
		for _, it := range n.items {
			if place := t.place(it); p.contains(place) {
				sums[nibble(place, p.depth)].add(it.hash)
			}
		}
	}
	return sums
}

// A walker yields the cells under a prefix of a snapshot one by one and can
// pause anywhere. Its memory is bounded by the depth of the trie.
type walker struct {
	trie  *Trie
	under prefix
	stack []*node // to be visited, the next one last
	items []item
	part  bool // items may lie outside the prefix
}

// walk begins at the first cell under p.
func (t *Trie) walk(p prefix) *walker {
	w := &walker{trie: t, under: p}
	if n, depth := t.find(p); n != nil {
		w.stack, w.part = append(w.stack, n), depth < p.depth
	}
	return w
}

// next is the next cell, or nil at the end.
func (w *walker) next() *crdt.Cell {
	for {
		for len(w.items) > 0 {
			it := w.items[0]
			w.items = w.items[1:]
			if !w.part || w.under.contains(w.trie.place(it)) {
				return it.cell
			}
		}
		last := len(w.stack) - 1
		if last < 0 {
			return nil
		}
		n := w.stack[last]
		w.stack = w.stack[:last]
		w.items = n.items
		if n.kids != nil {
			for i := fanout - 1; i >= 0; i-- {
				if n.kids[i] != nil {
					w.stack = append(w.stack, n.kids[i])
				}
			}
		}
	}
}
