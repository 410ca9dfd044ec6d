package sim

import (
	"flag"
	"fmt"
	"testing"
	"time"

	"github.com/meshkv/meshkv/crdt"
	"github.com/meshkv/meshkv/gossip"
)

var (
	seeds = flag.Int("seeds", 100, "random schedules to run")
	first = flag.Uint64("seed", 0, "the first seed; 0 = a fresh one")
	churn = flag.Int("churn", 200, "leave, rejoin and create schedules to run (F2)")
)

func firstSeed(t *testing.T) uint64 {
	seed := *first
	if seed == 0 {
		seed = uint64(time.Now().UnixNano()) % 1_000_000_000
	}
	t.Logf("first seed %d", seed)
	return seed
}

func TestRandomSchedules(t *testing.T) {
	from := firstSeed(t)
	for seed := from; seed < from+uint64(*seeds); seed++ {
		if _, err := Random(seed).Run(); err != nil {
			t.Fatalf("%v\nreproduce: go test ./gossip/sim -run 'TestRandomSchedules$' -seed %d -seeds 1", err, seed)
		}
	}
}

func TestSameSeedSameTrace(t *testing.T) {
	from := firstSeed(t)
	hashes := make(map[uint64]bool)
	for seed := from; seed < from+5; seed++ {
		a, err := Random(seed).Run()
		if err != nil {
			t.Fatal(err)
		}
		b, err := Random(seed).Run()
		if err != nil {
			t.Fatal(err)
		}
		if a.TraceHash() != b.TraceHash() || a.Events != b.Events {
			t.Fatalf("seed %d: trace %x with %d events, then %x with %d", seed, a.TraceHash(), a.Events, b.TraceHash(), b.Events)
		}
		hashes[a.TraceHash()] = true
	}
	if len(hashes) != 5 {
		t.Fatalf("5 seeds gave %d traces", len(hashes))
	}
}

// A tick in which nothing is due does nothing, so that drivers may leave it out.
func TestIdleTicksDoNothing(t *testing.T) {
	from := firstSeed(t)
	for seed := from; seed < from+20; seed++ {
		p := Random(seed)
		all, err := p.Run()
		if err != nil {
			t.Fatal(err)
		}
		p.SkipIdle = true
		due, err := p.Run()
		if err != nil {
			t.Fatal(err)
		}
		if all.TraceHash() != due.TraceHash() {
			t.Fatalf("seed %d: trace %x with all ticks, %x with those that are due\nreproduce: go test ./gossip/sim -run IdleTicks -seed %d",
				seed, all.TraceHash(), due.TraceHash(), seed)
		}
	}
}

