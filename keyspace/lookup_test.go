package keyspace

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/meshkv/meshkv/crdt"
)

// The pages find what a map finds, through dense and sparse ones, and nothing is
// left of them when every cell is gone.
func TestDotIndexEqualsMap(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	x, model := newDotIndex(), make(map[crdt.Dot]ref)
	var all []crdt.Dot
	check := func() {
		t.Helper()
		for _, d := range all {
			if x.get(d) != model[d] {
				t.Fatalf("%v: got %v, want %v", d, x.get(d), model[d])
			}
		}
	}
	last := ref(0)
	add := func(d crdt.Dot) {
		last++
		x.add(d, last)
		if last%3 == 0 {
			last++
			x.move(d, last)
		}
		model[d] = last
	}
	for i := range 4 * pageDots {
		d := crdt.Dot{Inc: crdt.Inc(1 + i%2), Seq: uint64(1 + i/2)}
		add(d)
		all = append(all, d)
	}
	check()
	rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	for i, d := range all {
		x.remove(d)
		delete(model, d)
		if i%97 == 0 || len(model) < 100 {
			check()
		}
		for _, pages := range x.incs {
			for _, p := range pages {
				if len(p.refs) >= minPlaces && len(p.refs) > 2*p.live {
					t.Fatalf("a page of %d places for %d cells", len(p.refs), p.live)
				}
			}
		}
		if i%5 == 0 { // some come back, in any order
			add(d)
			if back := all[rng.IntN(i+1)]; model[back] != 0 {
				x.remove(back)
				delete(model, back)
			}
		}
	}
	for d := range model {
		x.remove(d)
		delete(model, d)
	}
	check()
	if len(x.incs) != 0 || x.lastPage != nil {
		t.Errorf("%d incarnations are left of nothing", len(x.incs))
	}
}

// A slab gives every cell that is in it back by its number, to readers at any time, and
// gives numbers out again before it takes new ones.
func TestSlabEqualsMap(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	x, model := newSlab(), make(map[ref]*crdt.Cell)
	var wg sync.WaitGroup
	done := make(chan struct{})
	always := x.put(&crdt.Cell{Key: "always"})
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			if c := x.get(always); c.Key != "always" {
				t.Errorf("%q", c.Key)
				return
			}
		}
	})
	most := 0
	for i := range 20 * slabCells {
		grow := i < 8*slabCells || i > 16*slabCells
		if c := (&crdt.Cell{}); grow == (rng.IntN(4) > 0) {
			r := x.put(c)
			if model[r] != nil || r == 0 || r == always {
				t.Fatalf("number %d is given out twice", r)
			}
			model[r] = c
		} else {
			for r := range model {
				if rng.IntN(3) == 0 {
					x.set(r, c)
					model[r] = c
				} else {
					x.drop(r)
					delete(model, r)
					if x.get(r) != nil {
						t.Fatalf("%d was dropped and is there", r)
					}
				}
				break
			}
		}
		most = max(most, len(model)+1)
		if int(x.last) != most || len(x.free) != most-len(model)-1 {
			t.Fatalf("%d numbers, %d of them free, for %d cells and %d at the most", x.last, len(x.free), len(model)+1, most)
		}
	}
	close(done)
	wg.Wait()
	for r, c := range model {
		if x.get(r) != c {
			t.Fatalf("%d: got %p, want %p", r, x.get(r), c)
		}
	}
	if x.get(0) != nil {
		t.Error("0 is a cell")
	}
}

// mapTable is a table with its slab: what a key has there is replaced or made.
type mapTable struct{ *table }

func newMapTable() mapTable { return mapTable{newTable(newSlab())} }

func (x mapTable) Store(c *crdt.Cell) {
	if r := x.Find(c.Key); r != 0 {
		x.cells.set(r, c)
		return
	}
	x.Insert(c.Key, x.cells.put(c))
}

func (x mapTable) Delete(key string) {
	r := x.Find(key)
	x.table.Delete(key)
	if r != 0 {
		x.cells.drop(r)
	}
}

