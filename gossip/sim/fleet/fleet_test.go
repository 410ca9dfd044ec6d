package fleet

import (
	"flag"
	"testing"
	"time"
)

var seed = flag.Uint64("seed", 0, "the seed of all runs; 0 = a fresh one")

func fleetSeed(t *testing.T) uint64 {
	s := *seed
	if s == 0 {
		s = uint64(time.Now().UnixNano()) % 1_000_000_000
	}
	t.Logf("-seed %d", s)
	return s
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func settled(t *testing.T, f *Fleet, limit time.Duration) {
	t.Helper()
	_, err := f.Settle(limit)
	must(t, err)
}

// small is a fleet in which links are sparse and a scenario takes no minute.
func small(t *testing.T, nodes int) Config {
	return Config{Seed: fleetSeed(t), Nodes: nodes, Zones: 3, Keys: 30, ValueBytes: 20}
}

// Whatever goes wrong, the ledger is right afterwards.
func TestScenarios(t *testing.T) {
	for _, s := range Scenarios(2) {
		t.Run(s.Name, func(t *testing.T) {
			t.Parallel()
			out, err := s.Run(small(t, 16), 2*time.Minute)
			must(t, err)
			if out.Spread.Ops == 0 || out.Spread.P50 == 0 {
				t.Errorf("nothing was measured: %+v", out.Spread)
			}
		})
	}
}

func TestSameSeedSameTrace(t *testing.T) {
	cfg := small(t, 200)
	cfg.LAN = DefaultLAN
	cfg.LAN.Loss = .01
	play := func() *Fleet {
		f := New(cfg)
		must(t, f.RunFor(2*time.Second))
		for i := range 6 {
			f.Put(i, Key(i), []byte("value"))
			f.Stop(10+i, End(i%3))
			must(t, f.RunFor(300*time.Millisecond))
			f.Start(10+i, i == 2)
			f.Join()
		}
		settled(t, f, time.Minute)
		return f
	}
	a, b := play(), play()
	if a.TraceHash() != b.TraceHash() || a.Events != b.Events {
		t.Errorf("seed %d: trace %x with %d events, then %x with %d", cfg.Seed, a.TraceHash(), a.Events, b.TraceHash(), b.Events)
	}
	cfg.Seed++
	cfg.Nodes = 20
	c := play()
	cfg.Seed++
	if c.TraceHash() == play().TraceHash() {
		t.Errorf("seeds %d and %d give one trace", cfg.Seed-1, cfg.Seed)
	}
}

// A partition lets nothing through, one way or the other, and ends.
func TestPartitionSeparates(t *testing.T) {
	f := New(small(t, 30))
	must(t, f.RunFor(3*time.Second))
	var side []int
	for i := range 10 {
		side = append(side, i)
	}
	f.Partition(side)
	must(t, f.RunFor(10*time.Second))
	probe := f.Watch(f.Put(0, Key(0), []byte("one side")))
	f.Put(20, Key(1), []byte("the other"))
	must(t, f.RunFor(time.Minute))
	if n := f.Differing(); n != 10 || len(probe.Delays) != 9 {
		t.Errorf("%d nodes differ, want the 10 of one side; the put reached %d others, want 9", n, len(probe.Delays))
	}
	f.Heal()
	settled(t, f, time.Minute)
}

// Neighbours go when they are seen to fail, and come back.
func TestLinksFollowTheView(t *testing.T) {
	f := New(small(t, 40))
	must(t, f.RunFor(3*time.Second))
	neighbour := f.nodes[0].wanted[0]
	f.Stop(int(neighbour), Power)
	must(t, f.RunFor(failureMin-time.Millisecond))
	if !f.sees(0, neighbour) {
		t.Error("a failure was seen before it could be detected")
	}
	must(t, f.RunFor(20*time.Second))
	if f.sees(0, neighbour) || f.nodes[0].links[neighbour] != nil {
		t.Error("a failed node is still a neighbour")
	}
	for _, n := range f.nodes {
		if n.rep != nil && n.rep.Stats().Links < 4 {
			t.Errorf("%s has %d links", n.self, n.rep.Stats().Links)
		}
	}
	f.Start(int(neighbour), false)
	must(t, f.RunFor(20*time.Second))
	if !f.sees(0, neighbour) || f.nodes[neighbour].rep.Stats().Links < 4 {
		t.Error("the node did not come back")
	}
}

// Time that is skipped is time to the nodes.
func TestSkip(t *testing.T) {
	f := New(small(t, 20))
	must(t, f.RunFor(5*time.Second))
	before := f.Put(3, Key(0), []byte("before"))
	settled(t, f, time.Minute)
	f.Skip(25 * time.Hour)
	f.Put(4, Key(0), []byte("after"))
	settled(t, f, time.Minute)
	for _, c := range f.Replicator(7).Replica().Cells().ByKey(Key(0)) {
		if c.Dot == before || c.HLC.WallMs() < (epoch+int64(25*time.Hour))/int64(time.Millisecond) {
			t.Errorf("cell %s of %d ms", c.Dot, c.HLC.WallMs())
		}
	}
}

// Once a tree is learnt an op crosses the network once for each node.
func TestLearnedTreeCarriesOneCopy(t *testing.T) {
	copies, err := Learning(small(t, 64), 8)
	must(t, err)
	if copies[0] < 2 {
		t.Errorf("%.2f copies of the first op: was there nothing to learn?", copies[0])
	}
	for i, c := range copies[3:] {
		if c > 1.05 {
			t.Errorf("op %d: %.2f copies per node of %.2f", i+4, c, copies)
		}
	}
}
