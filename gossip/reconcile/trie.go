package reconcile

import "github.com/meshkv/meshkv/crdt"

const (
	splitAbove = 64 // items of a leaf
	mergeBelow = 16 // items under an inner node
)

// A Trie holds the live cells of one replica by the hashes of their keys, and
// the Sum of every subtree. It adapts to its size: a leaf splits over 64 items
// and an inner node with fewer than 16 becomes a leaf again, so two tries with
// the same cells may differ in shape, but never in a Sum. An item costs 24 to
// 36 bytes beside its cell, the most when leaves have just split. Not safe for
// concurrent use, but its snapshots may be read at the same time.
//
// Nodes lie in their parents by value: what a change costs at a million cells
// is its cache misses, one for the leaf, one for its items and one for the slab.
type Trie struct {
	seed   uint64
	epoch  uint64
	frozen bool
	root   node
	cells  slab
}

// A node is a leaf, or, if it has kids, an inner node. Who may change a node
// may change its kids or items only if it is of the present epoch: those of an
// earlier one are shared with a snapshot.
type node struct {
	hash  uint64 // with the count, the Sum
	epoch uint64
	kids  *kids
	items []item // of a leaf, in no order
}

type kids struct {
	count uint64 // items of all
	nodes [fanout]node
}

// An item is a cell by its number, with its hash: in halves, so that it takes 12 bytes.
type item struct {
	low, high uint32
	ref       ref
}

func newItem(hash uint64, r ref) item { return item{uint32(hash), uint32(hash >> 32), r} }

func (it item) hash() uint64 { return uint64(it.high)<<32 | uint64(it.low) }

// NewTrie is an empty trie. The seed must be the same at every replica of the
// keyspace.
func NewTrie(seed uint64) *Trie { return &Trie{seed: seed} }

// Root is the sum of all cells.
func (t *Trie) Root() Sum { return t.root.sum() }

// Len is the number of cells.
func (t *Trie) Len() int { return int(t.root.count()) }

// Snapshot is the trie as it is now, immutable, in O(1): what is changed from
// now on is copied first.
func (t *Trie) Snapshot() *Trie {
	if t.frozen {
		return t
	}
	t.epoch++
	cells := t.cells
	cells.free = nil
	return &Trie{seed: t.seed, frozen: true, root: t.root, cells: cells}
}

func (n *node) count() uint64 {
	if n.kids != nil {
		return n.kids.count
	}
	return uint64(len(n.items))
}

func (n *node) sum() Sum { return Sum{n.hash, n.count()} }

// own makes sure that the kids or items of n may be changed, by copying them if
// they are shared.
func (t *Trie) own(n *node) {
	if n.epoch != t.epoch {
		t.copyShared(n)
	}
}

func (t *Trie) copyShared(n *node) {
	n.epoch = t.epoch
	if n.kids != nil {
		c := *n.kids
		n.kids = &c
	} else {
		n.items = append(make([]item, 0, grown(len(n.items)+1)), n.items...)
	}
}

// grown is the capacity for n items: in steps of a quarter, since a third of all
// memory would be slack with doubling, and in steps of a few items most would be
// garbage.
func grown(n int) int {
	if n <= 16 {
		return (n + 3) &^ 3
	}
	return (n + 15) &^ 15
}

// Insert adds a live cell, which must not be in the trie.
func (t *Trie) Insert(c *crdt.Cell) {
	t.mustChange()
	place, hash := DataHash(t.seed, c)
	n, depth := &t.root, uint8(0)
	for ; n.kids != nil; depth++ {
		t.own(n)
		n.hash += hash
		n.kids.count++
		n = &n.kids.nodes[nibble(place, depth)]
	}
	t.own(n)
	n.hash += hash
	if len(n.items) == cap(n.items) {
		n.items = append(make([]item, 0, grown(len(n.items)+1)), n.items...)
	}
	n.items = append(n.items, newItem(hash, t.cells.put(t.epoch, c)))
	if len(n.items) > splitAbove && depth < maxDepth {
		t.split(n, depth)
	}
}

// Replace puts c in the place of old, if old is in the leaf where c belongs, as
// another cell of the same key nearly always is. Otherwise it changes nothing
// and reports false.
func (t *Trie) Replace(old, c *crdt.Cell) bool {
	t.mustChange()
	key := keyHash(t.seed, c)
	place, hash := dataHash(key, c.Dot)
	_, was := dataHash(key, old.Dot) // if they have the same key; else nothing has this hash
	leaf, _ := t.find(prefix{place, maxDepth})
	i := t.indexOf(leaf.items, was, old.Dot)
	if i < 0 {
		return false
	}
	n := &t.root
	for depth := uint8(0); n.kids != nil; depth++ {
		t.own(n)
		n.hash += hash - was
		n = &n.kids.nodes[nibble(place, depth)]
	}
	t.own(n)
	n.hash += hash - was
	r := n.items[i].ref
	t.cells.set(t.epoch, r, c)
	n.items[i] = newItem(hash, r)
	return true
}

