package gossip

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/meshkv/meshkv/crdt"
)

func opOf(inc crdt.Inc, seq uint64) []byte {
	d := crdt.Dot{Inc: inc, Seq: seq}
	return encoded(&crdt.Op{Dot: d, Key: "k", Cell: &crdt.Cell{Key: "k", Dot: d, Kind: crdt.KindRegister}})
}

// A frame full of PRUNEs is marks, whatever waits on the link: the queue is
// walked once, for the next frame, and not for each. What a walk allocates is
// its size, so that is what is counted.
func TestPruneFlood(t *testing.T) {
	const waiting, prunes = 6_000, 500
	a := newReplicator("a", 1, Limits{})
	a.LinkUp(start, "b", RoleTree)
	for i := range waiting {
		mustPut(t, a, start, fmt.Sprint(i))
	}
	e := crdt.NewEncoder()
	e.Reset(nil)
	for range prunes {
		appendPrune(e, []crdt.Inc{7})
	}
	appendPrune(e, []crdt.Inc{1})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if err := a.Step(start, "b", e.Bytes()); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > 20*8*waiting {
		t.Errorf("a frame of %d PRUNEs allocated %d bytes, that of %d walks", prunes, got, got/(8*waiting))
	}
	if _, ok := a.NextFrame(start, "b", nil, 64<<10); !ok || a.stats.OpsUnqueued != waiting || a.links["b"].queued() {
		t.Errorf("%d ops announced instead of pushed, want %d", a.stats.OpsUnqueued, waiting)
	}
}

// Small frames of one peer do not make a node forget the trees of all origins:
// what nobody wrote has no tree.
func TestPruneCannotWipeTrees(t *testing.T) {
	a, b := newReplicator("a", 1, Limits{Origins: 100}), newReplicator("b", 2, Limits{})
	linkUp(start, a, b)
	mustPut(t, b, start, "k")
	pump(t, start, a, b)
	e := crdt.NewEncoder()
	e.Reset(nil)
	var incs []crdt.Inc
	var dots crdt.Dots
	for i := range 200 {
		incs = append(incs, crdt.Inc(1_000+i))
		dots = append(dots, crdt.Span{Inc: crdt.Inc(2_000 + i), Lo: 1, Hi: 1})
	}
	appendPrune(e, incs)
	appendDots(e, kindGraft, dots)
	if err := a.Step(start, "b", e.Bytes()); err != nil {
		t.Fatal(err)
	}
	if a.tree.origins[2] == nil {
		t.Error("the tree of b is forgotten")
	}
	if n := len(a.tree.origins); n != 1 {
		t.Errorf("%d origins, one wrote", n)
	}
}

// Who was told to push an origin no more, forgot it, and is the only one to bring
// it becomes the parent: what others announce is not asked for at once.
func TestRefusedPusherBecomesParent(t *testing.T) {
	a := newReplicator("a", 1, Limits{})
	for _, p := range []PeerID{"b", "c", "d"} {
		a.LinkUp(start, p, RoleTree)
	}
	step := func(now time.Time, peer PeerID, frame []byte) {
		t.Helper()
		if err := a.Step(now, peer, frame); err != nil {
			t.Fatal(err)
		}
	}
	step(start, "b", opOf(9, 1))
	step(start, "c", opOf(9, 1)) // in vain: it is pruned
	a.LinkDown("b")
	now := start.Add(time.Minute)
	for i := range 3 {
		now = now.Add(100 * time.Millisecond)
		step(now, "c", opOf(9, uint64(i+2)))
	}
	if p := a.tree.origins[9].from(); p != a.links["c"] {
		t.Fatal("who alone brings the ops of an origin is not its parent")
	}
	e := crdt.NewEncoder()
	e.Reset(nil)
	appendDots(e, kindIHave, crdt.Dots{{Inc: 9, Lo: 60, Hi: 60}})
	step(now, "d", e.Bytes())
	if len(a.links["d"].graft) > 0 {
		t.Error("d is asked at once for what c would push")
	}
}

// A peer that forgot a PRUNE is told again after a second, whatever other peers
// were told meanwhile.
func TestPruneIsRepeatedPerLink(t *testing.T) {
	a := newReplicator("a", 1, Limits{})
	for _, p := range []PeerID{"b", "c", "d"} {
		a.LinkUp(start, p, RoleTree)
	}
	now := start
	told := func(peer PeerID) int {
		t.Helper()
		if err := a.Step(now, peer, opOf(9, 1)); err != nil {
			t.Fatal(err)
		}
		n := len(a.links[peer].prune)
		a.links[peer].prune = nil
		return n
	}
	told("b")
	if told("c") != 1 || told("c") != 0 {
		t.Fatal("c is not told once")
	}
	now = now.Add(time.Duration(repruneAfter) / 2)
	if told("d") != 1 {
		t.Fatal("d is not told")
	}
	now = now.Add(time.Duration(repruneAfter) / 2)
	if told("c") != 1 {
		t.Error("c forgot, and is not told again")
	}
	if told("d") != 0 {
		t.Error("d is told again too early")
	}
}

// A link that went down is kept by nothing, also where it brought origins that
// write no more.
func TestDeadLinksAreCollectable(t *testing.T) {
	a := newReplicator("a", 1, Limits{})
	const links = 20
	gone := make(chan struct{}, links)
	for i := range links {
		a.LinkUp(start, "b", RoleTree)
		runtime.AddCleanup(a.links["b"], func(struct{}) { gone <- struct{}{} }, struct{}{})
		if err := a.Step(start, "b", opOf(crdt.Inc(100+i), 1)); err != nil {
			t.Fatal(err)
		}
		a.LinkDown("b")
	}
	a.TakeWakes()
	for i := range links - 1 { // the stack may hold the last
		runtime.GC()
		select {
		case <-gone:
		case <-time.After(10 * time.Second):
			t.Fatalf("%d of %d links were collected", i, links)
		}
	}
	runtime.KeepAlive(a)
}
