package reconcile

import (
	"fmt"
	"runtime"
	"slices"
	"testing"

	"github.com/meshkv/meshkv/crdt"
	"pgregory.net/rapid"
)

func cellAt(key string, inc, seq uint64) *crdt.Cell {
	return &crdt.Cell{Key: key, Kind: crdt.KindRegister, Dot: crdt.Dot{Inc: crdt.Inc(inc), Seq: seq}, HLC: 1}
}

// model is the dumb trie: all cells, summed up anew each time.
type model map[*crdt.Cell]bool

func (m model) sum(p prefix) (s Sum) {
	for c := range m {
		if place, hash := DataHash(testSeed, c); p.contains(place) {
			s.add(hash)
		}
	}
	return s
}

// checkTrie compares everything about a prefix, and everything below it as long
// as there is something.
func checkTrie(t fatal, trie *Trie, m model, p prefix) {
	t.Helper()
	want := m.sum(p)
	if got := trie.sum(p); got != want {
		t.Fatalf("sum of %v: %v, want %v", p, got, want)
	}
	under := make(model)
	for c := range m {
		if place, _ := DataHash(testSeed, c); p.contains(place) {
			under[c] = true
		}
	}
	got := make(model)
	for w := trie.walk(p); ; {
		c := w.next()
		if c == nil {
			break
		}
		if got[c] || !under[c] {
			t.Fatalf("walk of %v: a cell twice, or of elsewhere", p)
		}
		got[c] = true
	}
	if len(got) != len(under) {
		t.Fatalf("walk of %v: %d cells, want %d", p, len(got), len(under))
	}
	if p.depth == maxDepth {
		return
	}
	sums := trie.children(p)
	for i := range sums {
		if want := m.sum(p.child(i)); sums[i] != want {
			t.Fatalf("child %d of %v: %v, want %v", i, p, sums[i], want)
		}
		if up, k := p.child(i).parent(); up != p || k != i {
			t.Fatalf("parent of child %d of %v: %v, %d", i, p, up, k)
		}
		if sums[i].Count > 1 || sums[i].Count == 1 && p.depth < 3 {
			checkTrie(t, trie, under, p.child(i))
		}
	}
}

func TestTrieModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		trie, live := NewTrie(testSeed), make(model)
		type frozen struct {
			trie *Trie
			live model
		}
		var snapshots []frozen
		var order []*crdt.Cell
		seq := uint64(0)
		for range rapid.IntRange(1, 12).Draw(t, "phases") {
			n := rapid.IntRange(1, 120).Draw(t, "n")
			switch rapid.IntRange(0, 6).Draw(t, "what") {
			case 0, 1:
				keys := rapid.SampledFrom([]int{1, 5, 1000}).Draw(t, "keys") // many cells of one key, too
				for i := range n {
					seq++
					c := cellAt(fmt.Sprint("key", i%keys), seq%3+1, seq)
					trie.Insert(c)
					live[c] = true
					order = append(order, c)
				}
			case 2, 3:
				for range min(n, len(order)) {
					i := n * 7919 % len(order)
					c := order[i]
					order = slices.Delete(order, i, i+1)
					if !trie.Remove(c) {
						t.Fatalf("not removed")
					}
					if delete(live, c); trie.Remove(c) {
						t.Fatalf("removed twice")
					}
				}
			case 4:
				for k := range min(n, len(order)) {
					i := (n + k) * 7919 % len(order)
					old := order[i]
					seq++
					c := cellAt(old.Key, seq%3+1, seq)
					if !trie.Replace(old, c) { // they are in two leaves
						checkTrie(t, trie, live, prefix{}.child(0))
						trie.Insert(c)
						trie.Remove(old)
					}
					delete(live, old)
					live[c], order[i] = true, c
					if trie.Replace(old, c) {
						t.Fatal("replaced what is not there")
					}
				}
			case 5:
				copied := make(model)
				for c := range live {
					copied[c] = true
				}
				snapshots = append(snapshots, frozen{trie.Snapshot(), copied})
			default:
				checkTrie(t, trie, live, prefix{})
			}
		}
		checkTrie(t, trie, live, prefix{})
		for _, f := range snapshots {
			checkTrie(t, f.trie, f.live, prefix{})
		}
	})
}

// The sums must not depend on how a trie came to be.
func TestTrieShape(t *testing.T) {
	a, b := NewTrie(testSeed), NewTrie(testSeed)
	var extra []*crdt.Cell
	for i := range 20_000 {
		c := cellAt(fmt.Sprint("key", i), 1, uint64(i+1))
		a.Insert(c)
		if i%1000 == 0 {
			b.Insert(c)
		} else {
			extra = append(extra, c)
		}
	}
	for _, c := range extra {
		a.Remove(c)
	}
	if a.Root() != b.Root() || a.Len() != 20 {
		t.Fatalf("roots %v, %v", a.Root(), b.Root())
	}
	for i := range fanout {
		p := prefix{}.child(i)
		if a.sum(p) != b.sum(p) || a.children(p) != b.children(p) {
			t.Fatalf("subtree %d differs", i)
		}
	}
}

