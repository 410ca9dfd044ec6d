package keyspace

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/meshkv/meshkv/client"
)

// A cursor of a keyspace that was dropped and opened again in the same process says
// nothing about the changes of the new one, however many it has.
func TestCursorOfAnEarlierLife(t *testing.T) {
	env := testEnv()
	first := openEmpty(env)
	put(t, first, "gone", "v", nil)
	w, err := first.Watch(t.Context(), "", &client.WatchOptions{UpdatesOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	cursor := next(t, w).Cursor
	if err := first.Drop(t.Context()); err != nil {
		t.Fatal(err)
	}
	second := openEmpty(env)
	put(t, second, "a", "v", nil)
	put(t, second, "b", "v", nil)
	again, err := second.Watch(t.Context(), "", &client.WatchOptions{From: cursor})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if ev := next(t, again); ev.Type != client.EventResync {
		t.Errorf("got %+v, want a resync", ev)
	}
}

// A watch makes no room for changes that are not its own: there may be thousands of
// watches, each of a few keys, and each looks at all changes.
func TestWatchOfOthersChangesHoldsNothing(t *testing.T) {
	k := openEmpty(testEnv())
	cw, err := k.Watch(t.Context(), "mine/", &client.WatchOptions{UpdatesOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer cw.Close()
	next(t, cw)
	w := cw.(*watch)
	w.at, w.buf = 0, nil
	for i := range watchBuffer {
		put(t, k, fmt.Sprint("others/", i), "v", nil)
	}
	if wait := w.fill(); !wait || cap(w.buf) > 0 {
		t.Errorf("room for %d events, and there is none", cap(w.buf))
	}
}

// follower applies the events of one watch.
type follower struct {
	k      *Keyspace
	prefix string
	w      client.Watch
	seen   map[string]client.Version
	cursor client.Cursor
}

func (f *follower) open(t fataler, from client.Cursor) {
	w, err := f.k.Watch(context.Background(), f.prefix, &client.WatchOptions{From: from})
	if err != nil {
		t.Fatal(err)
	}
	f.w = w
	if from == "" {
		f.seen = make(map[string]client.Version)
	}
}

type fataler interface {
	Fatal(...any)
	Fatalf(string, ...any)
}

// step applies one event. False: there is none.
func (f *follower) step(ctx context.Context, t fataler) bool {
	ev, err := f.w.Next(ctx)
	if err != nil {
		if ctx.Err() == nil {
			t.Fatal(err)
		}
		return false
	}
	key := ev.Entry.Key
	if !strings.HasPrefix(key, f.prefix) && key != "" {
		t.Fatalf("watch of %q: %s of %q", f.prefix, ev.Type, key)
	}
	before, had := f.seen[key]
	switch ev.Type {
	case client.EventResync:
		clear(f.seen)
	case client.EventPut:
		if before == ev.Entry.Version {
			t.Fatalf("watch of %q: put of %q twice", f.prefix, key)
		}
		f.seen[key] = ev.Entry.Version
	case client.EventDelete:
		if !had {
			t.Fatalf("watch of %q: delete of %q, which was not there", f.prefix, key)
		}
		delete(f.seen, key)
	}
	if ev.Prev != nil && ev.Cursor != "" && ev.Prev.Version != before {
		t.Fatalf("watch of %q: %s of %q: prev %v, shown %v", f.prefix, ev.Type, key, ev.Prev.Version, before)
	}
	f.cursor = ev.Cursor
	return true
}

func (f *follower) check(t fataler) {
	want := make(map[string]client.Version)
	for e, err := range f.k.List(context.Background(), f.prefix, nil) {
		if err != nil {
			t.Fatal(err)
		}
		want[e.Key] = e.Version
	}
	if !maps.Equal(f.seen, want) {
		t.Fatalf("watch of %q shows %v, the keyspace has %v", f.prefix, f.seen, want)
	}
}

// Watches of prefixes within each other show what the keyspace has, however slowly they
// read, and wherever they break off, and whether their group can tell what concerns them or not.
func TestWatchesOfManyPrefixes(t *testing.T) {
	prefixes := []string{"", "a", "a", "a/", "a/1", "b", "b/22", "zzz"}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	rapid.Check(t, func(t *rapid.T) {
		k := openEmpty(testEnv())
		defer k.Close()
		k.hub.room = minNumbers
		var all []*follower
		for _, p := range prefixes {
			f := &follower{k: k, prefix: p}
			f.open(t, "")
			all = append(all, f)
		}
		some := rapid.Custom(func(t *rapid.T) *follower { return all[rapid.IntRange(0, len(all)-1).Draw(t, "watch")] })
		key := rapid.Custom(func(t *rapid.T) string {
			return rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "head") + rapid.SampledFrom([]string{"", "/", "/1", "/22", "/223"}).Draw(t, "tail")
		})
		t.Repeat(map[string]func(*rapid.T){
			"write": func(t *rapid.T) {
				for range rapid.IntRange(1, 3*minNumbers).Draw(t, "times") {
					var err error
					if at := key.Draw(t, "key"); rapid.IntRange(0, 2).Draw(t, "what") == 0 {
						_, err = k.Delete(context.Background(), at, nil)
					} else {
						_, err = k.Put(context.Background(), at, nil, nil)
					}
					if err != nil {
						t.Fatal(err)
					}
				}
			},
			"read": func(t *rapid.T) {
				f := some.Draw(t, "who")
				for range rapid.IntRange(1, 30).Draw(t, "events") {
					if !f.step(over, t) {
						break
					}
				}
			},
			"reopen": func(t *rapid.T) {
				f := some.Draw(t, "who")
				f.w.Close()
				f.open(t, f.cursor)
			},
			"overrun": func(t *rapid.T) {
				k.mu.Lock()
				defer k.mu.Unlock()
				for range rapid.IntRange(1, 100).Draw(t, "changes") {
					if k.log.held() > 0 {
						k.log.dropOldest()
					}
				}
			},
		})
		for _, f := range all {
			for f.step(over, t) {
			}
			f.check(t)
			f.w.Close()
		}
		if len(k.hub.groups) > 0 || len(k.hub.lengths) > 0 {
			t.Fatalf("%d groups of %d lengths are left of no watch", len(k.hub.groups), len(k.hub.lengths))
		}
	})
}

// No watch sleeps through a change: readers that wait and writers, all at once.
func TestWatchesAreWoken(t *testing.T) {
	const rounds, writers = 300, 3
	k := openEmpty(testEnv())
	defer k.Close()
	var wg sync.WaitGroup
	var left atomic.Int64
	for i := range 20 {
		f := &follower{k: k, prefix: []string{"", "w", "w/1", "w/2/"}[i%4]}
		f.open(t, "")
		left.Add(1)
		wg.Go(func() {
			defer left.Add(-1)
			defer f.w.Close()
			ends := 0
			for ends < writers {
				ev, err := f.w.Next(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				if ev.Type == client.EventPut && strings.HasSuffix(ev.Entry.Key, "/end") {
					ends++
				}
			}
		})
	}
	for i := range writers {
		wg.Go(func() {
			for n := range rounds {
				put(t, k, fmt.Sprintf("w/%d/%d", i, n%7), "v", nil)
			}
			for _, p := range []string{"w/1", "w/2/"} { // so that every watch has as many ends
				put(t, k, fmt.Sprintf("%s%d/end", p, i), "v", nil)
			}
		})
	}
	wg.Wait()
	if left.Load() != 0 {
		t.Errorf("%d watches did not end", left.Load())
	}
}

// A watch without the node's own changes tells what others and time did to the same keys.
func TestWatchNotMine(t *testing.T) {
	k := openEmpty(testEnv())
	defer k.Close()
	put(t, k, "before", "v", nil)
	w, err := k.Watch(t.Context(), "", &client.WatchOptions{NotMine: true})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if ev := next(t, w); ev.Type != client.EventPut || ev.Entry.Key != "before" {
		t.Errorf("got %+v, want the state", ev)
	}
	if ev := next(t, w); ev.Type != client.EventSynced {
		t.Errorf("got %+v, want synced", ev)
	}
	put(t, k, "mine", "v", nil)
	put(t, k, "short", "v", &client.PutOptions{TTL: time.Millisecond})
	k.Tick(time.Now().Add(time.Second))
	if ev := next(t, w); ev.Type != client.EventDelete || ev.Entry.Key != "short" || ev.Reason != client.ReasonExpired || ev.Mine {
		t.Errorf("got %+v, want the expiry", ev)
	}
}

// A watch whose reader stalls holds what it had prepared, and no more, however much happens:
// then it says that it has missed something, and shows the state.
func TestStalledWatchIsBounded(t *testing.T) {
	k := openEmpty(testEnv())
	defer k.Close()
	cw, err := k.Watch(t.Context(), "", &client.WatchOptions{UpdatesOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer cw.Close()
	next(t, cw)
	for i := range watchBuffer + 10 {
		put(t, k, fmt.Sprint("k", i), "v", nil)
	}
	next(t, cw)
	w := cw.(*watch)
	held := len(w.buf) - w.at
	for i := range maxLogChanges + 1 {
		put(t, k, fmt.Sprint("k", i%100), "v", nil)
	}
	if now := len(w.buf) - w.at; now != held || now > watchBuffer {
		t.Errorf("holds %d events, held %d when it stalled, at most %d", now, held, watchBuffer)
	}
	if n, room := len(w.group.numbers.Load().at), maxNumbers; n > room {
		t.Errorf("its group keeps %d numbers, at most %d", n, room)
	}
	for range held {
		if ev := next(t, cw); ev.Type != client.EventPut {
			t.Fatalf("got %+v, want what was prepared", ev)
		}
	}
	if ev := next(t, cw); ev.Type != client.EventResync {
		t.Errorf("got %+v, want a resync", ev)
	}
}
