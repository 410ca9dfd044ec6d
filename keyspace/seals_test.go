package keyspace

import (
	"context"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/meshkv/meshkv/crdt"
	"github.com/meshkv/meshkv/gossip"
	"github.com/meshkv/meshkv/gossip/reconcile"
	"github.com/meshkv/meshkv/storage"
)

// sealer runs the seals of both nodes of a pair over what a directory would hold.
type sealer struct {
	p       *pair
	a, b    Seals
	surveys map[string]Published
	agreed  crdt.Agreement
}

func (s *sealer) step(k *Keyspace, seals *Seals, decides bool, other *Keyspace) {
	v := SealView{
		OwnInc: k.env.Writing(), Decides: decides, Surveys: s.surveys, Agreed: s.agreed,
		Members: map[string]crdt.Inc{other.env.Name: other.env.Writing()},
	}
	v.Own, v.OwnOK = k.Survey(false)
	out := seals.Step(s.p.now, v)
	if out.Withdraw {
		delete(s.surveys, k.env.Name)
	}
	if out.Publish {
		s.surveys[k.env.Name] = Published{k.env.Writing(), out.Survey}
	}
	if out.Record {
		s.agreed = out.Agreed
	}
	if out.Apply {
		k.Agree(s.p.now, s.agreed)
	}
}

func (s *sealer) run(d time.Duration) {
	for end := s.p.now.Add(d); s.p.now.Before(end); {
		s.p.run(time.Second)
		s.step(s.p.a, &s.a, true, s.p.b)
		s.step(s.p.b, &s.b, false, s.p.a)
	}
}

// Old incarnations are sealed when both members hold the same of them, and retired
// if none of their cells lives; who comes back after that with cells of theirs
// brings none back, and is told which it lost.
func TestF4SealAndRetire(t *testing.T) {
	p := newPair(t)
	s := &sealer{p: p, surveys: map[string]Published{}}
	put(t, p.a, "x", "old", nil)
	old := p.a.index.ByKey("x")[0]
	put(t, p.b, "y", "stays", nil)
	p.run(5 * time.Second)

	next := map[*Keyspace]crdt.Inc{p.a: crdt.NewInc(p.now.UnixMilli(), 1), p.b: crdt.NewInc(p.now.UnixMilli(), 2)}
	for k, inc := range next {
		for _, at := range []*Keyspace{p.a, p.b} {
			at.env.Owners.Set(inc, Owner{Name: k.env.Name})
		}
		k.env.SetInc(inc)
		k.Renew(p.now, inc)
	}
	for _, k := range []*Keyspace{p.a, p.b} {
		k.CloseInc(p.now, incA)
		k.CloseInc(p.now, incB)
	}
	put(t, p.b, "x", "new", nil)
	s.run(50 * time.Second)
	if s.agreed != (crdt.Agreement{}) {
		t.Fatal("agreed before the surveys had settled")
	}
	s.run(5 * time.Minute)
	for _, k := range []*Keyspace{p.a, p.b} {
		clock := k.rep.Replica().Clock()
		if !clock.Retired(incA) || !clock.Entry(incB).Sealed || clock.Retired(incB) {
			t.Fatalf("%s: retired %v, %v, sealed %+v; want only the first retired and the second sealed",
				k.env.Name, clock.Retired(incA), clock.Retired(incB), clock.Entry(incB))
		}
		if h := k.Horizon(); h >= next[p.a] || h.BirthMs() < p.now.Add(-retireAfter-time.Hour).UnixMilli() {
			t.Errorf("%s: horizon %v", k.env.Name, h)
		}
	}
	for _, k := range []*Keyspace{p.a, p.b} { // what a restarted node would compute
		_, kept := k.rep.Root()
		if fresh := reconcile.ClockRoot(xxhash.Sum64String("ks"), k.rep.Replica().Clock()); kept != fresh {
			t.Errorf("%s: the sum of the clock is %v, should be %v", k.env.Name, kept, fresh)
		}
	}
	da, _ := p.a.Digest(t.Context())
	db, _ := p.b.Digest(t.Context())
	if da != db {
		t.Errorf("digests differ: %+v, %+v", da, db)
	}

	// A copy of a's directory from before all that, beside what it alone had.
	lone := &crdt.Cell{Key: "z", Kind: crdt.KindRegister, Dot: crdt.Dot{Inc: 5, Seq: 1}, HLC: 1, Value: []byte("z")}
	st := storage.KeyspaceState{Cells: []*crdt.Cell{old, lone}, Clock: crdt.NewClock()}
	st.Clock.Set(incA, crdt.Entry{Prefix: 1})
	st.Clock.Set(5, crdt.Entry{Prefix: 1})
	env := &Env{
		Name: "c", Inc: crdt.NewInc(p.now.UnixMilli(), 3), Self: gossip.PeerID("b"), Clock: NewClock(0), Owners: NewOwners(),
		Waker: noWaker{}, Closed: func([]crdt.Inc) {}, Logger: p.a.env.Logger,
	}
	lost := 0
	env.Rejected = func(_ string, cells []*crdt.Cell) { lost += len(cells) }
	p.cut()
	p.b = Open("ks", env, st, p.now)
	p.link()
	p.run(time.Minute)
	p.check("after the return", map[string]string{"x": "new", "y": "stays", "z": ""})
	if lost != 2 || p.b.Rejected() != 2 {
		t.Errorf("%d cells reported, want 2", lost)
	}
	if !p.b.rep.Replica().Clock().Equal(p.a.rep.Replica().Clock()) {
		t.Error("clocks differ")
	}
}

