package gossip

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/meshkv/meshkv/crdt"
)

// Equal inputs give equal outputs: also the order in which a conclusion drops
// cells, of which some came as late ops while the session ran.
func TestConclusionIsDeterministic(t *testing.T) {
	const cells = 20
	removed := func() (keys []string) {
		w := newWriter(2)
		var late []*crdt.Op
		full := newReplicator("b", 2, Limits{})
		for i := range cells {
			op := w.put(t, fmt.Sprint("k", i), "")
			late = append(late, op)
			full.replica.Apply(op)
		}
		held := full.replica.Cells().(*crdt.MapCells)
		a := newReplicator("a", 1, Limits{})
		b := New(Config{Self: "b"}, crdt.State{Inc: 2, Seq: cells, Cells: held, Clock: full.replica.Clock()}, held.All())
		for i := range cells {
			if _, _, err := b.Delete(start, fmt.Sprint("k", i), 1); err != nil {
				t.Fatal(err)
			}
		}
		a.LinkUp(start, "b", RoleDirect)
		a.LinkUp(start, "c", RoleDirect)
		b.LinkUp(start, "a", RoleDirect)
		carry(t, start, a, b, 64<<10)
		carry(t, start, b, a, 64<<10)
		now := start.Add(time.Second)
		a.Tick(now)
		b.Tick(now)
		for k := range 40 { // one frame each way at a time
			moved := carry(t, now, a, b, 1<<10)
			if k == 0 {
				for _, op := range late {
					if err := a.Step(now, "c", encoded(op)); err != nil {
						t.Fatal(err)
					}
				}
			}
			if back := carry(t, now, b, a, 1<<10); !moved && !back {
				break
			}
		}
		now = now.Add(time.Second)
		a.Tick(now)
		b.Tick(now)
		pump(t, now, a, b)
		for _, c := range a.Changes().Removed {
			keys = append(keys, c.Key)
		}
		return keys
	}
	first := removed()
	if len(first) != cells {
		t.Fatalf("%d cells were removed, want %d", len(first), cells)
	}
	for range 5 {
		if got := removed(); !slices.Equal(got, first) {
			t.Fatalf("removed in the order %v, and in %v", got, first)
		}
	}
}
