package keyspace

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/crdt"
	"github.com/meshkv/meshkv/gossip"
	"github.com/meshkv/meshkv/storage"
)

type noWaker struct{}

func (noWaker) Wake(string, gossip.PeerID) {}

const testInc = crdt.Inc(1 << 22)

func testEnv() *Env {
	env := &Env{
		Name: "n1", Inc: testInc, Self: "n1/1", Clock: NewClock(0), Owners: NewOwners(),
		Waker: noWaker{}, Closed: func([]crdt.Inc) {}, Logger: slog.New(slog.DiscardHandler),
	}
	env.Owners.Set(testInc, Owner{Name: "n1"})
	return env
}

func openEmpty(env *Env) *Keyspace {
	return Open("ks", env, storage.KeyspaceState{}, time.Now())
}

func put(t *testing.T, k *Keyspace, key, value string, o *client.PutOptions) client.Version {
	t.Helper()
	v, err := k.Put(t.Context(), key, []byte(value), o)
	if err != nil {
		t.Fatalf("put %q: %v", key, err)
	}
	return v
}

func next(t *testing.T, w client.Watch) client.Event {
	t.Helper()
	ev, err := w.Next(t.Context())
	if err != nil {
		t.Fatalf("next: %v", err)
	}
	return ev
}

func TestRefusals(t *testing.T) {
	k := openEmpty(testEnv())
	ctx := t.Context()
	for _, c := range []struct {
		name string
		call func() error
		want error
	}{
		{"empty key", func() error { _, err := k.Put(ctx, "", nil, nil); return err }, client.ErrBadRequest},
		{"long key", func() error { _, err := k.Put(ctx, strings.Repeat("k", 1025), nil, nil); return err }, client.ErrBadRequest},
		{"large value", func() error { _, err := k.Put(ctx, "k", make([]byte, MaxValueBytes+1), nil); return err }, client.ErrTooLarge},
		{"if absent", func() error { _, err := k.Put(ctx, "k", nil, &client.PutOptions{IfAbsent: true}); return err }, client.ErrNeedsStrong},
		{"if version", func() error {
			_, err := k.Put(ctx, "k", nil, &client.PutOptions{IfVersion: client.Version{Seq: 1}})
			return err
		}, client.ErrNeedsStrong},
		{"durable in memory", func() error { _, err := k.Put(ctx, "k", nil, &client.PutOptions{Durable: true}); return err }, client.ErrBadRequest},
		{"negative ttl", func() error { _, err := k.Put(ctx, "k", nil, &client.PutOptions{TTL: -1}); return err }, client.ErrBadRequest},
		{"linearizable", func() error { _, err := k.Get(ctx, "k", &client.GetOptions{Linearizable: true}); return err }, client.ErrNeedsStrong},
		{"get long key", func() error { _, err := k.Get(ctx, strings.Repeat("k", 1025), nil); return err }, client.ErrBadRequest},
		{"bad token", func() error { _, err := k.Get(ctx, "k", &client.GetOptions{After: "x"}); return err }, client.ErrBadRequest},
		{"bad cursor", func() error { _, err := k.Watch(ctx, "", &client.WatchOptions{From: "x"}); return err }, client.ErrBadRequest},
		{"delete empty", func() error { _, err := k.Delete(ctx, "", nil); return err }, client.ErrBadRequest},
		{"absent", func() error { _, err := k.Get(ctx, "absent", nil); return err }, client.ErrNotFound},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := c.call(); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

func TestGetDoesNotAllocate(t *testing.T) {
	k := openEmpty(testEnv())
	put(t, k, "k", "v", nil)
	ctx := t.Context()
	if n := testing.AllocsPerRun(1000, func() {
		if _, err := k.Get(ctx, "k", nil); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("Get allocates %v times", n)
	}
}

// A reader never misses a key that is only ever overwritten.
func TestGetDuringOverwrites(t *testing.T) {
	k := openEmpty(testEnv())
	put(t, k, "k", "v", nil)
	stop := make(chan struct{})
	done := make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			if _, err := k.Get(context.Background(), "k", nil); err != nil {
				done <- err
				return
			}
		}
	}()
	for range 20_000 {
		put(t, k, "k", "v", nil)
	}
	close(stop)
	if err := <-done; err != nil {
		t.Errorf("reader: %v", err)
	}
}

func TestExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := openEmpty(testEnv())
		w, err := k.Watch(t.Context(), "", &client.WatchOptions{UpdatesOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		if ev := next(t, w); ev.Type != client.EventSynced {
			t.Fatalf("got %+v, want synced", ev)
		}
		put(t, k, "k", "v", &client.PutOptions{TTL: time.Second})
		if ev := next(t, w); ev.Type != client.EventPut || ev.Entry.Expires.IsZero() {
			t.Fatalf("got %+v, want a put that expires", ev)
		}
		time.Sleep(time.Second)
		if _, err := k.Get(t.Context(), "k", nil); !errors.Is(err, client.ErrNotFound) {
			t.Errorf("after the time to live: %v", err)
		}
		k.Tick(time.Now())
		ev := next(t, w)
		if ev.Type != client.EventDelete || ev.Reason != client.ReasonExpired || ev.Prev == nil || string(ev.Prev.Value) != "v" {
			t.Errorf("got %+v, want an expired delete with the previous value", ev)
		}
		if k.index.Len() != 1 {
			t.Errorf("%d cells, want the hidden one", k.index.Len())
		}
		if info, _ := k.Info(t.Context()); info.Keys != 0 {
			t.Errorf("%d visible keys, want 0", info.Keys)
		}
		time.Sleep(collectAfter)
		k.Tick(time.Now())
		if k.index.Len() != 0 {
			t.Errorf("%d cells a minute later, want 0", k.index.Len())
		}
	})
}

