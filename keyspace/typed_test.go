package keyspace

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meshkv/meshkv/client"
)

// fillSet adds n elements of 16 bytes.
func fillSet(t testing.TB, k *Keyspace, key string, from, n int) {
	t.Helper()
	s := client.SetOf(k, key)
	for at := from; at < from+n; at += 500 {
		batch := make([]string, 0, 500)
		for i := at; i < min(at+500, from+n); i++ {
			batch = append(batch, fmt.Sprintf("element-%08d", i))
		}
		if _, err := s.Add(t.Context(), batch...); err != nil {
			t.Fatal(err)
		}
	}
}

// traffic counts the bytes that both send in d.
func (p *pair) traffic(d time.Duration) (bytes int) {
	p.t.Helper()
	move := func(from, to *Keyspace) bool {
		frame, ok := from.NextFrame(p.now, to.env.Self, nil, 64<<10)
		if ok {
			bytes += len(frame)
			if err := to.Step(p.now, from.env.Self, frame); err != nil {
				p.t.Fatal(err)
			}
		}
		return ok
	}
	for end := p.now.Add(d); p.now.Before(end); p.now = p.now.Add(100 * time.Millisecond) {
		p.a.Tick(p.now)
		p.b.Tick(p.now)
		for moved := true; moved; {
			moved = move(p.a, p.b)
			moved = move(p.b, p.a) || moved
		}
	}
	return bytes
}

// What a change of a large set costs on the wire does not depend on its size (issue bars: 300 B for one element, 64 KiB for ten
// that were missed).
func TestLargeSetSpreadsElementByElement(t *testing.T) {
	const n = 100_000
	p := newPair(t)
	fillSet(t, p.a, "s", 0, n)
	p.run(5 * time.Second)
	wantLen := func(k *Keyspace, want int) {
		t.Helper()
		v, err := k.View(t.Context(), "s", nil)
		if err != nil || v.Len != want {
			t.Fatalf("%s: %d elements, %v; want %d", k.env.Name, v.Len, err, want)
		}
	}
	wantLen(p.b, n)
	p.run(time.Minute)
	quiet := p.traffic(100 * time.Millisecond)
	fillSet(t, p.a, "s", n, 1)
	if sent := p.traffic(100*time.Millisecond) - quiet; sent > 300 {
		t.Errorf("one element more: %d bytes, want 300 at most", sent)
	}
	wantLen(p.b, n+1)

	p.cut()
	fillSet(t, p.a, "s", n+1, 5)
	fillSet(t, p.b, "s", n+6, 5)
	p.link()
	sent := p.traffic(5 * time.Second)
	if sent > 64<<10 {
		t.Errorf("ten elements that were missed: %d bytes, want 64 KiB at most", sent)
	}
	t.Logf("ten elements that were missed, and all that goes with a new link: %d bytes", sent)
	wantLen(p.a, n+11)
	wantLen(p.b, n+11)
	va, errA := p.a.View(t.Context(), "s", nil)
	vb, errB := p.b.View(t.Context(), "s", nil)
	if errA != nil || errB != nil || va.Version != vb.Version {
		t.Errorf("versions %v and %v of equal sets, %v, %v", va.Version, vb.Version, errA, errB)
	}
}

// An element that expires changes the version of its set, and watches are told; the last one takes the key with it.
func TestElementsExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		w, err := p.a.Watch(t.Context(), "", &client.WatchOptions{UpdatesOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		next(t, w) // synced
		s := client.SetOf(p.a, "s")
		add := func(element string, ttl time.Duration) client.Event {
			t.Helper()
			s.TTL = ttl
			if _, err := s.Add(t.Context(), element); err != nil {
				t.Fatal(err)
			}
			return next(t, w)
		}
		pass := func(d time.Duration) client.Event {
			t.Helper()
			time.Sleep(d)
			p.now = time.Now()
			p.a.Tick(p.now)
			return next(t, w)
		}
		first := add("long", 2*time.Minute)
		second := add("short", time.Minute)
		if first.Entry.Version == second.Entry.Version || second.Prev == nil || second.Prev.Version != first.Entry.Version {
			t.Errorf("two elements: %+v, then %+v", first, second)
		}
		if ev := pass(61 * time.Second); ev.Type != client.EventPut || ev.Entry.Version != first.Entry.Version {
			t.Errorf("when the second one expired: %+v, want the version %v", ev, first.Entry.Version)
		}
		if v, err := p.a.View(t.Context(), "s", nil); err != nil || v.Len != 1 || v.Version != first.Entry.Version {
			t.Errorf("View: %+v, %v", v, err)
		}
		third := add("third", time.Minute) // beside one that is hidden, and not collected yet
		if third.Prev == nil || third.Prev.Version != first.Entry.Version {
			t.Errorf("a third one: %+v, want the version %v before", third, first.Entry.Version)
		}
		if ev := pass(59 * time.Second); ev.Type != client.EventPut {
			t.Errorf("when the first one expired: %+v", ev)
		}
		if ev := pass(2 * time.Second); ev.Type != client.EventDelete || ev.Reason != client.ReasonExpired {
			t.Errorf("when the last one expired: %+v", ev)
		}
		if ev := add("again", 0); ev.Type != client.EventPut || ev.Prev != nil {
			t.Errorf("a set that is there again: %+v", ev)
		}
	})
}

func BenchmarkCounterAdd(b *testing.B) {
	k := openEmpty(testEnv())
	change := []client.Change{{Verb: client.VerbCounterAdd, Key: "c", N: 1}}
	for b.Loop() {
		if _, err := k.Update(context.Background(), change, nil); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkSetAdd adds to a set that has n elements already, and one element at a time.
func BenchmarkSetAdd(b *testing.B) {
	for _, n := range []int{0, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			k := openEmpty(testEnv())
			fillSet(b, k, "s", 0, n)
			i := n
			for b.Loop() {
				i++
				if _, err := k.Update(context.Background(), []client.Change{{Verb: client.VerbSetAdd, Key: "s", Path: []string{fmt.Sprintf("element-%08d", i)}}}, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// What is hidden above it does not change the type that a key shows: a put is refused as without it.
func TestPutAboveAnotherType(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		p.cut()
		if _, err := client.SetOf(p.b, "k").Add(t.Context(), "element"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second) // of the test's own clock: so the other one is newer
		put(t, p.a, "k", "register", &client.PutOptions{TTL: time.Second})
		p.now = time.Now()
		p.link()
		p.run(10 * time.Second)
		time.Sleep(10 * time.Second)
		p.a.Tick(time.Now())
		if v, err := p.a.View(t.Context(), "k", nil); err != nil || v.Type != client.TypeSet {
			t.Fatalf("the key shows %+v, %v, want a set", v, err)
		}
		if _, err := p.a.Put(t.Context(), "k", []byte("x"), nil); !errors.Is(err, client.ErrWrongType) {
			t.Errorf("put: %v", err)
		}
		if _, err := p.a.Get(t.Context(), "k", &client.GetOptions{Siblings: true}); !errors.Is(err, client.ErrWrongType) {
			t.Errorf("siblings: %v", err)
		}
	})
}
