package gossip

import (
	"fmt"
	"testing"
	"time"

	"github.com/meshkv/meshkv/crdt"
)

func TestFuse(t *testing.T) {
	dots := func(lo, hi uint64) crdt.Dots { return crdt.Dots{{Inc: 9, Lo: lo, Hi: hi}} }
	type step struct {
		after time.Duration
		peer  PeerID
		drops crdt.Dots
		want  bool
	}
	for name, tc := range map[string]struct {
		cells int
		peers []PeerID
		open  bool
		same  []PeerID      // in sync
		after time.Duration // a session with c is concluded then
		news  uint64        // new dots in the peer's clock
		steps []step
	}{
		"few drops pass":         {cells: 100, peers: []PeerID{"b"}, steps: []step{{0, "b", dots(1, 1000), true}}},
		"a tenth of many passes": {cells: 20_000, peers: []PeerID{"b"}, steps: []step{{0, "b", dots(1, 2000), true}, {0, "b", dots(1, 2001), false}}},
		"a second peer agrees": {cells: 100, peers: []PeerID{"b", "c"}, steps: []step{
			{0, "b", dots(1, 5000), false}, {time.Second, "c", dots(1, 5000), true}, {time.Second, "b", dots(1, 5000), false},
		}},
		"a second peer agrees on most": {cells: 100, peers: []PeerID{"b", "c"}, steps: []step{
			{0, "b", dots(1, 5000), false}, {time.Second, "c", dots(500, 6000), true},
		}},
		"a second peer speaks of others": {cells: 100, peers: []PeerID{"b", "c"}, steps: []step{
			{0, "b", dots(1, 5000), false}, {time.Second, "c", dots(5001, 10_000), false},
		}},
		"the same peer again does not count beside others": {cells: 100, peers: []PeerID{"b", "c"}, steps: []step{
			{0, "b", dots(1, 5000), false}, {20 * time.Second, "b", dots(1, 5000), false},
		}},
		"the only peer says the same 10 s later": {cells: 100, peers: []PeerID{"b"}, steps: []step{
			{0, "b", dots(1, 5000), false}, {5 * time.Second, "b", dots(1, 5000), false}, {5 * time.Second, "b", dots(1, 5000), true},
		}},
		"no more drops than new dots pass": {cells: 100, peers: []PeerID{"b", "c"}, news: 5000, steps: []step{
			{0, "b", dots(1, 5000), true}, {0, "b", dots(1, 5001), false},
		}},
		"the dots of the drops are not new ones": {cells: 100, peers: []PeerID{"b", "c"}, news: 5000, steps: []step{
			{0, "b", crdt.Dots{{Inc: 8, Lo: 1, Hi: 4000}}, false},
		}},
		"the same peer again where the others are in sync": {cells: 100, peers: []PeerID{"b", "c", "d"}, same: []PeerID{"c", "d"}, steps: []step{
			{0, "b", dots(1, 5000), false}, {9 * time.Second, "b", dots(1, 5000), false}, {time.Second, "b", dots(1, 5000), true},
		}},
		"the same peer again where one other is not in sync": {cells: 100, peers: []PeerID{"b", "c", "d"}, same: []PeerID{"d"}, steps: []step{
			{0, "b", dots(1, 5000), false}, {20 * time.Second, "b", dots(1, 5000), false},
		}},
		"the same peer again where a session with the other dropped nothing": {cells: 100, peers: []PeerID{"b", "c"}, after: time.Second, steps: []step{
			{0, "b", dots(1, 5000), false}, {9 * time.Second, "b", dots(1, 5000), false}, {time.Second, "b", dots(1, 5000), true},
		}},
		"the only peer says something else 10 s later": {cells: 100, peers: []PeerID{"b"}, steps: []step{
			{0, "b", dots(1, 5000), false}, {10 * time.Second, "b", dots(4000, 9000), false},
		}},
		"verdicts are forgotten": {cells: 100, peers: []PeerID{"b", "c"}, steps: []step{
			{0, "b", dots(1, 5000), false}, {fuseMemory, "c", dots(1, 5000), false},
		}},
		"the operator overrides": {cells: 100, peers: []PeerID{"b"}, open: true, steps: []step{
			{0, "b", dots(1, 5000), true}, {2 * time.Minute, "b", dots(1, 5000), false},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			now := time.Unix(1_800_000_000, 0)
			r := New(Config{Self: "a"}, crdt.State{Inc: 1, Cells: crdt.NewMapCells()}, nil)
			for i := range tc.cells {
				if _, err := r.Put(now, crdt.Write{Key: string(rune('0' + i)), Kind: crdt.KindRegister}); err != nil {
					t.Fatal(err)
				}
			}
			for _, p := range tc.peers {
				r.LinkUp(now, p, RoleDirect)
			}
			if tc.open {
				r.OpenFuse(now, time.Minute)
			}
			for _, p := range tc.same {
				r.links[p].inSync = true
			}
			if tc.after > 0 {
				r.links["c"].concludedAt = now.Add(tc.after).UnixNano()
			}
			theirs := crdt.NewClock()
			if tc.news > 0 {
				theirs.Add(crdt.Span{Inc: 8, Lo: 1, Hi: tc.news})
			}
			for i, st := range tc.steps {
				now = now.Add(st.after)
				r.begin(now)
				if got := r.allows(st.peer, theirs, st.drops); got != st.want {
					t.Fatalf("step %d: allowed %v, want %v", i, got, st.want)
				}
			}
		})
	}
}

// A verdict that nobody confirmed within its memory is not held any more: its
// peer was replaced, and all is in sync.
func TestFuseHeldFalls(t *testing.T) {
	a := newReplicator("a", 1, Limits{})
	const cells = 3_000
	for i := range cells {
		mustPut(t, a, start, fmt.Sprint(i))
	}
	lostAll := New(Config{Self: "b"}, crdt.State{Inc: 2, Cells: crdt.NewMapCells(), Clock: a.Replica().Clock().Clone()}, nil)
	linkUp(start, a, lostAll)
	now := run(t, start, 5*time.Second, a, lostAll)
	if n := a.Stats().FuseHeld; n != cells {
		t.Fatalf("%d drops are held, want %d", n, cells)
	}
	b := newReplicator("b", 4, Limits{})
	linkUp(now, a, b)
	run(t, now, fuseMemory, a, b)
	equalRoots(t, a, b)
	if n := a.Stats().FuseHeld; n != 0 {
		t.Errorf("%d drops are held, and all is in sync", n)
	}
}