// ephemeral is a cell that another incarnation bound to itself.
func ephemeral(inc crdt.Inc, seq uint64, key string) *crdt.Cell {
	d := crdt.Dot{Inc: inc, Seq: seq}
	return &crdt.Cell{Key: key, Kind: crdt.KindRegister, Flags: crdt.FlagEphemeral, Dot: d, HLC: crdt.HLCAt(1), Value: []byte("v")}
}

func TestEphemeralFollowsItsOwner(t *testing.T) {
	env := testEnv()
	other := crdt.Inc(2 << 22)
	clock := crdt.NewClock()
	clock.Add(crdt.Span{Inc: other, Lo: 1, Hi: 1})
	k := Open("ks", env, storage.KeyspaceState{Cells: []*crdt.Cell{ephemeral(other, 1, "k")}, Clock: clock}, time.Now())
	w, err := k.Watch(t.Context(), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if ev := next(t, w); ev.Type != client.EventSynced {
		t.Fatalf("owner unknown: got %+v, want an empty snapshot", ev)
	}
	set := func(s crdt.OwnerState) {
		if env.Owners.Set(other, Owner{Name: "n2", State: s}) {
			k.OwnerChanged(time.Now(), other)
		}
	}
	set(crdt.OwnerAlive)
	if ev := next(t, w); ev.Type != client.EventPut || ev.Entry.Origin != "n2" || !ev.Entry.Ephemeral {
		t.Fatalf("owner alive: got %+v", ev)
	}
	set(crdt.OwnerFailed)
	if ev := next(t, w); ev.Type != client.EventDelete || ev.Reason != client.ReasonOwnerFailed {
		t.Fatalf("owner failed: got %+v", ev)
	}
	if _, err := k.Get(t.Context(), "k", nil); !errors.Is(err, client.ErrNotFound) {
		t.Errorf("owner failed: Get gives %v", err)
	}
	set(crdt.OwnerAlive)
	if ev := next(t, w); ev.Type != client.EventPut {
		t.Fatalf("owner back: got %+v", ev)
	}
	env.Owners.Set(other, Owner{Name: "n2", State: crdt.OwnerClosed})
	k.CloseInc(time.Now(), other)
	if ev := next(t, w); ev.Type != client.EventDelete || ev.Reason != client.ReasonOwnerFailed {
		t.Fatalf("owner closed: got %+v", ev)
	}
	if k.index.Len() != 0 {
		t.Errorf("the chosen member left %d cells of a closed owner", k.index.Len())
	}
	set(crdt.OwnerAlive)
	if env.Owners.Get(other).State != crdt.OwnerClosed {
		t.Error("a closed owner came back")
	}
}

func TestWatchResumesExactly(t *testing.T) {
	k := openEmpty(testEnv())
	put(t, k, "a", "1", nil)
	w, _ := k.Watch(t.Context(), "", nil)
	if ev := next(t, w); ev.Type != client.EventPut {
		t.Fatalf("got %+v", ev)
	}
	cursor := next(t, w).Cursor
	put(t, k, "b", "2", nil)
	w.Close()
	if _, err := w.Next(t.Context()); !errors.Is(err, client.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	if _, err := k.Delete(t.Context(), "a", nil); err != nil {
		t.Fatal(err)
	}
	w, err := k.Watch(t.Context(), "", &client.WatchOptions{From: cursor})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if ev := next(t, w); ev.Type != client.EventPut || ev.Entry.Key != "b" {
		t.Errorf("got %+v, want put b", ev)
	}
	if ev := next(t, w); ev.Type != client.EventDelete || ev.Entry.Key != "a" || ev.Reason != client.ReasonDeleted {
		t.Errorf("got %+v, want delete a", ev)
	}
	// A cursor of another node, or of an earlier start, cannot be resumed.
	w2, err := k.Watch(t.Context(), "", &client.WatchOptions{From: "00000000deadbeef-3"})
	if err != nil {
		t.Fatal(err)
	}
	defer w2.Close()
	for i, want := range []client.EventType{client.EventResync, client.EventPut, client.EventSynced} {
		if ev := next(t, w2); ev.Type != want {
			t.Errorf("event %d: got %+v, want %s", i, ev, want)
		}
	}
}

func TestF12WatchPrefixIsLiteral(t *testing.T) {
	k := openEmpty(testEnv())
	w, _ := k.Watch(t.Context(), "net1/", nil)
	defer w.Close()
	next(t, w)
	put(t, k, "net10/a", "no", nil)
	put(t, k, "net1/a", "yes", nil)
	if ev := next(t, w); ev.Entry.Key != "net1/a" {
		t.Errorf("got %q", ev.Entry.Key)
	}
}

func TestGetAfterToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := openEmpty(testEnv())
		v := put(t, k, "k", "v", nil)
		if _, err := k.Get(t.Context(), "k", &client.GetOptions{After: v.Token()}); err != nil {
			t.Errorf("own write: %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		unseen := client.Version{Inc: v.Inc, Seq: v.Seq + 1}
		if _, err := k.Get(ctx, "k", &client.GetOptions{After: unseen.Token()}); !errors.Is(err, client.ErrNotCaughtUp) {
			t.Errorf("unseen write: %v", err)
		}
		go k.Put(context.Background(), "k", []byte("w"), nil)
		e, err := k.Get(t.Context(), "k", &client.GetOptions{After: unseen.Token()})
		if err != nil || string(e.Value) != "w" {
			t.Errorf("got %q, %v", e.Value, err)
		}
	})
}

func TestListPagesInOrder(t *testing.T) {
	k := openEmpty(testEnv())
	var want []string
	for i := range 3*pageKeys + 7 {
		key := fmt.Sprintf("p/%05d", i)
		put(t, k, key, "v", nil)
		want = append(want, key)
	}
	put(t, k, "o", "v", nil)
	put(t, k, "q", "v", nil)
	list := func(o *client.ListOptions) (got []string) {
		for e, err := range k.List(t.Context(), "p/", o) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, e.Key)
		}
		return got
	}
	if got := list(nil); !slices.Equal(got, want) {
		t.Errorf("got %d keys, want %d in order", len(got), len(want))
	}
	if got := list(&client.ListOptions{After: want[200], Limit: 5}); !slices.Equal(got, want[201:206]) {
		t.Errorf("after and limit: got %v", got)
	}
	if got := list(&client.ListOptions{After: "a", Limit: 1}); !slices.Equal(got, want[:1]) {
		t.Errorf("after a key before the prefix: got %v", got)
	}
	if got := list(&client.ListOptions{After: "z"}); len(got) != 0 {
		t.Errorf("after a key beyond the prefix: got %v", got)
	}
}