// The horizon and the sealed bits survive a restart.
func TestHorizonIsStored(t *testing.T) {
	env := testEnv()
	s := withStore(t, env)
	k := openEmpty(env)
	put(t, k, "a", "1", nil)
	now := time.Now()
	k.drive(now, func() { k.rep.CloseInc(77) })
	own, ok := k.Survey(true)
	if !ok || !k.Agree(now, crdt.Agreement{Digest: own.Digest, Horizon: 100}) {
		t.Fatal("no agreement with itself")
	}
	if err := env.Writer.Wait(context.Background(), k.ticket); err != nil {
		t.Fatal(err)
	}
	st, err := s.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	clock := st.Keyspaces["ks"].Clock
	if clock.Horizon() != 100 || !clock.Retired(77) || !clock.Equal(k.rep.Replica().Clock()) {
		t.Errorf("got horizon %v, retired %v", clock.Horizon(), clock.Retired(77))
	}
}

// Who decides waits for every member that is listed, under the incarnation that
// is listed; and what was published is withdrawn as soon as it is no longer true.
func TestSealsSteps(t *testing.T) {
	now := time.Now()
	young := crdt.NewInc(now.UnixMilli(), 1)
	own := crdt.Survey{Digest: 7, Floor: young}
	view := func() SealView {
		return SealView{
			Own: own, OwnOK: true, OwnInc: young, Decides: true,
			Members: map[string]crdt.Inc{"b": young + 1}, Closed: map[crdt.Inc]bool{},
			Surveys: map[string]Published{"b": {young + 1, own}},
		}
	}
	settled := func() *Seals {
		s := &Seals{}
		s.Step(now, view())
		if out := s.Step(now.Add(surveySettles-time.Second), view()); out != (SealStep{}) {
			t.Fatalf("before it has settled: got %+v", out)
		}
		if out := s.Step(now.Add(surveySettles), view()); !out.Publish || out.Survey != own {
			t.Fatalf("settled: got %+v, want it published", out)
		}
		return s
	}
	later := now.Add(2 * surveySettles)
	for name, c := range map[string]struct {
		change func(*SealView)
		record bool
	}{
		"all alike":          {func(*SealView) {}, true},
		"no survey":          {func(v *SealView) { v.Surveys = nil }, false},
		"another survey":     {func(v *SealView) { v.Surveys["b"] = Published{young + 1, crdt.Survey{Digest: 8, Floor: young}} }, false},
		"of a former life":   {func(v *SealView) { v.Members["b"] = young + 2 }, false},
		"not known who":      {func(v *SealView) { v.Members["b"] = 0 }, false},
		"closed, and listed": {func(v *SealView) { v.Closed[young+1] = true }, false},
		"another decides":    {func(v *SealView) { v.Decides = false }, false},
		"recorded already":   {func(v *SealView) { v.Agreed, _ = v.decide(later, retireAfter) }, false},
	} {
		v := view()
		c.change(&v)
		if out := settled().Step(later, v); out.Record != c.record {
			t.Errorf("%s: got %+v, want record %v", name, out, c.record)
		} else if c.record && (out.Agreed.Digest != 7 || out.Agreed.Horizon.BirthMs() > later.Add(-retireAfter).UnixMilli()) {
			t.Errorf("%s: got %+v, want a horizon 30 days ago", name, out.Agreed)
		}
	}
	own.Digest = 0
	if out := settled().Step(later, view()); out.Record {
		t.Errorf("nothing is closed: got %+v, want no agreement", out)
	}
	own.Digest = 7
	v := view()
	v.Own.Digest++
	if out := settled().Step(later, v); !out.Withdraw || out.Publish || out.Record {
		t.Errorf("changed: got %+v, want it withdrawn", out)
	}
	v = view()
	v.OwnOK = false
	if out := settled().Step(later, v); !out.Withdraw {
		t.Errorf("lost: got %+v, want it withdrawn", out)
	}
	v = view()
	v.Agreed = crdt.Agreement{Digest: 7, Horizon: 9}
	s := settled()
	if out := s.Step(later, v); !out.Apply {
		t.Errorf("agreed: got %+v, want it applied", out)
	}
	if out := s.Step(later, v); out.Apply {
		t.Error("applied twice")
	}
}
