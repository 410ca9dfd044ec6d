package gossip

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/meshkv/meshkv/crdt"
)

var schedules = flag.Int("schedules", 40, "number of random schedules")

// Roles, chokes, links that go and come, large and small ops, and bounds so tiny
// that all of them are met; then nothing but time, and all are equal.
func TestRandomSchedules(t *testing.T) {
	for seed := range uint64(*schedules) {
		schedule(t, seed)
	}
}

func schedule(t *testing.T, seed uint64) {
	const (
		nodes   = 20
		actions = 45
		most    = 2 * time.Minute // until all are equal
	)
	lim := Limits{QueueRefs: 12, AnnounceSpans: 8, WantEntries: 4, WantSpans: 12, RingOps: 32, Origins: 6, LargeBytes: 200}
	if seed%2 == 0 {
		lim.Origins, lim.RingOps = 0, 0
	}
	f := newForest(t, nodes, seed, lim)
	rng := rand.New(rand.NewPCG(seed, 5))
	var dots []crdt.Dot
	for range actions {
		i := rng.IntN(nodes)
		j := f.peers[i][rng.IntN(len(f.peers[i]))]
		switch rng.IntN(10) {
		case 0, 1:
			f.nodes[i].SetRole(f.nodes[j].cfg.Self, Role(rng.IntN(3)))
		case 2:
			f.nodes[rng.IntN(nodes)].SetChoked(f.now, rng.IntN(3) == 0)
		case 3:
			if f.down[pair(i, j)] {
				f.heal(i, j, RoleTree)
			} else {
				f.cut(i, j)
			}
		default:
			for range 1 + rng.IntN(10) {
				dots = append(dots, putBytes(t, f.nodes[i], f.now, fmt.Sprint("k", rng.IntN(60)), rng.IntN(300)))
			}
		}
		f.run(rng.IntN(20))
	}
	for i, r := range f.nodes {
		r.SetChoked(f.now, false)
		for _, j := range f.peers[i] {
			if f.down[pair(i, j)] {
				f.heal(i, j, RoleTree)
			}
		}
	}
	f.pace = 10 * time.Millisecond // and ticks of 500
	for end := f.now.Add(most); !f.equal(); f.run(20) {
		if f.now.After(end) {
			lacking := 0
			for _, d := range dots {
				lacking += f.lacking(d)
			}
			t.Errorf("seed %d: roots differ after %v, %d ops are lacking", seed, most, lacking)
			return
		}
	}
	for _, d := range dots {
		if n := f.lacking(d); n > 0 {
			t.Fatalf("seed %d: %d nodes lack %v, and are equal to all others", seed, n, d)
		}
	}
}

// equal reports whether all have the same roots.
func (f *forest) equal() bool {
	first := f.nodes[0].root()
	for _, r := range f.nodes[1:] {
		if r.root() != first {
			return false
		}
	}
	return true
}
