package clienttest

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/meshkv/meshkv/client"
)

func testWatch(t *testing.T, ctx context.Context, c client.Cluster) {
	k := keyspace(t, ctx, c, "k")
	v1 := put(t, ctx, k, "b", "1", nil)
	put(t, ctx, k, "a", "1", nil)
	put(t, ctx, k, "gone", "1", nil)
	remove(t, ctx, k, "gone")
	w := watch(t, ctx, k, "", nil)
	wantEvent(t, ctx, w, client.EventPut, "a", "1")
	wantEvent(t, ctx, w, client.EventPut, "b", "1")
	if ev := wantEvent(t, ctx, w, client.EventSynced, "", ""); ev.Cursor == "" {
		t.Error("synced has no cursor")
	}
	v2 := put(t, ctx, k, "b", "2", nil)
	ev := wantEvent(t, ctx, w, client.EventPut, "b", "2")
	if ev.Cursor == "" || ev.Entry.Version != v2 || ev.Prev == nil || ev.Prev.Version != v1 || string(ev.Prev.Value) != "1" {
		t.Errorf("put: got %+v with prev %+v, want version %v, prev %v", ev, ev.Prev, v2, v1)
	}
	put(t, ctx, k, "new", "", nil)
	if ev := wantEvent(t, ctx, w, client.EventPut, "new", ""); ev.Prev != nil {
		t.Errorf("put of a new key: got prev %+v", ev.Prev)
	}
	remove(t, ctx, k, "b")
	ev = wantEvent(t, ctx, w, client.EventDelete, "b", "")
	if ev.Reason != client.ReasonDeleted || ev.Prev == nil || string(ev.Prev.Value) != "2" || ev.Cursor == "" {
		t.Errorf("delete: got %+v with prev %+v", ev, ev.Prev)
	}
	remove(t, ctx, k, "b") // nothing happens
	put(t, ctx, k, "end", "1", nil)
	wantEvent(t, ctx, w, client.EventPut, "end", "1")
}

func testWatchPrefix(t *testing.T, ctx context.Context, c client.Cluster) {
	k := keyspace(t, ctx, c, "k")
	put(t, ctx, k, "net1/a", "1", nil)
	put(t, ctx, k, "net10/a", "1", nil)
	w := watch(t, ctx, k, "net1/", nil)
	wantEvent(t, ctx, w, client.EventPut, "net1/a", "1")
	wantEvent(t, ctx, w, client.EventSynced, "", "")
	put(t, ctx, k, "net10/b", "1", nil)
	put(t, ctx, k, "net1", "1", nil)
	remove(t, ctx, k, "net10/a")
	remove(t, ctx, k, "net1/a")
	wantEvent(t, ctx, w, client.EventDelete, "net1/a", "")
}

func testWatchUpdatesOnly(t *testing.T, ctx context.Context, c client.Cluster) {
	k := keyspace(t, ctx, c, "k")
	put(t, ctx, k, "a", "1", nil)
	w := watch(t, ctx, k, "", &client.WatchOptions{UpdatesOnly: true})
	if ev := wantEvent(t, ctx, w, client.EventSynced, "", ""); ev.Cursor == "" {
		t.Error("synced has no cursor")
	}
	put(t, ctx, k, "b", "1", nil)
	wantEvent(t, ctx, w, client.EventPut, "b", "1")
	remove(t, ctx, k, "a")
	wantEvent(t, ctx, w, client.EventDelete, "a", "")
}

func testWatchResumes(t *testing.T, ctx context.Context, c client.Cluster) {
	k := keyspace(t, ctx, c, "k")
	put(t, ctx, k, "a", "1", nil)
	first := watch(t, ctx, k, "", nil)
	wantEvent(t, ctx, first, client.EventPut, "a", "1")
	synced := wantEvent(t, ctx, first, client.EventSynced, "", "")
	first.Close()
	put(t, ctx, k, "b", "1", nil)
	remove(t, ctx, k, "a")
	put(t, ctx, k, "c", "1", nil)
	w := watch(t, ctx, k, "", &client.WatchOptions{From: synced.Cursor})
	wantEvent(t, ctx, w, client.EventPut, "b", "1")
	ev := wantEvent(t, ctx, w, client.EventDelete, "a", "")
	wantEvent(t, ctx, w, client.EventPut, "c", "1")
	put(t, ctx, k, "d", "1", nil)
	wantEvent(t, ctx, w, client.EventPut, "d", "1")
	again := watch(t, ctx, k, "", &client.WatchOptions{From: ev.Cursor})
	wantEvent(t, ctx, again, client.EventPut, "c", "1")
	wantEvent(t, ctx, again, client.EventPut, "d", "1")
}

