package keyspace

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/crdt"
	"github.com/meshkv/meshkv/gossip"
	"github.com/meshkv/meshkv/storage"
)

type countWakes struct{ n int }

func (c *countWakes) Wake(string, gossip.PeerID) { c.n++ }

// seenState is everything that a tick may change.
type seenState struct {
	Stats   gossip.Stats
	Links   []gossip.LinkStats
	Total   gossip.LagSummary
	Lags    []gossip.OriginLag
	Data    string
	Wakes   int
	Queued  int64
	SweepAt time.Time
	Looks   int // due in lifetimes
	Hidden  map[crdt.Dot]crdt.Visibility
	Regrets int
	Settled map[crdt.Dot]int64
	Log     uint64
}

func stateOf(k *Keyspace) seenState {
	k.mu.Lock()
	defer k.mu.Unlock()
	data, clock := k.rep.Root()
	s := seenState{
		Stats: k.rep.Stats(), Links: k.rep.Links(), Data: hexSum(data) + hexSum(clock), Wakes: k.env.Waker.(*countWakes).n,
		Queued: k.env.queues.bytes.Load(), SweepAt: k.sweepAt, Looks: len(k.life.due), Hidden: maps.Clone(k.life.hidden),
		Regrets: len(k.mine.gone), Settled: maps.Clone(k.settling.since), Log: k.log.last.Load(),
	}
	s.Total, s.Lags = k.rep.Lags(allOrigins)
	return s
}

// dueEnv is the Env of one of two nodes that know each other.
func dueEnv(name string, inc crdt.Inc) *Env {
	env := &Env{
		Name: name, Inc: inc, Self: gossip.PeerID(name), Clock: NewClock(0), Owners: NewOwners(),
		Waker: &countWakes{}, Closed: func([]crdt.Inc) {}, Logger: slog.New(slog.DiscardHandler),
	}
	env.Owners.Set(incA, Owner{Name: "a"})
	env.Owners.Set(incB, Owner{Name: "b"})
	return env
}

// A tick before NextDue changes nothing.
func TestTicksBeforeNextDueDoNothing(t *testing.T) {
	skipped := 0
	for seed := range uint64(6) {
		synctest.Test(t, func(t *testing.T) { skipped += ticksBeforeNextDue(t, seed) })
	}
	if skipped < 5000 {
		t.Errorf("%d ticks were not due, too few to tell anything", skipped)
	}
}

func ticksBeforeNextDue(t *testing.T, seed uint64) (skipped int) {
	rng := rand.New(rand.NewPCG(seed, 1))
	a := Open("ks", dueEnv("a", incA), storage.KeyspaceState{}, time.Now())
	b := Open("ks", dueEnv("b", incB), storage.KeyspaceState{}, time.Now())
	a.SetSettleAfter(20 * time.Second)
	both := []*Keyspace{a, b}
	linked, stalled := false, false
	move := func(from, to *Keyspace) bool {
		frame, ok := from.NextFrame(time.Now(), to.env.Self, nil, 64<<10)
		if ok {
			if err := to.Step(time.Now(), from.env.Self, frame); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
		}
		return ok
	}
	moveAll := func() {
		for moved := linked && !stalled; moved; {
			moved = move(a, b)
			moved = move(b, a) || moved
		}
	}
	act := func() {
		k, key := both[rng.IntN(2)], fmt.Sprint("k", rng.IntN(8))
		switch rng.IntN(7) {
		case 0, 1:
			put(t, k, key, "v", nil)
		case 2:
			put(t, k, key, "v", &client.PutOptions{TTL: time.Duration(rng.IntN(20_000)) * time.Millisecond})
		case 3:
			put(t, k, key, "v", &client.PutOptions{Ephemeral: true})
		case 4:
			if _, err := k.Delete(t.Context(), key, nil); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
		case 5:
			if linked = !linked; linked {
				a.LinkUp(time.Now(), "b", gossip.RoleDirect)
				b.LinkUp(time.Now(), "a", gossip.RoleTree)
			} else {
				a.LinkDown(time.Now(), "b")
				b.LinkDown(time.Now(), "a")
			}
		case 6:
			stalled = !stalled
		}
	}
	for range 3000 {
		time.Sleep(50 * time.Millisecond)
		if rng.IntN(60) == 0 {
			for range 1 + rng.IntN(4) {
				act()
			}
		}
		moveAll()
		for _, k := range both {
			now := time.Now()
			if due := k.NextDue(now); due.After(now) {
				before := stateOf(k)
				k.Tick(now)
				after := stateOf(k)
				if stalled { // ticks wake writers again that are awake
					after.Wakes = before.Wakes
				}
				if !reflect.DeepEqual(before, after) {
					t.Fatalf("seed %d: a tick %v before NextDue had an effect:\n%+v\n%+v", seed, due.Sub(now), before, after)
				}
				skipped++
			} else {
				k.Tick(now)
			}
		}
		moveAll()
	}
	return skipped
}

