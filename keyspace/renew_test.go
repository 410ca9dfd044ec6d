package keyspace

import (
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/crdt"
	"github.com/meshkv/meshkv/gossip"
	"github.com/meshkv/meshkv/storage"
)

// A pair is two nodes that hold one keyspace, on a clock of their own.
type pair struct {
	t      *testing.T
	now    time.Time
	a, b   *Keyspace
	lostA  int
	linked bool
}

const (
	incA = crdt.Inc(1 << 22)
	incB = crdt.Inc(2 << 22)
)

func newPair(t *testing.T) *pair {
	p := &pair{t: t, now: time.Now()}
	open := func(name string, inc crdt.Inc) *Keyspace {
		env := &Env{
			Name: name, Inc: inc, Self: gossip.PeerID(name), Clock: NewClock(0), Owners: NewOwners(),
			Waker: noWaker{}, Closed: func([]crdt.Inc) {}, Logger: slog.New(slog.DiscardHandler),
		}
		env.Owners.Set(incA, Owner{Name: "a"})
		env.Owners.Set(incB, Owner{Name: "b"})
		return Open("ks", env, storage.KeyspaceState{}, p.now)
	}
	p.a, p.b = open("a", incA), open("b", incB)
	p.a.env.Lost = func() { p.lostA++ }
	p.link()
	return p
}

func (p *pair) link() {
	p.a.LinkUp(p.now, "b", gossip.RoleDirect)
	p.b.LinkUp(p.now, "a", gossip.RoleDirect)
	p.linked = true
}

func (p *pair) cut() {
	p.a.LinkDown(p.now, "b")
	p.b.LinkDown(p.now, "a")
	p.linked = false
}

// run lets time pass in steps of 100 ms, and moves every frame at once.
func (p *pair) run(d time.Duration) {
	p.t.Helper()
	for end := p.now.Add(d); p.now.Before(end); p.now = p.now.Add(100 * time.Millisecond) {
		p.a.Tick(p.now)
		p.b.Tick(p.now)
		for moved := p.linked; moved; {
			moved = p.move(p.a, "b", p.b, "a")
			moved = p.move(p.b, "a", p.a, "b") || moved
		}
	}
}

func (p *pair) move(from *Keyspace, to gossip.PeerID, dest *Keyspace, name gossip.PeerID) bool {
	frame, ok := from.NextFrame(p.now, to, nil, 64<<10)
	if ok {
		if err := dest.Step(p.now, name, frame); err != nil {
			p.t.Fatal(err)
		}
	}
	return ok
}

func get(t *testing.T, k *Keyspace, key string) string {
	t.Helper()
	e, err := k.Get(t.Context(), key, nil)
	if errors.Is(err, client.ErrNotFound) {
		return ""
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(e.Value)
}

func (p *pair) check(when string, want map[string]string) {
	p.t.Helper()
	for key, value := range want {
		for _, k := range []*Keyspace{p.a, p.b} {
			if got := get(p.t, k, key); got != value {
				p.t.Errorf("%s: %s shows %q at %s, want %q", when, k.env.Name, got, key, value)
			}
		}
	}
}

// An owner that was closed by mistake gets back what it had bound to itself,
// whether the cells were collected before it heard of that or not, under the
// incarnation that it takes. What was deleted, or taken over by somebody else,
// stays so, and nothing of the old one is left.
func TestRenew(t *testing.T) {
	for name, cutOff := range map[string]bool{"linked": false, "cut off": true} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t)
			bound := &client.PutOptions{Ephemeral: true}
			for _, key := range []string{"svc/1", "svc/2", "leader", "gone", "late", "dropped"} {
				put(t, p.a, key, "a", bound)
			}
			put(t, p.a, "plain", "a", nil)
			put(t, p.a, "ttl", "a", &client.PutOptions{Ephemeral: true, TTL: time.Minute})
			if _, err := p.a.Delete(t.Context(), "gone", nil); err != nil {
				t.Fatal(err)
			}
			p.run(3 * time.Second)
			if _, err := p.b.Delete(t.Context(), "late", nil); err != nil {
				t.Fatal(err)
			}
			p.run(2 * time.Minute) // long enough for "late" to be past all regret, and for "ttl" to expire
			p.check("before", map[string]string{"svc/1": "a", "leader": "a", "plain": "a", "late": "", "gone": ""})

			if _, err := p.a.Delete(t.Context(), "dropped", nil); err != nil { // by its owner: no mistake
				t.Fatal(err)
			}
			p.run(time.Second)
			if cutOff {
				p.cut()
			}
			p.b.env.Owners.Set(incA, Owner{Name: "a", State: crdt.OwnerClosed})
			p.b.CloseInc(p.now, incA)
			if got := get(t, p.b, "svc/1"); got != "" {
				t.Fatalf("shows %q of a closed owner", got)
			}
			put(t, p.b, "leader", "b", nil)
			p.run(20 * time.Second)
			if cutOff {
				if p.lostA != 0 {
					t.Fatal("heard of its closing while it was cut off")
				}
				p.link()
				p.run(20 * time.Second)
			}
			if p.lostA != 1 {
				t.Fatalf("was told %d times that it must renew, want once", p.lostA)
			}
			if _, err := p.a.Put(t.Context(), "x", nil, nil); !errors.Is(err, client.ErrUnavailable) {
				t.Fatalf("put before renewal: got %v, want ErrUnavailable", err)
			}

			next := crdt.Inc(3 << 22)
			for _, k := range []*Keyspace{p.a, p.b} {
				k.env.Owners.Set(next, Owner{Name: "a"})
			}
			p.a.env.SetInc(next)
			got := p.a.Renew(p.now, next)
			if want := (Renewal{Put: 2, Superseded: 1}); got.Put != want.Put || got.Superseded != want.Superseded {
				t.Errorf("renewal: got %+v, want %+v", got, want)
			}
			p.run(20 * time.Second)
			p.check("after", map[string]string{
				"svc/1": "a", "svc/2": "a", "leader": "b", "plain": "a", "gone": "", "late": "", "ttl": "", "dropped": "",
			})
			put(t, p.a, "x", "1", nil)
			p.run(time.Second)
			p.check("written again", map[string]string{"x": "1"})
			for _, k := range []*Keyspace{p.a, p.b} {
				if cells := k.life.ownedBy(incA); len(cells) != 0 {
					t.Errorf("%s: %d cells of the closed incarnation are left", k.env.Name, len(cells))
				}
			}
		})
	}
}

// A process that takes a new incarnation of its own accord keeps what it bound to
// itself, also after the former one is closed.
func TestRenewWithoutClosing(t *testing.T) {
	p := newPair(t)
	put(t, p.a, "svc", "a", &client.PutOptions{Ephemeral: true})
	put(t, p.a, "deleted", "a", &client.PutOptions{Ephemeral: true})
	p.run(3 * time.Second)
	if _, err := p.b.Delete(t.Context(), "deleted", nil); err != nil {
		t.Fatal(err)
	}
	p.run(time.Second)
	next := crdt.Inc(3 << 22)
	for _, k := range []*Keyspace{p.a, p.b} {
		k.env.Owners.Set(next, Owner{Name: "a"})
	}
	if got := p.a.Renew(p.now, next); got.Put != 1 {
		t.Errorf("got %+v, want one cell put again: the other was deleted", got)
	}
	for _, k := range []*Keyspace{p.a, p.b} {
		k.env.Owners.Set(incA, Owner{Name: "a", State: crdt.OwnerClosed})
		k.CloseInc(p.now, incA)
	}
	p.run(20 * time.Second)
	p.check("after", map[string]string{"svc": "a", "deleted": ""})
}