func testWatchUnknownCursor(t *testing.T, ctx context.Context, c client.Cluster) {
	k := keyspace(t, ctx, c, "k")
	put(t, ctx, k, "a", "1", nil)
	w := watch(t, ctx, k, "", nil)
	wantEvent(t, ctx, w, client.EventPut, "a", "1")
	cursor := wantEvent(t, ctx, w, client.EventSynced, "", "").Cursor
	// A cursor of another incarnation of the node: the same form, other digits.
	other := client.Cursor(strings.Map(func(r rune) rune {
		if r >= '1' && r <= '8' {
			return r + 1
		}
		return r
	}, string(cursor)))
	resumed := watch(t, ctx, k, "", &client.WatchOptions{From: other})
	wantEvent(t, ctx, resumed, client.EventResync, "", "")
	wantEvent(t, ctx, resumed, client.EventPut, "a", "1")
	wantEvent(t, ctx, resumed, client.EventSynced, "", "")
	put(t, ctx, k, "b", "1", nil)
	wantEvent(t, ctx, resumed, client.EventPut, "b", "1")
}

func testWatchExpiry(t *testing.T, ctx context.Context, c client.Cluster) {
	k := keyspace(t, ctx, c, "k")
	w := watch(t, ctx, k, "", nil)
	wantEvent(t, ctx, w, client.EventSynced, "", "")
	put(t, ctx, k, "a", "1", &client.PutOptions{TTL: 50 * time.Millisecond})
	wantEvent(t, ctx, w, client.EventPut, "a", "1")
	ev := wantEvent(t, ctx, w, client.EventDelete, "a", "")
	if ev.Reason != client.ReasonExpired || ev.Prev == nil || string(ev.Prev.Value) != "1" {
		t.Errorf("expiry: got %+v with prev %+v", ev, ev.Prev)
	}
}

func testWatchFilters(t *testing.T, ctx context.Context, c client.Cluster) {
	k := keyspace(t, ctx, c, "k")
	put(t, ctx, k, "a", "1", nil)
	w := watch(t, ctx, k, "", &client.WatchOptions{Only: client.OnDeleted})
	wantEvent(t, ctx, w, client.EventSynced, "", "")
	put(t, ctx, k, "a", "2", nil)
	put(t, ctx, k, "b", "1", nil)
	remove(t, ctx, k, "a")
	if ev := wantEvent(t, ctx, w, client.EventDelete, "a", ""); ev.Prev == nil || string(ev.Prev.Value) != "2" {
		t.Errorf("delete: got prev %+v", ev.Prev)
	}
	resumed := watch(t, ctx, k, "", &client.WatchOptions{Only: client.OnPut})
	wantEvent(t, ctx, resumed, client.EventPut, "b", "1")
	wantEvent(t, ctx, resumed, client.EventSynced, "", "")
	remove(t, ctx, k, "b")
	put(t, ctx, k, "c", "1", nil)
	wantEvent(t, ctx, resumed, client.EventPut, "c", "1")
}

