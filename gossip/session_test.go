package gossip

import (
	"fmt"
	"testing"
	"time"

	"github.com/meshkv/meshkv/crdt"
)

// carry moves one frame of at most limit bytes from a to b.
func carry(t testing.TB, now time.Time, a, b *Replicator, limit int) bool {
	t.Helper()
	frame, ok := a.NextFrame(now, b.cfg.Self, nil, limit)
	if ok {
		if err := b.Step(now, a.cfg.Self, frame); err != nil {
			t.Fatal(err)
		}
	}
	return ok
}

func equalRoots(t testing.TB, a, b *Replicator) {
	t.Helper()
	da, ca := a.Root()
	db, cb := b.Root()
	if da != db || ca != cb {
		t.Fatalf("roots differ: %v %v, %v %v", da, ca, db, cb)
	}
}

// live is whether r holds the cell of d.
func live(r *Replicator, d crdt.Dot) bool { return r.Replica().Cells().ByDot(d) != nil }

// encoded is a frame with one op.
func encoded(op *crdt.Op) []byte {
	e := crdt.NewEncoder()
	e.Reset(nil)
	appendOp(e, op)
	return e.Bytes()
}

func TestSessionOfLargeReplicas(t *testing.T) {
	a, b := newReplicator("a", 1, Limits{}), newReplicator("b", 2, Limits{})
	for i := range 20_000 {
		d := mustPut(t, a, start, fmt.Sprint("a", i))
		if i%2 == 0 {
			_ = b.Replica().Apply(&crdt.Op{Dot: d, Key: fmt.Sprint("a", i), Cell: a.Replica().Cells().ByDot(d)})
		}
	}
	b = New(Config{Self: "b"}, crdt.State{Inc: 2, Cells: b.Replica().Cells(), Clock: b.Replica().Clock()},
		b.Replica().Cells().(*crdt.MapCells).All())
	for i := range 100 {
		mustPut(t, b, start, fmt.Sprint("b", i))
	}
	linkUp(start, a, b)
	now := start
	for range 100 {
		pump(t, now, a, b)
		now = now.Add(50 * time.Millisecond)
		a.Tick(now)
		b.Tick(now)
	}
	equalRoots(t, a, b)
	if st := a.Stats(); st.Cells != 20_100 || st.SessionsDone != 1 || st.SessionsConcluded != 1 || st.CellsDropped != 0 {
		t.Fatalf("stats %+v", st)
	}
}

