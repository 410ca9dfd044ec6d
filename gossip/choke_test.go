package gossip

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/meshkv/meshkv/crdt"
)

func putBytes(t testing.TB, r *Replicator, now time.Time, key string, bytes int) crdt.Dot {
	t.Helper()
	d, err := r.Put(now, crdt.Write{Key: key, Kind: crdt.KindRegister, Value: make([]byte, bytes)})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestChokeHoldsOpsBack(t *testing.T) {
	a, b := newReplicator("a", 1, Limits{QueueRefs: 500}), newReplicator("b", 2, Limits{})
	linkUp(start, a, b)
	pump(t, start, a, b)
	b.SetChoked(start, true)
	pump(t, start, a, b)
	for i := range 1000 {
		mustPut(t, a, start, fmt.Sprint(i%100))
	}
	pump(t, start, a, b)
	if n := b.Replica().Cells().Len(); n != 0 {
		t.Fatalf("%d cells while choked", n)
	}
	if l := a.Links()[0]; !l.Choked || l.QueuedOps == 0 || l.QueuedOps > 500 || l.Behind {
		t.Fatalf("link %+v", l)
	}
	now := start.Add(3 * time.Second) // what is not an op goes on
	a.Tick(now)
	heard := b.Stats().SummariesReceived
	pump(t, now, a, b)
	if b.Stats().SummariesReceived == heard || a.Ready("b") {
		t.Fatal("the link stands still, or is never done")
	}
	b.LinkUp(now, "late", RoleDirect)
	if frame, _ := b.NextFrame(now, "late", nil, 1<<16); !slices.Contains(frame, byte(kindChoke)) || b.Stats().ChokesSent != 2 {
		t.Fatal("a later link was not choked")
	}
	b.SetChoked(now, false)
	pump(t, now, a, b)
	equalRoots(t, a, b)
	if st := a.Stats(); st.Overflows+st.SessionsOpened != 0 || st.OpsSent >= 1000 {
		t.Fatalf("stats %+v", st)
	}
}

// What overflows while the peer is choked is repaired when it is not any more,
// and the peer is told that it does not come.
func TestOverflowWhileChoked(t *testing.T) {
	a, b := newReplicator("a", 1, Limits{QueueRefs: 50}), newReplicator("b", 2, Limits{})
	linkUp(start, a, b)
	mustPut(t, a, start, "before")
	pump(t, start, a, b)
	if b.tree.origins[1].from() == nil {
		t.Fatal("no parent")
	}
	b.SetChoked(start, true)
	pump(t, start, a, b)
	for i := range 200 {
		mustPut(t, a, start, fmt.Sprint(i))
	}
	pump(t, start, a, b)
	if b.tree.origins[1].from() != nil || b.Stats().BehindReceived != 1 || a.Stats().BehindSent != 1 {
		t.Fatal("the peer was not told")
	}
	if s := a.Stats(); s.SessionsOpened != 0 || a.Ready("b") {
		t.Fatalf("%d sessions while choked", s.SessionsOpened)
	}
	b.SetChoked(start, false)
	pump(t, start, a, b)
	a.Tick(start.Add(50 * time.Millisecond))
	pump(t, start.Add(50*time.Millisecond), a, b)
	equalRoots(t, a, b)
	if s := a.Stats(); s.SessionsDone != 1 {
		t.Fatalf("%d sessions", s.SessionsDone)
	}
}

// Whoever loses its parent asks those who announced at once.
func TestOrphansGraftAtOnce(t *testing.T) {
	for name, tc := range map[string]struct {
		lose  func(r *Replicator)
		later bool // it has to wait: nothing was lost
	}{
		"link down": {lose: func(r *Replicator) { r.LinkDown("parent"); r.Tick(start.Add(time.Millisecond)) }},
		"behind": {lose: func(r *Replicator) {
			e := crdt.NewEncoder()
			appendBehind(e)
			if err := r.Step(start.Add(time.Millisecond), "parent", e.Bytes()); err != nil {
				t.Fatal(err)
			}
		}},
		"another link down": {lose: func(r *Replicator) { r.LinkDown("x"); r.Tick(start.Add(time.Millisecond)) }, later: true},
	} {
		for _, before := range []bool{true, false} {
			t.Run(fmt.Sprint(name, ", announced before ", before), func(t *testing.T) {
				r := newReplicator("r", 9, Limits{})
				for _, p := range []PeerID{"parent", "other", "x"} {
					r.LinkUp(start, p, RoleTree)
				}
				if err := r.Step(start, "parent", encoded(newWriter(1).put(t, "k", ""))); err != nil {
					t.Fatal(err)
				}
				announced := func() {
					e := crdt.NewEncoder()
					appendIHave(e, crdt.Dots{{Inc: 1, Lo: 2, Hi: 3}}, false)
					if err := r.Step(start.Add(time.Millisecond), "other", e.Bytes()); err != nil {
						t.Fatal(err)
					}
				}
				if before {
					announced()
					r.tree.origins[1].set(r.links["other"], 0, refused)
				}
				tc.lose(r)
				if !before {
					announced()
				}
				o := r.tree.origins[1]
				if asked := len(r.links["other"].graft) > 0; asked == (tc.later && before || tc.later) {
					t.Fatalf("asked %v", asked)
				} else if asked && o.mark(r.links["other"])&refused != 0 {
					t.Error("the link is still refused")
				}
			})
		}
	}
}

// Announced ops of an origin whose parent keeps delivering are waited for ten
// times as long, and a hundred times where it delivers by the dozen.
func TestBusyParentIsWaitedFor(t *testing.T) {
	for every, want := range map[int]time.Duration{ // ms between two ops; 0: there is but one
		0:  21 * time.Millisecond,
		10: 201 * time.Millisecond,
		1:  2001 * time.Millisecond,
	} {
		r := newReplicator("r", 9, Limits{})
		r.LinkUp(start, "parent", RoleTree)
		r.LinkUp(start, "other", RoleTree)
		w := newWriter(1)
		var asked time.Duration
		for ms := range 2500 {
			now := start.Add(time.Duration(ms) * time.Millisecond)
			if ms == 0 || every > 0 && ms%every == 0 {
				if err := r.Step(now, "parent", encoded(w.put(t, "k", ""))); err != nil {
					t.Fatal(err)
				}
			}
			if ms == 1 {
				announceLater(t, r, now)
			}
			r.Tick(now)
			if len(r.links["other"].graft) > 0 {
				asked = now.Sub(start)
				break
			}
		}
		if asked != want {
			t.Errorf("an op every %d ms: asked after %v, want %v", every, asked, want)
		}
	}
}

func announceLater(t *testing.T, r *Replicator, now time.Time) {
	t.Helper()
	e := crdt.NewEncoder()
	appendIHave(e, crdt.Dots{{Inc: 1, Lo: 1 << 20, Hi: 1 << 20}}, false)
	if err := r.Step(now, "other", e.Bytes()); err != nil {
		t.Fatal(err)
	}
}

// A link that goes quiet says so, and learns anew when it comes back.
func TestRoleChange(t *testing.T) {
	a, b := newReplicator("a", 1, Limits{}), newReplicator("b", 2, Limits{})
	linkUp(start, a, b)
	mustPut(t, a, start, "1")
	pump(t, start, a, b)
	a.tree.touch(1).set(a.links["b"], 0, pruned)
	a.SetRole("b", RoleQuiet)
	pump(t, start, a, b)
	if b.tree.origins[1].from() != nil {
		t.Fatal("still the parent")
	}
	mustPut(t, a, start, "2")
	a.Tick(start.Add(60 * time.Millisecond))
	received := b.Stats()
	pump(t, start.Add(60*time.Millisecond), a, b)
	if s := b.Stats(); s.OpsReceived != received.OpsReceived || s.IHavesReceived != received.IHavesReceived {
		t.Fatal("a quiet link carries ops")
	}
	a.SetRole("b", RoleTree)
	d := mustPut(t, a, start, "3")
	pump(t, start.Add(60*time.Millisecond), a, b)
	if !live(b, d) {
		t.Fatal("not pushed: the mark of the earlier role counts")
	}
}

// Small ops never wait for more than one frame, a frame holds one large op at
// most, and neither lane nor a session starves the others.
func TestLargeOpsHaveTheirLane(t *testing.T) {
	a, b := newReplicator("a", 1, Limits{}), newReplicator("b", 2, Limits{})
	linkUp(start, a, b)
	pump(t, start, a, b)
	for i := range 20 {
		putBytes(t, a, start, fmt.Sprint("large", i), 100_000)
	}
	sinceSmall, frames := 0, 0
	for i := range 400 {
		if i < 200 {
			for k := range 8 { // more than the link takes
				putBytes(t, a, start, fmt.Sprint("small", i, " ", k), 1000)
			}
		}
		queued, large, sent := a.links["b"].queue.refs, a.links["b"].large.refs, a.Stats().LargeSent
		if queued+large == 0 {
			break
		}
		if !carry(t, start, a, b, 4<<10) {
			t.Fatal("nothing moves")
		}
		frames++
		if a.Stats().LargeSent > sent+1 {
			t.Fatal("two large ops in a frame")
		}
		if sinceSmall++; queued == 0 || a.links["b"].queue.refs < queued {
			sinceSmall = 0
		}
		if sinceSmall > 1 {
			t.Fatalf("small ops wait for %d frames", sinceSmall)
		}
		if i == 50 && large > 0 {
			t.Fatalf("%d large ops starve", large)
		}
	}
	for carry(t, start, a, b, 4<<10) {
	}
	equalRoots(t, a, b)
	if s := a.Stats(); s.LargeSent != 20 || s.QueuedLarge != 0 {
		t.Fatalf("%d large ops sent", s.LargeSent)
	}
}

// An origin that nobody knows writes large values: each node gets each once,
// without waiting for an announcement to be due.
func TestLargeOpsDoNotFlood(t *testing.T) {
	f := newForest(t, 24, 4, Limits{})
	for k := range 5 {
		d := putBytes(t, f.nodes[2], f.now, fmt.Sprint("large", k), 60_000)
		if ms := f.spreads(d, 100); ms > 20 {
			t.Errorf("value %d took %d ms", k, ms)
		}
		f.run(60)
	}
	if s := f.total(); s.LargeSent != 5*23 {
		t.Errorf("%d copies of 5 large values at 23 nodes", s.LargeSent)
	}
	f.learn(9)
	f.run(1000)
	before := f.total()
	d := putBytes(t, f.nodes[9], f.now, "large", 60_000)
	ms := f.spreads(d, 100)
	f.run(100)
	if s := f.total(); s.LargeSent-before.LargeSent != 23 || s.GraftsSent != before.GraftsSent || ms > 8 {
		t.Errorf("on a proven tree: %d copies, %d grafts, %d ms", s.LargeSent-before.LargeSent, s.GraftsSent-before.GraftsSent, ms)
	}
}

// Replies to a GRAFT and what waits take turns.
func TestRepliesDoNotStarveTheQueue(t *testing.T) {
	a, b := newReplicator("a", 1, Limits{}), newReplicator("b", 2, Limits{})
	linkUp(start, a, b)
	pump(t, start, a, b)
	for i := range 1000 {
		mustPut(t, a, start, fmt.Sprint(i))
	}
	pump(t, start, a, b)
	e := crdt.NewEncoder()
	appendDots(e, kindGraft, crdt.Dots{{Inc: 1, Lo: 1, Hi: 1000}})
	if err := a.Step(start, "b", e.Bytes()); err != nil {
		t.Fatal(err)
	}
	d := mustPut(t, a, start, "new")
	carry(t, start, a, b, 1000)
	if !live(b, d) || len(a.links["b"].replies) == 0 {
		t.Fatalf("%d replies wait, the new op arrived: %v", len(a.links["b"].replies), live(b, d))
	}
}

// sharedBudget is over when its bound is passed.
type sharedBudget struct{ sum, most int }

func (b *sharedBudget) Add(n int) bool { b.sum += n; return b.sum > b.most }

func TestBudgetDropsTheFullest(t *testing.T) {
	shared := &sharedBudget{most: 4 << 20}
	node := func(name PeerID, inc crdt.Inc) *Replicator {
		return New(Config{Self: name, Budget: shared}, crdt.State{Inc: inc, Cells: crdt.NewMapCells()}, nil)
	}
	hog, modest := node("a", 1), node("a", 2)
	for _, r := range []*Replicator{hog, modest} {
		r.LinkUp(start, "b", RoleDirect)
		r.LinkUp(start, "c", RoleDirect)
		for _, p := range []PeerID{"b", "c"} {
			r.NextFrame(start, p, nil, 1<<16)
		}
	}
	drainLink := func(r *Replicator, p PeerID) {
		for ok := true; ok; {
			_, ok = r.NextFrame(start, p, nil, 1<<16)
		}
	}
	for i := 0; shared.sum < 3<<20; i++ {
		putBytes(t, hog, start, fmt.Sprint(i), 1000)
		drainLink(hog, "c")
	}
	putBytes(t, hog, start, "for both", 1000)
	for i := 0; shared.sum <= shared.most; i++ {
		if i == 20_000 {
			t.Fatal("never over: the modest one pays for the hog")
		}
		putBytes(t, modest, start, fmt.Sprint(i), 100)
		if i%2 == 0 {
			drainLink(modest, "c")
		}
	}
	if s := modest.Stats(); s.DropBudget != 0 && s.QueuedBytes < budgetFloor {
		t.Fatalf("the modest one lost %d ops", s.DropBudget)
	}
	hog.Tick(start.Add(50 * time.Millisecond))
	if l := hog.Links(); !l[0].Behind || l[1].Behind || l[1].QueuedOps != 1 {
		t.Fatalf("links %+v", l)
	}
	if s := hog.Stats(); s.DropBudget == 0 || s.DropQueue != 0 || s.Overflows != 1 {
		t.Fatalf("stats %+v", s)
	}
	for _, r := range []*Replicator{hog, modest} {
		if n := r.Stats().QueuedBytes; n == 0 {
			t.Fatal("nothing waits")
		}
		drainLink(r, "b")
		r.LinkDown("c")
		r.LinkDown("b")
	}
	if shared.sum != 0 {
		t.Fatalf("%d bytes are left on the budget", shared.sum)
	}
}

// Who asked for a pause waits for nothing that was announced before and meanwhile:
// it comes when the pause ends, and no session is opened for it.
func TestChokedNodeOpensNoSession(t *testing.T) {
	r := newReplicator("a", 1, Limits{})
	r.LinkUp(start, "b", RoleTree)
	r.LinkUp(start, "c", RoleTree)
	if err := r.Step(start, "b", opOf(9, 1)); err != nil {
		t.Fatal(err)
	}
	e := crdt.NewEncoder()
	e.Reset(nil)
	appendDots(e, kindIHave, crdt.Dots{{Inc: 9, Lo: 2, Hi: 2}})
	if err := r.Step(start, "c", e.Bytes()); err != nil {
		t.Fatal(err)
	}
	r.SetChoked(start, true)
	now := start
	for range 200 {
		now = now.Add(50 * time.Millisecond)
		r.Tick(now)
	}
	if len(r.links["c"].graft) > 0 {
		t.Error("asked for an op in a pause")
	}
	r.SetChoked(now, false)
	r.Tick(now)
	if err := r.Step(now, "b", opOf(9, 2)); err != nil {
		t.Fatal(err)
	}
	r.Tick(now.Add(10 * time.Second))
	if need := r.links["c"].need; need != needNone {
		t.Errorf("a session is wanted: need %d", need)
	}
}
