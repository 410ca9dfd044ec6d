package keyspace

import (
	"iter"
	"sync"

	"github.com/cespare/xxhash/v2"
	"github.com/tidwall/btree"

	"github.com/meshkv/meshkv/crdt"
)

// crowdAbove is how many cells beside its highest a key has in a plain slice.
const crowdAbove = 8

// A crowd is all cells of a key that has many: a set, a map, a counter of many actors. Finding, adding and removing
// one takes the logarithm of their number. One goroutine changes it; safe for concurrent reads.
type crowd struct {
	mu    sync.RWMutex
	paths *btree.BTreeG[*crdt.Cell] // by crdt.ComparePaths
	ranks *btree.BTreeG[*crdt.Cell] // by Compare
	sum   dotSum
}

func newCrowd(cells []*crdt.Cell) *crowd {
	w := &crowd{
		paths: btree.NewBTreeGOptions(func(a, b *crdt.Cell) bool { return crdt.ComparePaths(a, b) < 0 }, btree.Options{NoLocks: true}),
		ranks: btree.NewBTreeGOptions(func(a, b *crdt.Cell) bool { return a.Compare(b) < 0 }, btree.Options{NoLocks: true}),
	}
	for _, c := range cells {
		w.add(c)
	}
	return w
}

func (w *crowd) add(c *crdt.Cell) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.paths.Set(c)
	w.ranks.Set(c)
	w.sum = w.sum.plus(sumOf(c.Dot))
}

func (w *crowd) remove(c *crdt.Cell) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.paths.Delete(c)
	w.ranks.Delete(c)
	w.sum = w.sum.minus(sumOf(c.Dot))
}

func (w *crowd) len() int {
	w.mu.RLock()
	defer w.mu.RUnlock()
	return w.ranks.Len()
}

// top is the highest one, or nil.
func (w *crowd) top() *crdt.Cell {
	w.mu.RLock()
	defer w.mu.RUnlock()
	c, _ := w.ranks.Max()
	return c
}

// at is the cells with that path.
func (w *crowd) at(path string) (cells []*crdt.Cell) {
	w.mu.RLock()
	defer w.mu.RUnlock()
	w.paths.Ascend(&crdt.Cell{Path: path}, func(c *crdt.Cell) bool {
		if c.Path == path {
			cells = append(cells, c)
		}
		return c.Path == path
	})
	return cells
}

// ascend is the cells with a path from `from` on, in order. For the owner: it takes no lock.
func (w *crowd) ascend(from string) iter.Seq[*crdt.Cell] {
	return func(yield func(*crdt.Cell) bool) {
		w.paths.Ascend(&crdt.Cell{Path: from}, yield)
	}
}

// descend is all cells, the highest first, as long as yield says true, which must not look at w.
func (w *crowd) descend(yield func(*crdt.Cell) bool) {
	w.mu.RLock()
	defer w.mu.RUnlock()
	w.ranks.Reverse(yield)
}

// A dotSum is the wrapping sums of two hashes of dots: sets of dots with equal sums are equal.
type dotSum [2]uint64

func sumOf(d crdt.Dot) dotSum {
	var b [17]byte
	for i := range 8 {
		b[i], b[8+i] = byte(d.Inc>>(8*i)), byte(d.Seq>>(8*i))
	}
	h := xxhash.Sum64(b[:16])
	b[16] = 1
	return dotSum{h, xxhash.Sum64(b[:])}
}

func (s dotSum) plus(o dotSum) dotSum  { return dotSum{s[0] + o[0], s[1] + o[1]} }
func (s dotSum) minus(o dotSum) dotSum { return dotSum{s[0] - o[0], s[1] - o[1]} }
