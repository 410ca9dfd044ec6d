package gossip

import (
	"fmt"
	"testing"
	"time"
)

// A link stalls under random overwrites of many keys, then drains: neither the
// covers of what coalesced nor the islands that they make may grow with it.
func TestStalledLinkDrainsFast(t *testing.T) {
	const keys, puts = 20_000, 160_000
	a, b := newReplicator("a", 1, Limits{}), newReplicator("b", 2, Limits{})
	linkUp(start, a, b)
	pump(t, start, a, b)
	rng := a.cfg.Rand
	for range puts {
		mustPut(t, a, start, fmt.Sprintf("key-%d", rng.IntN(keys)))
		a.Changes().Reset()
		if n := a.links["b"].queue.spans; n > maxQueueCovers {
			t.Fatalf("%d spans of covers wait", n)
		}
	}
	if a.Stats().Overflows == 0 {
		t.Fatal("no overflow")
	}
	islands, slowest, began := 0, time.Duration(0), time.Now()
	now := start
	for range 1000 {
		for _, way := range [][2]*Replicator{{a, b}, {b, a}} {
			for {
				frame, ok := way[0].NextFrame(now, way[1].cfg.Self, nil, 64<<10)
				if !ok {
					break
				}
				at := time.Now()
				if err := way[1].Step(now, way[0].cfg.Self, frame); err != nil {
					t.Fatal(err)
				}
				slowest = max(slowest, time.Since(at))
				islands = max(islands, len(b.Replica().Clock().Entry(1).Islands))
			}
		}
		b.Changes().Reset()
		if a.root() == b.root() {
			break
		}
		now = now.Add(50 * time.Millisecond)
		a.Tick(now)
		b.Tick(now)
	}
	t.Logf("%d islands at most, drained in %v, slowest Step %v", islands, time.Since(began), slowest)
	if a.root() != b.root() || islands > 4*maxQueueCovers {
		t.Fatalf("same %v, %d islands", a.root() == b.root(), islands)
	}
}
