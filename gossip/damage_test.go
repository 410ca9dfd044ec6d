package gossip

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/meshkv/meshkv/crdt"
)

// loseAtOne is three replicas in sync, of which the first lost the cell of k7 out
// of its memory, after it was last scrubbed and before it will be.
func loseAtOne(t *testing.T) (a, b, c *Replicator, now time.Time) {
	t.Helper()
	a, b, c = newReplicator("a", 1, Limits{}), newReplicator("b", 2, Limits{}), newReplicator("c", 3, Limits{})
	linkUp(start, a, b, c)
	for i := range 100 {
		mustPut(t, a, start, fmt.Sprint("k", i))
	}
	now = run(t, start, 5*time.Second, a, b, c)
	m := a.replica.Cells().(*crdt.MapCells)
	m.Remove(m.ByKey("k7")[0])
	for i := range 5 {
		mustPut(t, b, now, fmt.Sprint("more", i))
		now = run(t, now, 5*time.Second, a, b, c)
	}
	return a, b, c, now
}

func holdsKey(r *Replicator, key string) bool { return len(r.replica.Cells().ByKey(key)) == 1 }

// A cell that failing memory lost at one node stays at the others. That node finds
// out, takes part in no session, and holds it again once it began anew; what only
// it holds is not lost with that, and what others deleted meanwhile does not come
// back.
func TestDamagedReplicaIsRefilled(t *testing.T) {
	a, b, c, now := loseAtOne(t)
	now = run(t, now, 16*time.Minute, a, b, c)
	if !a.Damaged() || b.Damaged() || c.Damaged() {
		t.Fatalf("damaged: %v, %v, %v", a.Damaged(), b.Damaged(), c.Damaged())
	}
	for _, r := range []*Replicator{b, c} {
		if !holdsKey(r, "k7") {
			t.Fatalf("%s lost k7 by the scrub of a", r.cfg.Self)
		}
	}
	a.LinkDown("b")
	a.LinkDown("c")
	alone := mustPut(t, a, now, "alone") // no peer hears of it
	if _, _, err := b.Delete(now, "k8", 1); err != nil {
		t.Fatal(err)
	}

	cells := crdt.NewMapCells()
	for _, cell := range a.Remains() {
		cells.Add(cell)
	}
	a = New(Config{Self: "a", Rand: rand.New(rand.NewPCG(4, 7))},
		crdt.State{Inc: 1, Seq: a.Replica().Seq(), Cells: cells}, cells.All())
	linkUp(now, a, b, c)
	if d := mustPut(t, a, now, "next"); d.Seq != alone.Seq+1 {
		t.Errorf("the first dot after is %v, the last before was %v", d, alone)
	}
	run(t, now, time.Minute, a, b, c)
	for _, r := range []*Replicator{a, b, c} {
		equalRoots(t, r, a)
		for key, want := range map[string]bool{"k7": true, "k8": false, "alone": true, "next": true, "more4": true} {
			if got := holdsKey(r, key); got != want {
				t.Errorf("%s holds %s: %v", r.cfg.Self, key, got)
			}
		}
		if r.Damaged() {
			t.Errorf("%s is damaged", r.cfg.Self)
		}
	}
}

// A damaged replica opens no session and refuses those of peers, which say that
// they differ.
func TestDamagedReplicaHasNoSessions(t *testing.T) {
	for name, begins := range map[string]bool{"it would begin": true, "the peer would begin": false} {
		t.Run(name, func(t *testing.T) {
			names := [2]PeerID{"z", "b"}
			if begins {
				names[0] = "a"
			}
			r, b := newReplicator(names[0], 1, Limits{}), newReplicator(names[1], 2, Limits{})
			mustPut(t, r, start, "mine")
			mustPut(t, b, start, "theirs")
			r.damaged = true
			linkUp(start, r, b)
			run(t, start, time.Minute, r, b)
			if s := r.Stats(); s.SessionsOpened+s.SessionsAccepted > 0 || b.Stats().SessionsDone > 0 {
				t.Errorf("%d sessions opened, %d accepted", s.SessionsOpened, s.SessionsAccepted)
			}
		})
	}
}
