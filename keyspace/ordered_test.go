package keyspace

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/meshkv/meshkv/crdt"
)

// The ordered index gives what a sorted map gives, from any key on, through growth
// at the end, growth in between, overwrites and shrinking, and its leaves are not
// left empty.
func TestOrderedEqualsSortedMap(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	x, model := newOrdered(newSlab()), make(map[string]ref)
	check := func() {
		t.Helper()
		if x.Len() != len(model) {
			t.Fatalf("%d keys, want %d", x.Len(), len(model))
		}
		keys := slices.Sorted(maps.Keys(model))
		for _, from := range []string{"", "k", fmt.Sprintf("k%05d", rng.IntN(20_000)), "zz"} {
			at, _ := slices.BinarySearch(keys, from)
			stop := at + rng.IntN(len(keys)+1)
			var got []string
			x.Ascend(from, func(c *crdt.Cell) bool {
				if want := x.cells.get(model[c.Key]); c != want {
					t.Fatalf("%s is %p, want %p", c.Key, c, want)
				}
				got = append(got, c.Key)
				return at+len(got) < stop
			})
			want := keys[at:min(max(stop, at+1), len(keys))]
			if !slices.Equal(got, want) {
				t.Fatalf("from %q: %d keys, want %d", from, len(got), len(want))
			}
		}
		cells := 0
		x.fences.Scan(func(fence string, l *orderedLeaf) bool {
			if fence != "" && len(l.refs) == 0 || len(l.refs) > leafCells || cap(l.refs) > 2*len(l.refs)+leafCells {
				t.Fatalf("leaf %q of %d cells, room for %d", fence, len(l.refs), cap(l.refs))
			}
			for i, r := range l.refs {
				if key := x.key(r); !l.hinted(key) || l.hints[i] != hint(key, l.skip) {
					t.Fatalf("leaf %q has hint %#x after %d bytes of %q", fence, l.hints[i], l.skip, key)
				}
			}
			cells += len(l.refs)
			return true
		})
		if cells != len(model) {
			t.Fatalf("%d cells in leaves, want %d", cells, len(model))
		}
	}
	set := func(key string) {
		c := &crdt.Cell{Key: key}
		if old := model[key]; old != 0 {
			x.cells.set(old, c)
			return
		}
		model[key] = x.cells.put(c)
		x.Insert(key, model[key])
	}
	remove := func(key string) {
		x.Delete(key)
		x.cells.drop(model[key])
		delete(model, key)
	}
	for i := range 2_000 {
		set(fmt.Sprintf("k%05d", i))
	}
	check()
	if n := x.fences.Len(); n > 2_000/leafCells+2 {
		t.Errorf("%d leaves for 2,000 keys put in order", n)
	}
	for i := range 6_000 {
		key := fmt.Sprintf("k%05d%s", rng.IntN(20_000), strings.Repeat("x", rng.IntN(3)))
		switch rng.IntN(8) {
		case 0: // shares nothing with the others of its leaf
			key = strings.Repeat("k", rng.IntN(4)) + string(rune('a'+rng.IntN(26)))
		case 1: // differs from others in bytes that end the key
			key = key[:1+rng.IntN(5)] + strings.Repeat("\x00", rng.IntN(4))
		}
		if set(key); i%500 == 0 {
			check()
		}
	}
	for i, key := range slices.Sorted(maps.Keys(model)) {
		if rng.IntN(16) > 0 {
			remove(key)
		}
		if i%500 == 0 {
			check()
		}
	}
	check()
	if n := x.fences.Len(); n > len(model)/8+2 {
		t.Errorf("%d leaves for %d keys", n, len(model))
	}
	for key := range model {
		remove(key)
	}
	x.Delete("gone")
	check()
	if x.fences.Len() != 1 {
		t.Errorf("%d leaves for nothing", x.fences.Len())
	}
}