// An overwrite is one step, unless one key has so many cells that a leaf does
// not hold all of them.
func TestTrieReplace(t *testing.T) {
	trie := NewTrie(testSeed)
	cells := make([]*crdt.Cell, 20_000)
	for i := range cells {
		cells[i] = cellAt(fmt.Sprint("key", i), 1, uint64(i+1))
		trie.Insert(cells[i])
	}
	before := trie.Snapshot()
	want := NewTrie(testSeed)
	for i, old := range cells {
		if other := cells[(i+1)%len(cells)]; trie.Replace(other, cellAt(old.Key, 2, uint64(i+1))) {
			t.Fatal("replaced a cell of another key")
		}
		c := cellAt(old.Key, 2, uint64(i+1))
		if !trie.Replace(old, c) {
			t.Fatalf("cell %d not replaced", i)
		}
		want.Insert(c)
	}
	for i := range fanout {
		p := prefix{}.child(i)
		if trie.sum(p) != want.sum(p) || trie.children(p) != want.children(p) {
			t.Fatalf("subtree %d differs", i)
		}
	}
	again := NewTrie(testSeed)
	for _, c := range cells {
		again.Insert(c)
	}
	if before.Root() != again.Root() || trie.Root() != want.Root() {
		t.Error("the roots differ")
	}
}

func TestTrieMemory(t *testing.T) {
	if raceEnabled {
		t.Skip("a measurement")
	}
	const n = 300_000 // leaves of 64 have just split
	cells := make([]*crdt.Cell, n)
	for i := range cells {
		cells[i] = cellAt(fmt.Sprint("key", i), 1, uint64(i+1))
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	trie := NewTrie(testSeed)
	for _, c := range cells {
		trie.Insert(c)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	per := float64(after.HeapAlloc-before.HeapAlloc) / n
	t.Logf("%.1f B a cell", per)
	if per > 40 {
		t.Errorf("%.1f B a cell", per)
	}
	runtime.KeepAlive(trie)
	runtime.KeepAlive(cells)
}

func TestHashes(t *testing.T) {
	seen := make(map[uint64]string)
	note := func(h uint64, what string) {
		if other, ok := seen[h]; ok {
			t.Errorf("%s and %s have one hash", what, other)
		}
		seen[h] = what
	}
	for _, c := range []*crdt.Cell{
		{Key: "ab", Dot: crdt.Dot{Inc: 1, Seq: 1}}, {Key: "a", Path: "b", Dot: crdt.Dot{Inc: 1, Seq: 1}},
		{Key: "ab", Dot: crdt.Dot{Inc: 1, Seq: 2}}, {Key: "ab", Dot: crdt.Dot{Inc: 2, Seq: 1}}, {Key: "b", Path: "a", Dot: crdt.Dot{Inc: 1, Seq: 1}},
	} {
		for seed := range uint64(2) {
			_, hash := DataHash(seed, c)
			note(hash, fmt.Sprint(seed, *c))
		}
	}
	for _, e := range []crdt.Entry{
		{}, {Prefix: 1}, {Prefix: 1, Closed: true}, {Closed: true}, {Islands: []crdt.Interval{{Lo: 3, Hi: 4}}},
		{Prefix: 1, Islands: []crdt.Interval{{Lo: 3, Hi: 4}}}, {Prefix: 1, Islands: []crdt.Interval{{Lo: 3, Hi: 3}, {Lo: 5, Hi: 6}}},
	} {
		for inc := range crdt.Inc(2) {
			note(EntryHash(1, inc, e), fmt.Sprint(inc, e))
		}
	}
}

var sink Sum

func benchCells(n int) []*crdt.Cell {
	cells := make([]*crdt.Cell, n)
	for i := range cells {
		cells[i] = cellAt(fmt.Sprintf("keyspace/some/key/%08d", i), uint64(i%5+1), uint64(i+1))
	}
	return cells
}

// BenchmarkReplace is what a Put costs the trie: one cell out, one in.
func BenchmarkReplace(b *testing.B) {
	const n = 1_000_000
	cells, trie := benchCells(n), NewTrie(testSeed)
	for _, c := range cells {
		trie.Insert(c)
	}
	fresh := make([]crdt.Cell, b.N)
	for i := range fresh {
		fresh[i] = *cells[i*7919%n]
		fresh[i].Dot.Seq = uint64(n + i + 1)
	}
	b.ReportAllocs()
	b.ResetTimer()
	began := cpuTime()
	for i := range b.N {
		k := i * 7919 % n
		if !trie.Replace(cells[k], &fresh[i]) {
			b.Fatal("not replaced")
		}
		cells[k] = &fresh[i]
	}
	reportCPU(b, began)
	sink = trie.Root()
}

// BenchmarkBuild is what starting with n cells costs.
func BenchmarkBuild(b *testing.B) {
	cells := benchCells(1_000_000)
	b.ResetTimer()
	for range b.N {
		trie := NewTrie(testSeed)
		for _, c := range cells {
			trie.Insert(c)
		}
		sink = trie.Root()
	}
}

// The number of a cell that went is that of another one later, and its cell is not kept:
// whether the trie was shared meanwhile or not.
func TestTrieGivesNumbersOutAgain(t *testing.T) {
	const n = 3 * slabCells
	trie, cells := filledTrie(n)
	for round := range 3 {
		snapshot := trie.Snapshot()
		for i, c := range cells[round:] {
			if i%2 == 0 {
				trie.Remove(c)
			}
		}
		if got := int(trie.cells.last) - len(trie.cells.free); got != trie.Len() {
			t.Fatalf("round %d: %d numbers are in use for %d cells", round, got, trie.Len())
		}
		for _, r := range trie.cells.free {
			if trie.cells.get(r) != nil {
				t.Fatalf("round %d: a cell that went is kept", round)
			}
		}
		for i, c := range cells[round:] {
			if i%2 == 0 {
				trie.Insert(c)
			}
		}
		if trie.cells.last != n || snapshot.Len() != n {
			t.Fatalf("round %d: %d numbers for %d cells", round, trie.cells.last, n)
		}
	}
}