// The table finds what a map finds, through growth and deletions, and stays in
// proportion to what it holds.
func TestTableEqualsMap(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	x, model := newMapTable(), make(map[string]*crdt.Cell)
	rebuilds, last := 0, x.slots.Load()
	for i := range 60_000 {
		// Now it grows, now it is little but what was deleted.
		key := fmt.Sprint(rng.IntN(3_000))
		if rng.IntN(3) == 0 || i/5_000%2 == 1 && rng.IntN(4) > 0 {
			x.Delete(key)
			delete(model, key)
		} else {
			c := &crdt.Cell{Key: key}
			x.Store(c)
			model[key] = c
		}
		if s := x.slots.Load(); s != last {
			rebuilds, last = rebuilds+1, s
			if 2*x.used > int(s.n) {
				t.Fatalf("step %d: %d of %d slots taken after a rebuild", i, x.used, s.n)
			}
			refs := 0
			for j := range s.n {
				if _, r := s.at(j).load(); r != 0 {
					refs++
				}
			}
			if refs != x.live {
				t.Fatalf("step %d: %d slots with a ref after a rebuild, want %d", i, refs, x.live)
			}
		}
		if n := int(last.n); 4*x.used > 3*n {
			t.Fatalf("step %d: %d of %d slots taken", i, x.used, n)
		}
		if x.live != len(model) {
			t.Fatalf("step %d: %d live, want %d", i, x.live, len(model))
		}
		if got := x.Load(key); got != model[key] {
			t.Fatalf("step %d: %s: got %v, want %v", i, key, got, model[key])
		}
	}
	for i := range 3_000 {
		if key := fmt.Sprint(i); x.Load(key) != model[key] {
			t.Fatalf("%s: got %v, want %v", key, x.Load(key), model[key])
		}
	}
	if rebuilds < 5 {
		t.Errorf("%d rebuilds", rebuilds)
	}
	// It shrinks when it is rebuilt next, so it may still be as large as for the
	// 2,000 cells or so of the time before the last deletions.
	if slots := x.slots.Load().n; slots > 8192 {
		t.Errorf("%d slots for %d cells", slots, len(model))
	}
}

// Who reads while the table is rebuilt under them finds every key that is there,
// never in an older state than before.
func TestTableReadersDuringRebuilds(t *testing.T) {
	const stable, writes = 50, 12_000
	x := newMapTable()
	for i := range stable {
		x.Store(&crdt.Cell{Key: fmt.Sprint("stable", i)})
	}
	var wg sync.WaitGroup
	done := make(chan struct{})
	for range 2 {
		wg.Go(func() {
			var seen [stable]uint64
			for i := 0; ; i = (i + 1) % stable {
				select {
				case <-done:
					return
				default:
				}
				c := x.Load(fmt.Sprint("stable", i))
				if c == nil || c.Dot.Seq < seen[i] {
					t.Errorf("stable%d: %+v after %d", i, c, seen[i])
					return
				}
				seen[i] = c.Dot.Seq
			}
		})
	}
	for i := range writes {
		x.Store(&crdt.Cell{Key: fmt.Sprint("key", i%7000)})
		x.Store(&crdt.Cell{Key: fmt.Sprint("stable", i%stable), Dot: crdt.Dot{Inc: 1, Seq: uint64(i) + 1}})
		if i >= 3000 {
			x.Delete(fmt.Sprint("key", (i-3000)%7000))
		}
	}
	close(done)
	wg.Wait()
}

// A rebuild fills the new array from its start, whether it is larger, smaller or as
// large: of its pages only those are touched that are due, one at the border, and
// one for what stood at the start because the end was taken.
func TestTableRebuildsInOrder(t *testing.T) {
	const page = 4096 / 8 // slots
	x := newMapTable()
	looked := make(map[int]bool) // by the sign of new size - old size
	look := func() {
		if x.next == nil {
			return
		}
		pages := make(map[int]bool)
		parts := 0
		for i, part := range x.next.slots.parts {
			if part != nil {
				parts++
			}
			for j := range part {
				if part[j].Load() != 0 {
					pages[(i<<partShift+j)/page] = true
				}
			}
		}
		n, old := int(x.next.slots.n), int(x.slots.Load().n)
		if due := x.next.at*n/old>>partShift + 1; parts > due+2 {
			t.Fatalf("%d parts are made after %d of %d slots, want at most %d", parts, x.next.at, old, due+2)
		}
		if due := x.next.at*n/old/page + 1; len(pages) > due+2 {
			t.Fatalf("%d pages are touched after %d of %d slots, want at most %d of %d", len(pages), x.next.at, old, due+2, n/page)
		}
		looked[cmp.Compare(n, old)] = true
	}
	oldest := 0
	for i := range 180_000 { // it grows, turns over, and shrinks
		x.Store(&crdt.Cell{Key: fmt.Sprint(i)})
		keep := 30_000
		if i > 90_000 {
			keep = 1_000
		}
		for range min(2, max(0, i-oldest-keep)) {
			x.Delete(fmt.Sprint(oldest))
			oldest++
		}
		if i%1024 == 0 { // it looks at every slot
			look()
		}
	}
	if len(looked) != 3 {
		t.Errorf("rebuilds of kinds %v, want larger, smaller and as large", looked)
	}
}