// What another keyspace of the node queues may cost this one its queue.
func TestNextDueForesees(t *testing.T) {
	t.Run("budget", func(t *testing.T) {
		k := Open("ks", dueEnv("a", incA), storage.KeyspaceState{}, time.Now())
		k.LinkUp(time.Now(), "b", gossip.RoleDirect)
		for i := range 40 {
			put(t, k, fmt.Sprint(i), string(make([]byte, MaxValueBytes)), nil)
		}
		now := time.Now()
		k.Tick(now)
		k.env.queues.Add(queueBytes)
		if due := k.NextDue(now); due.After(now) {
			t.Errorf("over the budget of the node, the next tick is due in %v", due.Sub(now))
		}
		if k.Tick(now); k.Stats().DropBudget != 40 {
			t.Errorf("%d ops dropped, want 40", k.Stats().DropBudget)
		}
	})
	t.Run("choked", func(t *testing.T) {
		s := storage.OpenMemory()
		if _, err := s.Load(t.Context()); err != nil {
			t.Fatal(err)
		}
		env := dueEnv("a", incA)
		env.Clock.bound.Store(uint64(crdt.HLCAt(1 << 45)))
		env.Writer = storage.NewWriter(s, &storage.WriterOptions{MaxBacklog: 1 << 20})
		k := Open("ks", env, storage.KeyspaceState{}, time.Now())
		for i := 0; !env.Writer.Overloaded(); i++ {
			put(t, k, fmt.Sprint(i), string(make([]byte, 1000)), nil)
		}
		if err := k.Throttle(t.Context()); err != nil {
			t.Fatal(err)
		}
		now := time.Now()
		k.Tick(now)
		if due := k.NextDue(now); due.After(now) {
			t.Errorf("while the disk is behind, the next tick is due in %v", due.Sub(now))
		}
	})
	t.Run("dropped", func(t *testing.T) {
		k := Open("ks", dueEnv("a", incA), storage.KeyspaceState{}, time.Now())
		if err := k.Drop(t.Context()); err != nil {
			t.Fatal(err)
		}
		now := time.Now()
		if due := k.NextDue(now); !due.After(now) {
			t.Errorf("a dropped keyspace is due at %v, now is %v", due, now)
		}
	})
}

// Whatever the clock's state, NextExtend is the first moment at which ExtendDue
// holds, within the time that one bound lasts.
func TestNextExtend(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const nowMs = int64(1_000_000)
		c := NewClock(0)
		c.last.Store(uint64(crdt.HLCAt(nowMs - rapid.Int64Range(-100, 5000).Draw(t, "ago"))))
		c.bound.Store(uint64(crdt.HLCAt(nowMs + rapid.Int64Range(-5000, 5000).Draw(t, "ahead"))))
		at, ok := c.NextExtend(time.UnixMilli(nowMs))
		for ms := nowMs; ms < nowMs+6000; ms++ {
			if c.ExtendDue(time.UnixMilli(ms)) {
				if !ok || at.UnixMilli() != ms {
					t.Fatalf("due %d ms from now; got %v, %v", ms-nowMs, at.UnixMilli()-nowMs, ok)
				}
				return
			}
		}
		if ok {
			t.Fatalf("never due; got %d ms from now", at.UnixMilli()-nowMs)
		}
	})
}

