package gossip

import (
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/meshkv/meshkv/crdt"
	"github.com/meshkv/meshkv/gossip/reconcile"
	"pgregory.net/rapid"
)

// traffic is replicators of a forest whose links take 1 to 20 ms, all of which
// write at random: a put each millisecond.
type traffic struct {
	*forest
	keys int
	due  [8][]flight // by step, of 5 ms
}

func (f *traffic) run(d time.Duration) {
	f.t.Helper()
	for range int(d / (5 * time.Millisecond)) {
		f.now = f.now.Add(5 * time.Millisecond)
		f.steps++
		for range 5 {
			mustPut(f.t, f.nodes[f.rng.IntN(len(f.nodes))], f.now, fmt.Sprint("key", f.rng.IntN(f.keys)))
		}
		arrive := f.due[f.steps%len(f.due)]
		f.due[f.steps%len(f.due)] = nil
		for _, x := range arrive {
			if err := f.nodes[x.to].Step(f.now, f.nodes[x.from].cfg.Self, x.frame); err != nil {
				f.t.Fatal(err)
			}
		}
		for i, r := range f.nodes {
			if f.steps%10 == i%10 {
				r.Tick(f.now)
			}
			r.Changes().Reset()
			for _, j := range f.peers[i] {
				for {
					frame, ok := r.NextFrame(f.now, f.nodes[j].cfg.Self, nil, 64<<10)
					if !ok {
						break
					}
					if f.lost == nil || !f.lost(i, j, frame) {
						at := (f.steps + 1 + (i+j)%4) % len(f.due)
						f.due[at] = append(f.due[at], flight{i, j, frame})
					}
				}
			}
		}
	}
}

func newTraffic(t testing.TB, keys int) *traffic {
	f := &traffic{forest: newForest(t, 24, 1, Limits{}), keys: keys}
	f.run(10 * time.Second)
	return f
}

func (f *traffic) counted() (sessions, summaries int64) {
	for _, r := range f.nodes {
		s := r.Stats()
		sessions += s.SessionsOpened + s.SessionsAccepted
		summaries += s.SummariesReceived
	}
	return sessions, summaries
}

// Ops that are on their way start no session, and one that was lost among them
// without anybody noticing does. MESH_LONG=1 takes a minute of them.
func TestCutsUnderWrites(t *testing.T) {
	f := newTraffic(t, 20_000)
	before, _ := f.counted()
	long := 15 * time.Second
	if os.Getenv("MESH_LONG") != "" {
		long = 60 * time.Second
	}
	f.run(long)
	after, summaries := f.counted()
	if after != before || summaries == 0 {
		t.Errorf("%d sessions by %d summaries", after-before, summaries)
	}
	for _, r := range f.nodes {
		if d := r.Divergences(); len(d) > 0 {
			t.Errorf("alarm: %+v", d)
		}
	}

	r := f.nodes[3]
	order := r.order
	r.order = nil // so that it goes nowhere, and into no ring
	lost := mustPut(t, r, f.now, "lost")
	r.order = order
	f.run(time.Second)
	if n := f.lacking(lost); n != len(f.nodes)-1 {
		t.Fatalf("%d nodes lack what was lost", n)
	}
	took := time.Second
	for ; f.lacking(lost) > 0 && took < 20*time.Second; took += 100 * time.Millisecond {
		f.run(100 * time.Millisecond)
	}
	if took > 10*time.Second {
		t.Errorf("what was lost was there %s later", took)
	}
	t.Logf("repaired after %s", took)
}

func take(t *rapid.T, r *Replicator, op *crdt.Op) {
	if err := r.Step(start, "c", encoded(op)); err != nil {
		t.Fatal(err)
	}
}

// A cut is the root of a replica that never heard of later ops, whatever the
// order in which those of different keys came.
func TestCutIsThePast(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		past, later := newReplicator("a", 9, Limits{}), newReplicator("b", 9, Limits{})
		w := []writer{newWriter(1), newWriter(2)}
		ops := make([][]*crdt.Op, 3) // by key
		base := start.UnixMilli() / stratumMs
		for i := range rapid.IntRange(1, 20).Draw(rt, "ops") {
			at := crdt.HLCAt((base + int64(i)) * stratumMs)
			x := rapid.IntRange(0, 1).Draw(rt, "writer")
			k := rapid.IntRange(0, len(ops)-1).Draw(rt, "key")
			key := fmt.Sprint("key", k)
			var made []*crdt.Op
			if rapid.IntRange(0, 3).Draw(rt, "delete") == 0 {
				made = w[x].Delete(key, at)
			} else {
				var err error
				if made, err = w[x].Put(crdt.Write{Key: key, Kind: crdt.KindRegister, HLC: at}); err != nil {
					rt.Fatal(err)
				}
			}
			for _, op := range made {
				w[1-x].Apply(op)
			}
			ops[k] = append(ops[k], made...)
		}
		last := base + rapid.Int64Range(-1, 20).Draw(rt, "last")
		for _, r := range []*Replicator{past, later} {
			r.LinkUp(start, "c", RoleQuiet)
		}
		for len(ops) > 0 {
			k := rapid.IntRange(0, len(ops)-1).Draw(rt, "arrives")
			if len(ops[k]) == 0 {
				ops = slices.Delete(ops, k, k+1)
				continue
			}
			op := ops[k][0]
			ops[k] = ops[k][1:]
			if op.HLC.WallMs()/stratumMs <= last {
				take(rt, past, op)
			}
			take(rt, later, op)
		}
		if got, want := later.cutAt(last), past.root(); got != want {
			rt.Fatalf("cut at %d: %+v, want %+v", last-base, got, want)
		}
	})
}

func TestBelow(t *testing.T) {
	e := crdt.Entry{Prefix: 5, Islands: []crdt.Interval{{Lo: 7, Hi: 9}, {Lo: 12, Hi: 12}}}
	for seq := uint64(1); seq < 15; seq++ {
		got := below(e, seq)
		want := crdt.NewClock()
		for s := uint64(1); s < seq; s++ {
			if e.Contains(s) {
				want.Add(crdt.Span{Inc: 1, Lo: s, Hi: s})
			}
		}
		if !got.Equal(want.Entry(1)) {
			t.Errorf("below %d: %+v, want %+v", seq, got, want.Entry(1))
		}
	}
}

func TestStrataAreBounded(t *testing.T) {
	r := newReplicator("a", 1, Limits{})
	now := start
	for i := range 2 * maxStrata {
		at := crdt.HLCAt(now.UnixMilli() + int64(i)*stratumMs)
		if _, err := r.Put(now, crdt.Write{Key: fmt.Sprint(i), Kind: crdt.KindRegister, HLC: at}); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(r.strata.all); n != maxStrata {
		t.Errorf("%d strata", n)
	}
	var s strata
	for i := range maxFirsts + 10 {
		s.note(0, crdt.Dot{Inc: crdt.Inc(i + 1), Seq: 1}, crdt.HLCAt(int64(i)), true, reconcile.Sum{})
	}
	if s.firsts > maxFirsts {
		t.Errorf("%d firsts", s.firsts)
	}
	now = now.Add(time.Duration(strataFor))
	if r.begin(now); r.lastCut() != nil || r.strata.firsts != 0 {
		t.Errorf("%d strata after %s", len(r.strata.all), time.Duration(strataFor))
	}
}