// lan is a small quiet cluster.
func lan(seed uint64, nodes int) Config {
	return Config{
		Seed: seed, Nodes: nodes, Latency: time.Millisecond, Jitter: time.Millisecond,
		Redial: 300 * time.Millisecond, Persist: 5 * time.Second,
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func shown(s *Sim, i int, key string) (values []string) {
	for _, c := range s.Replicator(i).Replica().Cells().ByKey(key) {
		values = append(values, string(c.Value))
	}
	return values
}

func TestBroadcastReachesAllWithoutSessions(t *testing.T) {
	s := New(lan(firstSeed(t), 5))
	must(t, s.RunFor(2*time.Second))
	var before int64
	for i := range 5 {
		before += s.Replicator(i).Stats().SessionsOpened
	}
	for i := range 200 {
		s.Put(i%5, fmt.Sprintf("k%d", i), "", []byte("v"))
		must(t, s.RunFor(5*time.Millisecond))
	}
	must(t, s.RunFor(20*time.Millisecond))
	for i := range 5 {
		st := s.Replicator(i).Stats()
		if st.Cells != 200 || st.OpsDuplicate != 0 || st.GraftsSent != 0 {
			t.Errorf("node %d: %d cells, %d duplicates, %d grafts", i, st.Cells, st.OpsDuplicate, st.GraftsSent)
		}
		before -= st.SessionsOpened
	}
	if before != 0 {
		t.Errorf("%d sessions were needed", -before)
	}
	must(t, s.Settle(time.Minute))
}

// A partition with writes and deletes on both sides heals to equal digests and
// exactly what was neither deleted nor overwritten by someone who had seen it.
func TestPartitionHeals(t *testing.T) {
	s := New(lan(firstSeed(t), 5))
	for i := range 100 {
		s.Put(i%5, fmt.Sprintf("k%d", i), "", []byte("old"))
	}
	must(t, s.Settle(time.Minute))
	s.Partition([]int{0, 1}, []int{2, 3, 4})
	must(t, s.RunFor(5*time.Second))
	for i := range 100 {
		key := fmt.Sprintf("k%d", i)
		switch i % 4 {
		case 0: // overwritten on both sides: siblings
			s.Put(0, key, "", []byte("left"))
			s.Put(2, key, "", []byte("right"))
		case 1: // deleted on one, overwritten on the other: the write lives
			s.Delete(1, key)
			s.Put(3, key, "", []byte("right"))
		case 2: // deleted on both
			s.Delete(0, key)
			s.Delete(4, key)
		}
	}
	s.Put(1, "new-left", "", []byte("left"))
	s.Put(4, "new-right", "", []byte("right"))
	must(t, s.RunFor(time.Minute))
	before := s.Now()
	must(t, s.Settle(5*time.Second)) // F6: no waiting for a timer of half a minute
	t.Logf("settled in %s", s.Now()-before)
	for n := range 5 {
		for i := range 100 {
			got := len(shown(s, n, fmt.Sprintf("k%d", i)))
			if want := []int{2, 1, 0, 1}[i%4]; got != want {
				t.Fatalf("node %d shows %d values of k%d, want %d", n, got, i, want)
			}
		}
		if len(shown(s, n, "new-left")) != 1 || len(shown(s, n, "new-right")) != 1 {
			t.Fatalf("node %d lacks a new key", n)
		}
	}
}

// A link that is too slow for what is written sends the newest of each key and
// not all of them.
func TestSlowLinkCoalesces(t *testing.T) {
	cfg := lan(firstSeed(t), 2)
	cfg.Bandwidth = 2_000
	s := New(cfg)
	must(t, s.RunFor(2*time.Second))
	for i := range 3_000 {
		s.Put(0, fmt.Sprintf("k%d", i%50), "", []byte("value"))
		if i%100 == 0 {
			must(t, s.RunFor(time.Millisecond))
		}
	}
	must(t, s.Settle(2*time.Minute))
	st := s.Replicator(0).Stats()
	t.Logf("%d ops sent for 3,000, %d coalesced", st.OpsSent, st.OpsCoalesced)
	if st.OpsCoalesced < 2_000 || st.OpsSent > 500 || st.Overflows != 0 {
		t.Fatalf("%d sent, %d coalesced, %d overflows", st.OpsSent, st.OpsCoalesced, st.Overflows)
	}
}

// A queue that overflows costs one session, and nothing is lost.
func TestOverflowCostsOneSession(t *testing.T) {
	cfg := lan(firstSeed(t), 2)
	cfg.Bandwidth = 20_000
	cfg.Limits = gossip.Limits{QueueRefs: 100}
	s := New(cfg)
	must(t, s.RunFor(3*time.Second))
	before := s.Replicator(0).Stats().SessionsOpened + s.Replicator(1).Stats().SessionsOpened
	for i := range 500 {
		s.Put(0, fmt.Sprintf("k%d", i), "", []byte("value"))
	}
	must(t, s.Settle(time.Minute))
	st := s.Replicator(0).Stats()
	sessions := st.SessionsOpened + s.Replicator(1).Stats().SessionsOpened - before
	if st.Overflows == 0 || sessions == 0 || sessions > 2 {
		t.Fatalf("%d overflows, %d sessions", st.Overflows, sessions)
	}
}

// Ops that a broken link loses are repaired by announcements of the others.
func TestLossAtLinkBreakIsGrafted(t *testing.T) {
	cfg := lan(firstSeed(t), 3)
	cfg.Redial = 10 * time.Second
	s := New(cfg)
	must(t, s.Settle(time.Minute))
	s.Break(0, 1)
	for i := range 20 {
		s.Put(0, fmt.Sprintf("k%d", i), "", []byte("v"))
	}
	must(t, s.RunFor(500*time.Millisecond))
	st := s.Replicator(1).Stats()
	if st.Cells != 20 || st.GraftsSent == 0 {
		t.Fatalf("%d cells, %d grafts", st.Cells, st.GraftsSent)
	}
	must(t, s.Settle(time.Minute))
}

func TestCatchUp(t *testing.T) {
	s := New(lan(firstSeed(t), 3))
	must(t, s.Settle(time.Minute))
	s.Partition([]int{2})
	must(t, s.RunFor(5*time.Second))
	for i := range 10_000 {
		s.Put(i%2, fmt.Sprintf("key-%d", i), "", make([]byte, 100))
		if i%100 == 0 {
			must(t, s.RunFor(10*time.Millisecond))
		}
	}
	must(t, s.RunFor(5*time.Second))
	s.Heal()
	must(t, s.RunFor(2*time.Second))
	if got := s.Replicator(2).Replica().Cells().Len(); got != 10_000 {
		t.Fatalf("%d cells after 2 s", got)
	}
	must(t, s.Settle(10*time.Second))
}

// A delete that overtakes its create, and a create right after a delete.
func TestF1DeleteBeforeCreate(t *testing.T) {
	cfg := lan(firstSeed(t), 3)
	cfg.Latency, cfg.Jitter = 20*time.Millisecond, 0
	s := New(cfg)
	must(t, s.Settle(time.Minute))
	s.Break(0, 2) // node 2 hears of the create later than of the delete
	s.Put(0, "k", "", []byte("one"))
	must(t, s.RunFor(25*time.Millisecond))
	if !s.Delete(1, "k") {
		t.Fatal("node 1 has nothing to delete")
	}
	must(t, s.RunFor(25*time.Millisecond))
	if got := shown(s, 2, "k"); len(got) != 0 {
		t.Fatalf("node 2 shows %q", got)
	}
	s.Put(1, "k", "", []byte("two"))
	must(t, s.RunFor(25*time.Millisecond))
	if got := shown(s, 2, "k"); len(got) != 1 || got[0] != "two" {
		t.Fatalf("node 2 shows %q at once after the new create", got)
	}
	must(t, s.Settle(time.Minute))
	for i := range 3 {
		if got := shown(s, i, "k"); len(got) != 1 || got[0] != "two" {
			t.Fatalf("node %d shows %q", i, got)
		}
	}
}

// Leaving, rejoining and creating again at once, at random.
func TestF2LeaveRejoinCreate(t *testing.T) {
	from := firstSeed(t)
	for seed := from; seed < from+uint64(*churn); seed++ {
		p := Random(seed)
		p.Keys, p.Steps, p.Pause = 3, 60, 15*time.Millisecond
		p.Put, p.Delete, p.Collect, p.Break, p.Partition, p.Heal, p.Restart, p.Backup = 10, 5, 0, 3, 1, 3, 4, 1
		p.Redial, p.Origins = 10*time.Millisecond, []Origin{Current, Current, Disk, Nothing}
		if _, err := p.Run(); err != nil {
			t.Fatalf("%v\nreproduce: go test ./gossip/sim -run TestF2 -seed %d -churn 1", err, seed)
		}
	}
}

// There are no tombstones to be collected, so a copy that was away for however
// long brings nothing back; and once everybody agrees, nothing is said.
func TestF3StaleCopyNeverReturns(t *testing.T) {
	s := New(lan(firstSeed(t), 4))
	for i := range 50 {
		s.Put(0, fmt.Sprintf("k%d", i), "", []byte("v"))
	}
	must(t, s.Settle(time.Minute))
	s.Partition([]int{3})
	for i := range 50 {
		s.Delete(i%3, fmt.Sprintf("k%d", i))
	}
	must(t, s.RunFor(2*time.Hour))
	must(t, s.Settle(time.Minute))
	for i := range 4 {
		st := s.Replicator(i).Stats()
		if st.Cells != 0 || st.Pending != 0 {
			t.Fatalf("node %d: %d cells, %d pending deaths", i, st.Cells, st.Pending)
		}
	}
	must(t, s.RunFor(time.Minute))
	before := s.Bytes
	must(t, s.RunFor(10*time.Minute))
	perLink := (s.Bytes - before) / 6 / 2 / 10 // a minute, one way
	t.Logf("%d bytes a minute each way on an idle link", perLink)
	if perLink > 100 {
		t.Fatalf("idle links carry %d bytes a minute", perLink)
	}
}

// Rolled-back, copied and empty directories resurrect nothing.
func TestF4RestoredBackupResurrectsNothing(t *testing.T) {
	for _, from := range []Origin{Backup, Nothing, Disk} {
		s := New(lan(firstSeed(t), 3))
		for i := range 50 {
			s.Put(i%3, fmt.Sprintf("k%d", i), "", []byte("v"))
		}
		must(t, s.Settle(time.Minute))
		s.Backup(2)
		for i := range 40 {
			s.Delete(i%3, fmt.Sprintf("k%d", i))
		}
		s.Put(1, "k0", "", []byte("revived"))
		must(t, s.Settle(time.Minute))
		must(t, s.RunFor(10*time.Minute))
		s.Restart(2, from)
		s.Put(2, "after", "", []byte("v"))
		must(t, s.Settle(time.Minute))
		if got := s.Replicator(2).Replica().Cells().Len(); got != 12 {
			t.Fatalf("origin %d: %d cells, want 12", from, got)
		}
	}
}

// A clock far ahead wins what is shown only against those who did not see it,
// and drags nobody's clock along.
func TestF14ClockFarAhead(t *testing.T) {
	s := New(lan(firstSeed(t), 3))
	must(t, s.Settle(time.Minute))
	s.nodes[0].skew = 365 * 24 * time.Hour
	s.Put(0, "k", "", []byte("future"))
	must(t, s.RunFor(time.Second))
	s.Put(1, "k", "", []byte("now"))
	must(t, s.RunFor(time.Second))
	for i := range 3 {
		if got := shown(s, i, "k"); len(got) != 1 || got[0] != "now" {
			t.Fatalf("node %d shows %q", i, got)
		}
	}
	for i := 1; i < 3; i++ {
		if ahead := s.Replicator(i).MaxHLC().WallMs() - s.now.UnixMilli(); ahead > 5_000 {
			t.Errorf("node %d's clock may follow to %d ms ahead", i, ahead)
		}
		if s.Replicator(i).Stats().OpsFarAhead == 0 {
			t.Errorf("node %d did not count it", i)
		}
	}
	must(t, s.Settle(time.Minute))
}

// A process that shares our Inc (a copied directory without a new one, a fault
// of the caller) is noticed, its write is kept, and ours go on under a new Inc.
func TestOwnDotNotIssuedHere(t *testing.T) {
	s := New(lan(firstSeed(t), 2))
	must(t, s.Settle(time.Minute))
	forged := crdt.Dot{Inc: s.nodes[1].inc, Seq: 7}
	now := s.nodes[0].clock(s.now)
	twin := gossip.New(gossip.Config{Self: "twin", Seed: keyspaceSeed}, crdt.State{Inc: forged.Inc, Seq: 6, Cells: crdt.NewMapCells()}, nil)
	twin.LinkUp(now, "n", gossip.RoleDirect)
	if _, err := twin.Put(now, crdt.Write{Key: "k", Kind: crdt.KindRegister}); err != nil {
		t.Fatal(err)
	}
	frame, _ := twin.NextFrame(now, "n", nil, 1<<16)
	r := s.Replicator(1)
	r.LinkUp(now, "twin", gossip.RoleDirect)
	must(t, r.Step(now, "twin", frame))
	if !r.Lost() || r.Stats().ForeignDots != 1 || r.Replica().Cells().ByDot(forged) == nil {
		t.Fatalf("lost %v, %d foreign dots", r.Lost(), r.Stats().ForeignDots)
	}
	if _, err := r.Put(now, crdt.Write{Key: "k", Kind: crdt.KindRegister}); err != gossip.ErrRenew {
		t.Fatalf("put under the old Inc: %v", err)
	}
	r.Renew(forged.Inc + 1)
	d, err := r.Put(now, crdt.Write{Key: "k", Kind: crdt.KindRegister})
	if err != nil || d != (crdt.Dot{Inc: forged.Inc + 1, Seq: 1}) {
		t.Fatalf("put under the new Inc: %v, %v", d, err)
	}
}
