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
	x, model := newDotIndex(), make(map[crdt.Dot]*crdt.Cell)
	var all []crdt.Dot
	check := func() {
		t.Helper()
		for _, d := range all {
			if x.get(d) != model[d] {
				t.Fatalf("%v: got %v, want %v", d, x.get(d), model[d])
			}
		}
	}
	for i := range 4 * pageDots {
		d := crdt.Dot{Inc: crdt.Inc(1 + i%2), Seq: uint64(1 + i/2)}
		c := &crdt.Cell{Dot: d}
		x.add(c)
		model[d] = c
		all = append(all, d)
	}
	check()
	rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	for i, d := range all {
		x.remove(model[d])
		delete(model, d)
		if i%97 == 0 || len(model) < 100 {
			check()
		}
		for _, pages := range x.incs {
			for _, p := range pages {
				if len(p.cells) >= minPlaces && len(p.cells) > 2*p.live {
					t.Fatalf("a page of %d places for %d cells", len(p.cells), p.live)
				}
			}
		}
		if i%5 == 0 { // some come back, in any order
			x.add(&crdt.Cell{Dot: d})
			model[d] = x.get(d)
			if back := all[rng.IntN(i+1)]; model[back] != nil {
				x.remove(model[back])
				delete(model, back)
			}
		}
	}
	for d, c := range model {
		x.remove(c)
		delete(model, d)
	}
	check()
	if len(x.incs) != 0 || x.lastPage != nil {
		t.Errorf("%d incarnations are left of nothing", len(x.incs))
	}
}

// The table finds what a map finds, through growth and deletions, and stays in
// proportion to what it holds.
func TestTableEqualsMap(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	x, model := newTable(), make(map[string]*crdt.Cell)
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
	x := newTable()
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
	const page = 4096 / 16 // slots
	x := newTable()
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
				if part[j].hash.Load() != 0 {
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
