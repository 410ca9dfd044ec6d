package gossip

import (
	"fmt"
	"testing"
	"time"

	"github.com/meshkv/meshkv/crdt"
)

// twins are two linked replicas in sync that hold n cells of each other.
func twins(t *testing.T, n int) (a, b *Replicator, now time.Time) {
	t.Helper()
	a, b = newReplicator("a", 1, Limits{}), newReplicator("b", 2, Limits{})
	for i := range n {
		mustPut(t, a, start, fmt.Sprint("a", i))
		mustPut(t, b, start, fmt.Sprint("b", i))
	}
	linkUp(start, a, b)
	now = run(t, start, 40*time.Second, a, b)
	equalRoots(t, a, b)
	return a, b, now
}

// haunt makes the trie of r differ from its cells in a way that no session can
// repair: it lists a cell that everybody knows to be dead.
func haunt(t *testing.T, now time.Time, r *Replicator) crdt.Dot {
	t.Helper()
	d := mustPut(t, r, now, "ghost")
	ghost := r.Replica().Cells().ByDot(d)
	if _, _, err := r.Delete(now, "ghost", 1); err != nil {
		t.Fatal(err)
	}
	r.data.Insert(ghost)
	return d
}

// untilAlarm is how long it takes until one of the two says that they diverge.
func untilAlarm(t *testing.T, now time.Time, busy bool, a, b *Replicator) (took time.Duration, all []Divergence) {
	t.Helper()
	for begin := now; now.Sub(begin) < 60*time.Second; {
		if busy {
			mustPut(t, a, now, fmt.Sprint("busy", now.UnixMilli()%10_000))
			mustPut(t, b, now, fmt.Sprint("busy", now.UnixMilli()%7_000))
			a.Tick(now)
			b.Tick(now)
			// One of each is always on its way when the summaries are made.
			carry(t, now, a, b, 64<<10)
			carry(t, now, b, a, 64<<10)
			now = now.Add(50 * time.Millisecond)
		} else {
			now = run(t, now, 50*time.Millisecond, a, b)
		}
		if all = append(a.Divergences(), b.Divergences()...); len(all) > 0 {
			return now.Sub(begin), all
		}
	}
	return 60 * time.Second, nil
}

func TestDivergenceIsSeen(t *testing.T) {
	for _, busy := range []bool{false, true} {
		t.Run(fmt.Sprintf("under writes %v", busy), func(t *testing.T) {
			a, b, now := twins(t, 100)
			ghost := haunt(t, now, a)
			took, all := untilAlarm(t, now, busy, a, b)
			if len(all) == 0 {
				t.Fatal("no alarm within 60 s")
			}
			t.Logf("after %s: %s", took, all[0].Reason)
			found := false
			for _, x := range all[0].Differs {
				found = found || x.Dot == ghost
			}
			if !found {
				t.Errorf("the sample %v lacks the cell that differs, %s", all[0].Differs, ghost)
			}
			if since := all[0].Since; since.Before(now) || since.After(now.Add(5*time.Second)) {
				t.Errorf("since %s, but it began at %s", since, now)
			}
			if n := a.Stats().DivergenceAlarms + b.Stats().DivergenceAlarms; n == 0 {
				t.Error("not counted")
			}
		})
	}
}

// Sums that do not fit the contents: sessions find nothing, and nothing changes.
func TestDivergenceWithoutDifferencesIsSeen(t *testing.T) {
	a, b, now := twins(t, 100)
	a.clock.sum.Update(77, crdt.Entry{Prefix: 1})
	took, all := untilAlarm(t, now, false, a, b)
	if len(all) == 0 || all[0].Reason != ReasonStill || len(all[0].Differs) != 0 {
		t.Fatalf("after %s: %+v", took, all)
	}
	t.Logf("after %s", took)
}

// A peer that always has other contents and never takes part in a session.
func TestDivergenceWithoutSessionsIsSeen(t *testing.T) {
	a, b, now := twins(t, 100)
	begin := now
	for i := range 60 * 20 {
		now = now.Add(50 * time.Millisecond)
		a.Tick(now)
		b.Tick(now)
		mustPut(t, b, now, fmt.Sprint("more", i))
		b.links["a"].queue.reset() // lost
		for {
			if _, ok := a.NextFrame(now, "b", nil, 64<<10); !ok { // lost, too
				break
			}
		}
		carry(t, now, b, a, 64<<10)
		if all := a.Divergences(); len(all) > 0 {
			if all[0].Reason != ReasonUnsettled || now.Sub(begin) < 45*time.Second {
				t.Fatalf("after %s: %+v", now.Sub(begin), all)
			}
			t.Logf("after %s", now.Sub(begin))
			return
		}
	}
	t.Fatal("no alarm within 60 s")
}

// A divergence that is over ends the alarm.
func TestDivergenceEnds(t *testing.T) {
	a, b, now := twins(t, 100)
	haunt(t, now, a)
	took, all := untilAlarm(t, now, false, a, b)
	if len(all) == 0 {
		t.Fatal("no alarm")
	}
	for _, c := range []*crdt.Cell{{Dot: all[0].Differs[0].Dot, Key: "ghost", Kind: crdt.KindRegister}} {
		a.data.Remove(c)
	}
	run(t, now.Add(took), 5*time.Second, a, b)
	equalRoots(t, a, b)
	if all := append(a.Divergences(), b.Divergences()...); len(all) > 0 {
		t.Fatalf("equal, and still %+v", all)
	}
}

// Steady writes, a link that stands still, a queue that overflows and a large
// session are no divergence.
func TestLagIsNoDivergence(t *testing.T) {
	t.Run("steady writes", func(t *testing.T) {
		a, b, now := twins(t, 100)
		if took, all := untilAlarm(t, now, true, a, b); len(all) > 0 {
			t.Errorf("after %s: %+v", took, all)
		}
	})
	t.Run("stalled link", func(t *testing.T) {
		a, b, now := twins(t, 100)
		mustPut(t, a, now, "k")
		for range 90 * 20 { // nothing gets through
			now = now.Add(50 * time.Millisecond)
			a.Tick(now)
			b.Tick(now)
		}
		if all := append(a.Divergences(), b.Divergences()...); len(all) > 0 {
			t.Errorf("%+v", all)
		}
		run(t, now, 10*time.Second, a, b)
		equalRoots(t, a, b)
	})
	t.Run("slow session", func(t *testing.T) {
		a, b, now := twins(t, 10)
		a.LinkDown("b")
		b.LinkDown("a")
		for i := range 40_000 {
			mustPut(t, a, now, fmt.Sprint("more", i))
		}
		linkUp(now, a, b)
		for range 90 * 10 { // 1 KiB in 100 ms: not through after 90 s
			now = now.Add(100 * time.Millisecond)
			a.Tick(now)
			b.Tick(now)
			carry(t, now, a, b, 1<<10)
			carry(t, now, b, a, 1<<10)
		}
		if b.Replica().Cells().Len() == a.Replica().Cells().Len() {
			t.Fatal("the session was not slow")
		}
		if all := append(a.Divergences(), b.Divergences()...); len(all) > 0 {
			t.Errorf("%+v", all)
		}
	})
}