func testWatchContext(t *testing.T, ctx context.Context, c client.Cluster) {
	k := keyspace(t, ctx, c, "k")
	opening, endOpening := context.WithCancel(ctx)
	w, err := k.Watch(opening, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	wantEvent(t, ctx, w, client.EventSynced, "", "")
	endOpening() // bounds the opening only
	for i := range 3 {
		short, cancel := context.WithTimeout(ctx, 5*time.Millisecond)
		_, err := w.Next(short)
		cancel()
		wantError(t, "Next", err, context.DeadlineExceeded)
		put(t, ctx, k, "a", fmt.Sprint(i), nil)
		wantEvent(t, ctx, w, client.EventPut, "a", fmt.Sprint(i))
	}
}

func testWatchClose(t *testing.T, ctx context.Context, c client.Cluster) {
	k := keyspace(t, ctx, c, "k")
	w := watch(t, ctx, k, "", nil)
	wantEvent(t, ctx, w, client.EventSynced, "", "")
	ended := make(chan error)
	go func() {
		_, err := w.Next(ctx)
		ended <- err
	}()
	for range 2 {
		if err := w.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	wantError(t, "Next during Close", <-ended, client.ErrClosed)
	_, err := w.Next(ctx)
	wantError(t, "Next after Close", err, client.ErrClosed)
}

// testWatchUnderWrites opens watches while others write: what each has shown
// ends up equal to the contents (F9).
func testWatchUnderWrites(t *testing.T, ctx context.Context, c client.Cluster) {
	k := keyspace(t, ctx, c, "k")
	const writers, rounds, watchers = 4, 250, 6
	var writing, watching sync.WaitGroup
	for i := range writers {
		writing.Go(func() {
			rng := rand.New(rand.NewPCG(1, uint64(i)))
			for j := range rounds {
				key := fmt.Sprintf("k%d", rng.IntN(40))
				var err error
				if rng.IntN(3) == 0 {
					_, err = k.Delete(ctx, key, nil)
				} else {
					_, err = k.Put(ctx, key, fmt.Appendf(nil, "%d.%d", i, j), nil)
				}
				if err != nil {
					t.Errorf("write: %v", err)
					return
				}
			}
		})
	}
	want := make(map[string]string)
	known := make(chan struct{}) // closed when want is the contents, for good
	for range watchers {
		watching.Go(func() { follow(t, ctx, k, "end", known, want) })
	}
	writing.Wait()
	put(t, ctx, k, "end", "1", nil)
	for e, err := range k.List(ctx, "", nil) {
		if err != nil {
			t.Error(err)
		}
		want[e.Key] = string(e.Value)
	}
	close(known)
	watching.Wait()
}

// follow applies the events of a watch to a map until that equals want. That key
// end is there says only that the end is near: a watch that fell behind shows the
// snapshot that mends it in the order of the keys.
func follow(t *testing.T, ctx context.Context, k client.Keyspace, end string, known <-chan struct{}, want map[string]string) {
	w, err := k.Watch(ctx, "", nil)
	if err != nil {
		t.Errorf("Watch: %v", err)
		return
	}
	defer w.Close()
	shown := make(map[string]string)
	for {
		ev, err := w.Next(ctx)
		if err != nil {
			<-known
			t.Errorf("Next: %v; shown %d keys, the keyspace has %d: got %v, want %v", err, len(shown), len(want), shown, want)
			return
		}
		Apply(shown, ev)
		if _, ok := shown[end]; !ok {
			continue
		}
		if <-known; maps.Equal(shown, want) {
			return
		}
	}
}

// Apply does to shown what an event says.
func Apply(shown map[string]string, ev client.Event) {
	switch ev.Type {
	case client.EventResync:
		clear(shown)
	case client.EventPut:
		shown[ev.Entry.Key] = string(ev.Entry.Value)
	case client.EventDelete:
		delete(shown, ev.Entry.Key)
	}
}

// testSlowWatch leaves a watch unread while much is written, and then reads it.
func testSlowWatch(t *testing.T, ctx context.Context, c client.Cluster) {
	k := keyspace(t, ctx, c, "k")
	w := watch(t, ctx, k, "", nil)
	wantEvent(t, ctx, w, client.EventSynced, "", "")
	value := strings.Repeat("v", 16<<10)
	const rounds = 400 // 6 MiB: more than any buffer holds
	for i := range rounds {
		put(t, ctx, k, fmt.Sprint(i%10), value, nil)
	}
	put(t, ctx, k, "end", "1", nil)
	shown := make(map[string]string)
	for {
		ev := next(t, ctx, w)
		Apply(shown, ev)
		if _, ok := shown["end"]; ok && len(shown) == 11 {
			return
		}
	}
}