// split makes an inner node of a leaf at depth.
func (t *Trie) split(n *node, depth uint8) {
	var counts [fanout]int
	for _, it := range n.items {
		counts[nibble(t.place(it), depth)]++
	}
	n.kids = &kids{count: uint64(len(n.items))}
	nodes := &n.kids.nodes
	for i, k := range counts {
		if k > 0 {
			nodes[i] = node{epoch: t.epoch, items: make([]item, 0, grown(k))}
		}
	}
	for _, it := range n.items {
		kid := &nodes[nibble(t.place(it), depth)]
		kid.items = append(kid.items, it)
		kid.hash += it.hash()
	}
	n.items = nil
	for i := range nodes {
		if kid := &nodes[i]; len(kid.items) > splitAbove && depth+1 < maxDepth {
			t.split(kid, depth+1)
		}
	}
}

// place is where an item belongs: recomputed where it is needed, which is
// seldom, rather than kept.
func (t *Trie) place(it item) uint64 {
	return keyHash(t.seed, t.cells.get(it.ref))&^(1<<32-1) | uint64(it.high)
}

// Remove takes out a live cell and reports whether it was there.
func (t *Trie) Remove(c *crdt.Cell) bool {
	t.mustChange()
	place, hash := DataHash(t.seed, c)
	leaf, _ := t.find(prefix{place, maxDepth})
	i := t.indexOf(leaf.items, hash, c.Dot)
	if i < 0 {
		return false
	}
	n, r := &t.root, leaf.items[i].ref
	for depth := uint8(0); n.kids != nil; depth++ {
		if n.kids.count <= mergeBelow {
			n.items = n.appendItems(make([]item, 0, grown(int(n.kids.count))))
			n.kids, n.epoch = nil, t.epoch
			i = t.indexOf(n.items, hash, c.Dot)
			break
		}
		t.own(n)
		n.hash -= hash
		n.kids.count--
		n = &n.kids.nodes[nibble(place, depth)]
	}
	t.cells.drop(t.epoch, r)
	last := len(n.items) - 1
	if last == 0 {
		*n = node{}
		return true
	}
	t.own(n)
	n.hash -= hash
	n.items[i] = n.items[last]
	n.items = n.items[:last]
	return true
}

func (t *Trie) indexOf(items []item, hash uint64, d crdt.Dot) int {
	for i, it := range items {
		if it.hash() == hash && t.cells.get(it.ref).Dot == d {
			return i
		}
	}
	return -1
}

func (n *node) appendItems(out []item) []item {
	if n.kids == nil {
		return append(out, n.items...)
	}
	for i := range n.kids.nodes {
		out = n.kids.nodes[i].appendItems(out)
	}
	return out
}

func (t *Trie) mustChange() {
	if t.frozen {
		panic("reconcile: change of a snapshot")
	}
}

// find is the node whose places are those of p, at p.depth, or else the leaf
// above that holds them among others, at a smaller depth.
func (t *Trie) find(p prefix) (n *node, depth uint8) {
	n = &t.root
	for n.kids != nil && depth < p.depth {
		n = &n.kids.nodes[nibble(p.bits, depth)]
		depth++
	}
	return n, depth
}

// sum is the sum of the cells under p.
func (t *Trie) sum(p prefix) Sum {
	n, depth := t.find(p)
	if depth == p.depth {
		return n.sum()
	}
	var s Sum
	for _, it := range n.items {
		if p.contains(t.place(it)) {
			s.add(it.hash())
		}
	}
	return s
}

// children are the sums of the 16 prefixes below p.
func (t *Trie) children(p prefix) (sums [fanout]Sum) {
	n, _ := t.find(p)
	if n.kids != nil {
		for i := range sums {
			sums[i] = n.kids.nodes[i].sum()
		}
		return sums
	}
	for _, it := range n.items {
		if place := t.place(it); p.contains(place) {
			sums[nibble(place, p.depth)].add(it.hash())
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
	n, depth := t.find(p)
	w.stack, w.part = append(w.stack, n), depth < p.depth
	return w
}

// next is the next cell, or nil at the end.
func (w *walker) next() *crdt.Cell {
	for {
		for len(w.items) > 0 {
			it := w.items[0]
			w.items = w.items[1:]
			if !w.part || w.under.contains(w.trie.place(it)) {
				return w.trie.cells.get(it.ref)
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
				if kid := &n.kids.nodes[i]; kid.count() > 0 {
					w.stack = append(w.stack, kid)
				}
			}
		}
	}
}