// A received cell is readable at once, but its dot is known only at the end of
// the session; and a cell that arrives during the session, and that the peer
// knows to be dead, is gone when it ends.
func TestSessionKnowsNothingBeforeItsEnd(t *testing.T) {
	a, b, origin := newReplicator("a", 1, Limits{}), newReplicator("b", 2, Limits{}), newWriter(7)
	dead := origin.put(t, "dead", "")
	kill := origin.Delete("dead", 1)[0]
	b.LinkUp(start, "origin", RoleDirect)
	for _, op := range []*crdt.Op{dead, kill} {
		if err := b.Step(start, "origin", encoded(op)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 2_000 {
		mustPut(t, b, start, fmt.Sprint("b", i))
		mustPut(t, a, start, fmt.Sprint("a", i))
	}
	linkUp(start, a, b)
	a.LinkUp(start, "origin", RoleDirect)
	for a.Stats().CellsProvided == 0 {
		if !carry(t, start, a, b, 2_000) && !carry(t, start, b, a, 2_000) {
			t.Fatal("nothing moves")
		}
	}
	if n := a.Replica().Clock().Len(); n != 1 {
		t.Fatalf("%d incarnations are known in the middle of the session", n)
	}
	if err := a.Step(start, "origin", encoded(dead)); err != nil {
		t.Fatal(err)
	}
	if !live(a, dead.Dot) || a.Stats().SessionsConcluded != 0 {
		t.Fatal("the late op did not come in the middle")
	}
	mustPut(t, a, start, "during")
	now := start
	for a.Stats().SessionsDone == 0 || b.Stats().SessionsDone == 0 {
		pump(t, now, a, b)
		now = now.Add(50 * time.Millisecond)
		a.Tick(now)
		b.Tick(now)
	}
	if live(a, dead.Dot) {
		t.Fatal("a cell that the peer knows to be dead outlived the session")
	}
	pump(t, now, a, b)
	equalRoots(t, a, b)
}

// What was under way on an earlier link means nothing on the next.
func TestSessionDiesWithItsLink(t *testing.T) {
	a, b := newReplicator("a", 1, Limits{}), newReplicator("b", 2, Limits{})
	mustPut(t, a, start, "k")
	linkUp(start, a, b)
	for a.Stats().SessionsOpened == 0 {
		carry(t, start, b, a, 1<<16)
		if a.Stats().SessionsOpened == 0 {
			carry(t, start, a, b, 1<<16)
		}
	}
	hello, _ := a.NextFrame(start, "b", nil, 1<<16) // a's hello, and the opening
	if err := b.Step(start, "a", hello); err != nil {
		t.Fatal(err)
	}
	if b.Stats().SessionsAccepted != 1 {
		t.Fatal("no session to begin with")
	}
	linkUp(start, a, b)
	if a.Stats().Sessions+b.Stats().Sessions != 0 || b.Stats().SessionsLost != 1 {
		t.Fatalf("sessions outlive their link: %+v", b.Stats())
	}
	carry(t, start, a, b, 1<<16)
	accepted := b.Stats().SessionsAccepted
	if err := b.Step(start, "a", hello); err != nil {
		t.Fatal(err)
	}
	if st := b.Stats(); st.SessionsAccepted != accepted && st.DropStaleSession == 0 {
		t.Fatalf("the opening of an earlier link began a session: %+v", st)
	}
	now := start
	for range 20 {
		pump(t, now, a, b)
		now = now.Add(100 * time.Millisecond)
		a.Tick(now)
		b.Tick(now)
	}
	equalRoots(t, a, b)
}

func TestStaleTokenIsDropped(t *testing.T) {
	b := newReplicator("b", 2, Limits{})
	b.LinkUp(start, "a", RoleDirect)
	e := crdt.NewEncoder()
	e.Reset(nil)
	appendSession(e, envelope{link: 5, id: 1}, []byte{1})
	if err := b.Step(start, "a", e.Bytes()); err != nil || b.Stats().DropBeforeHello != 1 {
		t.Fatalf("before the hello: %v", err)
	}
	e.Reset(nil)
	appendHello(e, 5, 0, 1)
	appendSession(e, envelope{link: 5, id: 1}, []byte{1})
	appendAbort(e, 5, 1)
	appendBusy(e, 1, 1)
	if err := b.Step(start, "a", e.Bytes()); err != nil {
		t.Fatal(err)
	}
	if st := b.Stats(); st.DropStaleSession != 3 || st.SessionsAccepted != 0 {
		t.Fatalf("%d dropped, %d accepted", st.DropStaleSession, st.SessionsAccepted)
	}
}

func TestOverflowAsksForASessionAtOnce(t *testing.T) {
	a, b := newReplicator("a", 1, Limits{QueueRefs: 50}), newReplicator("b", 2, Limits{})
	linkUp(start, a, b)
	pump(t, start, a, b)
	for i := range 200 {
		mustPut(t, a, start, fmt.Sprint(i))
	}
	if st := a.Stats(); st.Overflows == 0 || st.LinksBehind != 1 || st.QueuedOps > 50 {
		t.Fatalf("stats %+v", st)
	}
	pump(t, start, a, b)
	a.Tick(start) // the end of a session is noticed by Step or Tick
	b.Tick(start)
	if st := a.Stats(); st.SessionsOpened != 1 || st.SessionsDone != 1 || st.LinksBehind != 0 {
		t.Fatalf("stats %+v", st)
	}
	equalRoots(t, a, b)
}

func TestBusyIsTriedAgainSoon(t *testing.T) {
	hub := newReplicator("z", 9, Limits{})
	peers := []*Replicator{newReplicator("a", 1, Limits{}), newReplicator("b", 2, Limits{}), newReplicator("c", 3, Limits{})}
	mustPut(t, hub, start, "hub")
	for _, p := range peers {
		for i := range 300 {
			mustPut(t, p, start, fmt.Sprint(p.cfg.Self, i))
		}
		linkUp(start, hub, p)
	}
	// All three open before any goes on.
	for _, p := range peers {
		carry(t, start, p, hub, 1<<16)
		carry(t, start, hub, p, 1<<16)
		carry(t, start, p, hub, 1<<16)
	}
	if st := hub.Stats(); st.SessionsAccepted != 2 || st.Sessions != 2 {
		t.Fatalf("%d accepted", st.SessionsAccepted)
	}
	now := start
	for range 40 { // 2 s
		for _, p := range peers {
			pump(t, now, hub, p)
		}
		now = now.Add(50 * time.Millisecond)
		hub.Tick(now)
		for _, p := range peers {
			p.Tick(now)
		}
	}
	if st := hub.Stats(); st.BusySent == 0 || st.Cells != 901 {
		t.Fatalf("%d times busy, %d cells", st.BusySent, st.Cells)
	}
	if peers[2].Stats().BusyReceived == 0 || peers[2].Stats().SessionsDone == 0 {
		t.Fatalf("stats %+v", peers[2].Stats())
	}
}

func TestSilentSessionIsGivenUp(t *testing.T) {
	a, b := newReplicator("a", 1, Limits{}), newReplicator("b", 2, Limits{})
	mustPut(t, a, start, "k")
	mustPut(t, b, start, "l") // or it would choose whom it asks
	linkUp(start, a, b)
	carry(t, start, b, a, 1<<16)
	if a.Stats().Sessions != 1 {
		t.Fatal("no session")
	}
	for ok := true; ok; { // into the void
		_, ok = a.NextFrame(start, "b", nil, 1<<16)
	}
	a.Tick(start.Add(9 * time.Second))
	if a.Stats().Sessions != 1 {
		t.Fatal("given up early")
	}
	now := start.Add(10 * time.Second)
	a.Tick(now)
	if st := a.Stats(); st.Sessions != 0 || st.SessionsTimedOut != 1 || st.SessionsAborted != 1 {
		t.Fatalf("stats %+v", st)
	}
	a.Tick(now.Add(time.Second)) // asks whether it is still wanted
	pump(t, now.Add(time.Second), a, b)
	if a.Stats().SessionsOpened != 2 {
		t.Fatal("not tried again")
	}
}

// A peer that lost its cells and kept its clock does not take ours along.
func TestFuseHoldsBackAnEmptiedPeer(t *testing.T) {
	a := newReplicator("a", 1, Limits{})
	for i := range 3_000 {
		mustPut(t, a, start, fmt.Sprint(i))
	}
	clock := a.Replica().Clock().Clone()
	b := New(Config{Self: "b"}, crdt.State{Inc: 2, Cells: crdt.NewMapCells(), Clock: clock}, nil)
	linkUp(start, a, b)
	now := start
	run := func(d time.Duration) {
		for end := now.Add(d); now.Before(end); now = now.Add(50 * time.Millisecond) {
			a.Tick(now)
			b.Tick(now)
			pump(t, now, a, b)
		}
	}
	run(9 * time.Second)
	if st := a.Stats(); st.Cells != 3_000 || st.FuseBlown == 0 || st.FuseHeld != 3_000 {
		t.Fatalf("after 9 s: %d cells, fuse blown %d times, %d held", st.Cells, st.FuseBlown, st.FuseHeld)
	}
	third := newReplicator("c", 3, Limits{})
	a.LinkUp(now, "c", RoleDirect)
	run(20 * time.Second)
	if st := a.Stats(); st.Cells != 3_000 {
		t.Fatalf("%d cells though another peer is there to ask", st.Cells)
	}
	a.LinkDown(third.cfg.Self)
	run(30 * time.Second)
	if st := a.Stats(); st.Cells != 0 || st.FuseReleased != 1 || st.FuseHeld != 0 {
		t.Fatalf("at last: %d cells, released %d times", st.Cells, st.FuseReleased)
	}
	equalRoots(t, a, b)
}

// The closed bit spreads with the clock, and a writer that was closed takes a new Inc.
func TestCloseSpreads(t *testing.T) {
	a, b := newReplicator("a", 1, Limits{}), newReplicator("b", 2, Limits{})
	linkUp(start, a, b)
	mustPut(t, a, start, "k")
	pump(t, start, a, b)
	if !b.CloseInc(99) || b.CloseInc(99) {
		t.Fatal("closing is not told right")
	}
	now := start
	for range 100 {
		now = now.Add(50 * time.Millisecond)
		a.Tick(now)
		b.Tick(now)
		pump(t, now, a, b)
	}
	if !a.Replica().Clock().Entry(99).Closed {
		t.Fatal("the peer does not know")
	}
	equalRoots(t, a, b)
	b.CloseInc(1) // a's own, by mistake
	for range 100 {
		now = now.Add(50 * time.Millisecond)
		a.Tick(now)
		b.Tick(now)
		pump(t, now, a, b)
	}
	if _, err := a.Put(now, crdt.Write{Key: "k", Kind: crdt.KindRegister}); err != ErrRenew || !a.Lost() {
		t.Fatalf("write under a closed incarnation: %v", err)
	}
	a.Renew(100)
	mustPut(t, a, now, "k")
}
