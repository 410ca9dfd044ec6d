package keyspace

import (
	"slices"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/meshkv/meshkv/crdt"
)

// The index is a crdt.Cells: it gives what the plain implementation gives, with
// the highest cell first.
func TestIndexEqualsMapCells(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x, model := newIndex(), crdt.NewMapCells()
		var live []*crdt.Cell
		seq := uint64(0)
		cell := func() *crdt.Cell {
			seq++
			return &crdt.Cell{
				Key:   rapid.SampledFrom([]string{"a", "a", "b", "c"}).Draw(t, "key"),
				Path:  rapid.SampledFrom([]string{"", "p", "pq", "r"}).Draw(t, "path"),
				Dot:   crdt.Dot{Inc: 1, Seq: seq},
				HLC:   crdt.HLC(rapid.IntRange(0, 3).Draw(t, "hlc")),
				Value: make([]byte, rapid.IntRange(0, 3).Draw(t, "size")),
			}
		}
		take := func() *crdt.Cell {
			i := rapid.IntRange(0, len(live)-1).Draw(t, "which")
			c := live[i]
			live = slices.Delete(live, i, i+1)
			return c
		}
		for range rapid.IntRange(1, 120).Draw(t, "steps") {
			switch what := rapid.SampledFrom([]int{0, 0, 0, 1, 2}).Draw(t, "what"); {
			case what == 0 || len(live) == 0:
				c := cell()
				x.Add(c)
				model.Add(c)
				live = append(live, c)
			case what == 1:
				c := take()
				x.Remove(c)
				model.Remove(c)
			default:
				old, c := take(), cell()
				c.Key = old.Key
				x.Replace(old, c)
				model.Replace(old, c)
				live = append(live, c)
			}
			bytes := int64(0)
			for c := range model.All() {
				bytes += cellBytes(c)
				if x.ByDot(c.Dot) != c {
					t.Fatalf("ByDot(%v) is not the cell", c.Dot)
				}
			}
			if x.Len() != model.Len() || x.bytes.Load() != bytes {
				t.Fatalf("%d cells of %d bytes, want %d of %d", x.Len(), x.bytes.Load(), model.Len(), bytes)
			}
			if n := len(slices.Collect(x.All())); n != model.Len() {
				t.Fatalf("%d cells in all, want %d", n, model.Len())
			}
			for _, key := range []string{"a", "b", "c"} {
				want := slices.SortedFunc(slices.Values(model.ByKey(key)), func(a, b *crdt.Cell) int { return b.Compare(a) })
				if got := x.ByKey(key); !slices.Equal(got, want) {
					t.Fatalf("%s: got %v, want %v", key, got, want)
				}
				if got, want := x.sum(key), sumAll(want); got != want {
					t.Fatalf("%s: the sum is %x, want %x", key, got, want)
				}
				for _, path := range []string{"", "p", "pq", "r", "s"} {
					got, want := x.ByPath(key, path), model.ByPath(key, path)
					slices.SortFunc(got, crdt.ComparePaths)
					if slices.SortFunc(want, crdt.ComparePaths); !slices.Equal(got, want) {
						t.Fatalf("%s at %q: got %v, want %v", key, path, got, want)
					}
					if got, want := slices.Collect(x.Ascend(key, path)), slices.Collect(model.Ascend(key, path)); !slices.Equal(got, want) {
						t.Fatalf("%s from %q: got %v, want %v", key, path, got, want)
					}
				}
				var top *crdt.Cell
				if len(want) > 0 {
					top = want[0]
				}
				if got := x.keys.Get(key); got != top {
					t.Fatalf("%s in the ordered index: %v, want %v", key, got, top)
				}
			}
		}
	})
}

func sumAll(cells []*crdt.Cell) (s dotSum) {
	for _, c := range cells {
		s = s.plus(sumOf(c.Dot))
	}
	return s
}

// A reader without the mutex sees a cell that is live all the time, while others of its key come and go beside it, in a
// slice, in a crowd, and in between.
func TestDescendMissesNoCell(t *testing.T) {
	x := newIndex()
	cell := func(seq uint64, hlc crdt.HLC) *crdt.Cell {
		return &crdt.Cell{Key: "k", Dot: crdt.Dot{Inc: 1, Seq: seq}, HLC: hlc}
	}
	stays := cell(1, 1)
	x.Add(stays)
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				found := false
				x.Descend("k", func(c *crdt.Cell) bool {
					found = found || c == stays
					return !found
				})
				if !found {
					t.Error("a cell that is there all the time was not seen")
					return
				}
			}
		})
	}
	seq := uint64(1)
	for round := range 20_000 {
		var cells []*crdt.Cell
		for range 1 + round%(crowdAbove+3) {
			seq++
			c := cell(seq, crdt.HLC(2+seq%5))
			x.Add(c)
			cells = append(cells, c)
		}
		for _, c := range cells {
			x.Remove(c)
		}
	}
	close(stop)
	readers.Wait()
}