// A call that comes after NextDue was asked, but before the sleep, wakes.
func TestDozeLosesNoCall(t *testing.T) {
	env := dueEnv("a", incA)
	env.Doze = NewDoze(time.Hour)
	k := Open("ks", env, storage.KeyspaceState{}, time.Now())
	now := time.Now()
	woken := func() bool { return env.Doze.woken.Stop() } // the timer was set
	for _, c := range []struct {
		name string
		call func()
	}{
		{"put", func() { put(t, k, "k", "v", &client.PutOptions{TTL: time.Minute}) }},
		{"delete", func() {
			if _, err := k.Delete(t.Context(), "k", nil); err != nil {
				t.Fatal(err)
			}
		}},
		{"link up", func() { k.LinkUp(now, "b", gossip.RoleDirect) }},
		{"frame", func() { k.NextFrame(now, "b", nil, 64<<10) }},
		{"step", func() {
			if err := k.Step(now, "b", nil); err != nil {
				t.Fatal(err)
			}
		}},
		{"role", func() { k.SetRole(now, "b", gossip.RoleQuiet) }},
		{"link down", func() { k.LinkDown(now, "b") }},
		{"owner", func() { k.OwnerChanged(now, incB) }},
		{"close", func() { k.CloseInc(now, incB) }},
		{"fuse", func() { k.OpenFuse(now, time.Minute) }},
		{"renew", func() { k.Renew(now, incA+1) }},
		{"open", func() { Open("other", env, storage.KeyspaceState{}, now) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			env.Doze.Wake()
			c.call()
			if woken() {
				t.Error("a call woke whoever is awake")
			}
			env.Doze.Until(now, now.Add(time.Hour), func() time.Time {
				c.call()
				return now.Add(time.Minute)
			})
			if !woken() {
				t.Error("a call while it fell asleep did not wake it")
			}
			if c.call(); woken() {
				t.Error("a second call woke it again")
			}
		})
	}
	if at := env.Doze.Until(now, now.Add(time.Hour), func() time.Time { return now }); at != now {
		t.Errorf("what is due now waits until %v", at)
	}
	if put(t, k, "k", "v", nil); woken() {
		t.Error("a call woke a sleeper that stays awake")
	}
}

// A sleeper that nothing is due for is still there in time for what calls bring.
func TestDozeInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		env := dueEnv("a", incA)
		env.Doze = NewDoze(50 * time.Millisecond)
		var all []*Keyspace
		for i := range 3 {
			all = append(all, Open(fmt.Sprint("ks", i), env, storage.KeyspaceState{}, time.Now()))
		}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		ticks := 0
		wg.Go(func() { ticks = sleeper(ctx, env.Doze, all) })
		time.Sleep(time.Minute)
		for i := range 200 {
			time.Sleep(time.Duration(i*7919%1500) * time.Millisecond)
			k := all[i%len(all)]
			ttl := time.Duration(50+i*13%300) * time.Millisecond
			w, err := k.Watch(ctx, "k", &client.WatchOptions{UpdatesOnly: true})
			if err != nil {
				t.Fatal(err)
			}
			put(t, k, "k", "v", &client.PutOptions{TTL: ttl})
			start := time.Now()
			for ev := next(t, w); ev.Type != client.EventDelete || ev.Reason != client.ReasonExpired; {
				ev = next(t, w)
			}
			if late := time.Since(start) - ttl; late > 50*time.Millisecond {
				t.Errorf("round %d: told of the expiry %v late", i, late)
			}
			w.Close()
		}
		cancel()
		wg.Wait()
		if ticks > 2500 { // of about 5500 without sleep
			t.Errorf("%d ticks, too many for a sleeper", ticks)
		}
	})
}

// sleeper ticks all until ctx ends, as a node does.
func sleeper(ctx context.Context, d *Doze, all []*Keyspace) (ticks int) {
	const every = 50 * time.Millisecond
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ticks
		case <-d.Woken():
		case <-timer.C:
		}
		d.Wake()
		now := time.Now()
		for _, k := range all {
			k.Tick(now)
		}
		ticks++
		next := d.Until(now.Add(every), now.Add(time.Second), func() time.Time {
			return slices.MinFunc(all, func(a, b *Keyspace) int { return a.NextDue(now).Compare(b.NextDue(now)) }).NextDue(now)
		})
		timer.Reset(time.Until(next))
	}
}
