package keyspace

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/gossip"
	"github.com/meshkv/meshkv/storage"
)

// A disk that does not keep up: peers are asked for a pause, local puts are
// refused and reads and deletes are not; when it has caught up all goes on.
func TestDiskDoesNotKeepUp(t *testing.T) {
	s := storage.OpenMemory()
	if _, err := s.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	env := testEnv()
	env.Writer = storage.NewWriter(s, &storage.WriterOptions{MaxBacklog: 1 << 20})
	k := openEmpty(env)
	from := testEnv()
	from.Name, from.Inc, from.Self = "n2", testInc+1, "n2/1"
	from.Owners.Set(from.Inc, Owner{Name: "n2"})
	peer := openEmpty(from)
	now := time.Now()
	k.LinkUp(now, from.Self, gossip.RoleDirect)
	peer.LinkUp(now, env.Self, gossip.RoleDirect)
	// exchange carries what both have for each other, and reports whether k was throttled.
	exchange := func() {
		t.Helper()
		ways := []struct {
			a, b *Keyspace
		}{{peer, k}, {k, peer}}
		for moved := true; moved; {
			moved = false
			for _, w := range ways {
				frame, ok := w.a.NextFrame(time.Now(), w.b.env.Self, nil, 64<<10)
				if !ok {
					continue
				}
				moved = true
				if err := w.b.Step(time.Now(), w.a.env.Self, slices.Clone(frame)); err != nil {
					t.Fatal(err)
				}
				if err := w.b.Throttle(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	exchange()
	value := make([]byte, 1000)
	for i := range 2000 {
		put(t, peer, fmt.Sprint("k", i), string(value), nil)
	}
	exchange()
	if st := k.Stats(); st.Choked != 1 || !env.Writer.Overloaded() {
		t.Fatalf("choked %d, overloaded %v", st.Choked, env.Writer.Overloaded())
	}
	if l := peer.Links()[0]; !l.Choked || l.QueuedOps == 0 {
		t.Fatalf("the peer's link: %+v", l)
	}
	if _, err := k.Put(t.Context(), "own", value, nil); !errors.Is(err, client.ErrOverloaded) {
		t.Fatalf("put: got %v, want ErrOverloaded", err)
	}
	if _, err := k.Get(t.Context(), "k0", nil); err != nil {
		t.Fatalf("get: %v", err)
	}
	if _, err := k.Delete(t.Context(), "k0", nil); err != nil {
		t.Fatalf("delete: %v", err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- env.Writer.Run(ctx) }()
	for {
		k.mu.Lock()
		ticket := k.ticket
		k.mu.Unlock()
		if err := env.Writer.Wait(t.Context(), ticket); err != nil {
			t.Fatal(err)
		}
		k.Tick(time.Now())
		exchange()
		if peer.Links()[0].QueuedOps == 0 && k.Stats().Choked == 0 {
			break
		}
	}
	put(t, k, "own", "v", nil)
	exchange()
	a, _ := k.Digest(t.Context())
	b, _ := peer.Digest(t.Context())
	if a.Digest != b.Digest {
		t.Errorf("digests %s and %s", a.Digest, b.Digest)
	}
	if n := env.queues.bytes.Load() + from.queues.bytes.Load(); n != 0 {
		t.Errorf("%d bytes are still on the budget", n)
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}