// Steady writes do not put off the end of the snapshot.
func TestSyncedUnderSteadyWrites(t *testing.T) {
	k := openEmpty(testEnv())
	put(t, k, "a", "v", nil)
	w, err := k.Watch(t.Context(), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for range 10 {
		if next(t, w).Type == client.EventSynced {
			return
		}
		put(t, k, "b", "v", nil)
	}
	t.Error("no synced event while writes go on")
}

func TestCursorOfAnotherKeyspace(t *testing.T) {
	env := testEnv()
	a, b := openEmpty(env), Open("other", env, storage.KeyspaceState{}, time.Now())
	put(t, a, "k", "v", nil)
	put(t, b, "k", "v", nil)
	w, err := a.Watch(t.Context(), "", &client.WatchOptions{UpdatesOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	wb, err := b.Watch(t.Context(), "", &client.WatchOptions{From: next(t, w).Cursor})
	if err != nil {
		t.Fatal(err)
	}
	defer wb.Close()
	if ev := next(t, wb); ev.Type != client.EventResync {
		t.Errorf("got %+v, want a resync", ev)
	}
}

// A cell of an incarnation that was closed before the cell arrived is collected.
func TestClosedBeforeItsCellArrives(t *testing.T) {
	env := testEnv()
	other := crdt.Inc(2 << 22)
	k := openEmpty(env)
	env.Owners.Set(other, Owner{Name: "n2", State: crdt.OwnerClosed})
	k.CloseInc(time.Now(), other) // it never wrote here, as far as is known
	clock := crdt.NewClock()
	clock.Add(crdt.Span{Inc: other, Lo: 1, Hi: 1})
	late := Open("ks", env, storage.KeyspaceState{Cells: []*crdt.Cell{ephemeral(other, 1, "k")}, Clock: clock}, time.Now())
	if _, err := late.Get(t.Context(), "k", nil); !errors.Is(err, client.ErrNotFound) {
		t.Errorf("shown: %v", err)
	}
	late.Tick(time.Now())
	if late.index.Len() != 0 {
		t.Errorf("%d cells left", late.index.Len())
	}
}

// Restarts do not drive the clock ahead of the wall.
func TestClockStaysNearTheWall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := storage.OpenMemory()
		for range 20 {
			state, err := store.Load(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			w := storage.NewWriter(store, nil)
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- w.Run(ctx) }()
			c := NewClock(state.HLCBound)
			if err := c.Extend(ctx, w); err != nil {
				t.Fatal(err)
			}
			h := c.Now(time.Now())
			if !c.Covered(time.Now()) || h <= state.HLCBound && state.HLCBound != 0 {
				t.Fatalf("issued %v after the bound %v", h, state.HLCBound)
			}
			if ahead := h.WallMs() - time.Now().UnixMilli(); ahead >= MaxClockDrift.Milliseconds()+20*100 {
				t.Fatalf("%d ms ahead of the wall clock", ahead)
			}
			cancel()
			if err := <-ended; err != nil {
				t.Fatal(err)
			}
		}
	})
}

// A map that is kept by a watch equals the store, whatever happens while the
// watch stalls, falls behind the log or resumes.
func TestF9WatchFollowsTheStore(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := openEmpty(testEnv())
		ctx := context.Background()
		var w client.Watch
		var cursor client.Cursor
		seen := make(map[string]string)
		open := func() {
			var err error
			if w, err = k.Watch(ctx, "k", &client.WatchOptions{From: cursor}); err != nil {
				t.Fatal(err)
			}
			if cursor == "" {
				clear(seen)
			}
		}
		step := func() (client.EventType, bool) {
			short, cancel := context.WithCancel(ctx)
			cancel() // whatever is ready, without waiting
			ev, err := w.Next(short)
			if errors.Is(err, context.Canceled) {
				return "", false
			}
			if err != nil {
				t.Fatal(err)
			}
			if ev.Cursor != "" || ev.Type == client.EventResync {
				cursor = ev.Cursor
			}
			switch ev.Type {
			case client.EventResync:
				clear(seen)
			case client.EventPut:
				if old, ok := seen[ev.Entry.Key]; ok && old >= string(ev.Entry.Value) {
					t.Fatalf("key %q went from %s to %s", ev.Entry.Key, old, ev.Entry.Value)
				}
				seen[ev.Entry.Key] = string(ev.Entry.Value)
			case client.EventDelete:
				if _, ok := seen[ev.Entry.Key]; !ok {
					t.Fatalf("delete of %q, which was not shown", ev.Entry.Key)
				}
				delete(seen, ev.Entry.Key)
			}
			return ev.Type, true
		}
		open()
		n := 0
		write := func(times int) {
			for range times {
				key := fmt.Sprintf("k%03d", rapid.IntRange(0, 300).Draw(t, "key"))
				if rapid.IntRange(0, 3).Draw(t, "what") == 0 {
					if _, err := k.Delete(ctx, key, nil); err != nil {
						t.Fatal(err)
					}
					continue
				}
				n++
				if _, err := k.Put(ctx, key, fmt.Appendf(nil, "%08d", n), nil); err != nil {
					t.Fatal(err)
				}
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"write": func(*rapid.T) { write(20) },
			"read": func(t *rapid.T) {
				for range rapid.IntRange(1, 200).Draw(t, "events") {
					if _, ok := step(); !ok {
						break
					}
				}
			},
			"reconnect": func(*rapid.T) { w.Close(); open() },
			"overrun": func(*rapid.T) { // the log forgets everything
				k.mu.Lock()
				for k.log.held() > 0 {
					k.log.dropOldest()
				}
				k.mu.Unlock()
			},
		})
		for {
			if _, ok := step(); !ok {
				break
			}
		}
		want := make(map[string]string)
		for e, err := range k.List(ctx, "k", nil) {
			if err != nil {
				t.Fatal(err)
			}
			want[e.Key] = string(e.Value)
		}
		if !maps.Equal(seen, want) {
			t.Fatalf("watch shows %d keys, store %d", len(seen), len(want))
		}
	})
}
