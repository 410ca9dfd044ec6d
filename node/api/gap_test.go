package api

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/client/clienttest"
	"github.com/meshkv/meshkv/node/api/internal/memory"
)

var (
	gapSteps = flag.Int("gap.steps", 20_000, "writes of TestF9WatchHasNoGaps")
	gapSeed  = flag.Uint64("gap.seed", 0, "seed of TestF9WatchHasNoGaps; 0: a fresh one")
)

// TestF9WatchHasNoGaps: writes go on while the reader of a watch stalls, its
// connection is cut, and the node is restarted under another incarnation. The
// reader is told nothing untrue: every put changes its map, every delete names a
// key that is in it, and in the end the map equals the store, without a resync.
func TestF9WatchHasNoGaps(t *testing.T) {
	seed := *gapSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("reproduce with -gap.seed=%d -gap.steps=%d", seed, *gapSteps)
	rng := rand.New(rand.NewPCG(seed, 1))

	backend := memory.New(1)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(backend, Options{})
	go s.Serve(ln)
	p := newProxy(t, ln.Addr().String())
	c := dial(t, p.addr(), &client.DialOptions{MaxBackoff: 60 * time.Millisecond, WatchBuffer: 4 << 10})
	remote, err := c.Keyspace(t.Context(), "k")
	if err != nil {
		t.Fatal(err)
	}
	w, err := remote.Watch(t.Context(), "net1/", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()

	stall := make(chan struct{})
	shown := make(map[string]string)
	read := make(chan error, 1)
	go func() { read <- readUntilEnd(t.Context(), w, shown, stall) }()

	var cuts, restarts, stalls int
	ctx := t.Context()
	k, _ := backend.Keyspace(ctx, "k")
	for i := range *gapSteps {
		key := fmt.Sprintf("net1/%d", rng.IntN(60))
		switch rng.IntN(8) {
		case 0:
			key = "net10/x" // not watched
			fallthrough
		case 1, 2, 3, 4:
			_, err = k.Put(ctx, key, fmt.Appendf(nil, "v%d", i), nil)
		case 5:
			_, err = k.Put(ctx, key, fmt.Appendf(nil, "v%d", i), &client.PutOptions{TTL: time.Duration(1+rng.IntN(20)) * time.Millisecond})
		default:
			_, err = k.Delete(ctx, key, nil)
		}
		if err != nil {
			t.Fatal(err)
		}
		switch rng.IntN(2000) {
		case 0, 1, 2, 3:
			cuts += p.cut()
		case 4:
			restarts++
			backend = backend.Restarted(uint64(restarts + 1))
			k, _ = backend.Keyspace(ctx, "k")
			next, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			old := s
			s = NewServer(backend, Options{})
			go s.Serve(next)
			p.redirect(next.Addr().String())
			if err := old.Shutdown(ctx); err != nil {
				t.Fatal(err)
			}
			p.cut()
		case 5:
			stalls++
			select {
			case stall <- struct{}{}: // the reader rests for 300 writes
			case err := <-read:
				t.Fatal(err)
			}
			for range 300 {
				if _, err := k.Put(ctx, fmt.Sprintf("net1/%d", rng.IntN(60)), []byte("stalled"), nil); err != nil {
					t.Fatal(err)
				}
			}
			stall <- struct{}{}
		}
	}
	if _, err := k.Put(ctx, "net1/end", nil, nil); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-read:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("the last put did not reach the reader")
	}
	// What expires last is reported last.
	for len(shown) > 0 && anyExpiring(t, k) {
		ev, err := w.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		clienttest.Apply(shown, ev)
	}
	want := make(map[string]string)
	for e, err := range k.List(ctx, "net1/", nil) {
		if err != nil {
			t.Fatal(err)
		}
		want[e.Key] = string(e.Value)
	}
	for deadline := time.Now().Add(5 * time.Second); !maps.Equal(shown, want) && time.Now().Before(deadline); {
		short, cancel := context.WithDeadline(ctx, deadline)
		ev, err := w.Next(short)
		cancel()
		if err == nil {
			clienttest.Apply(shown, ev)
		}
	}
	if !maps.Equal(shown, want) {
		t.Errorf("after %d cuts, %d restarts and %d stalls: shown %v, want %v", cuts, restarts, stalls, shown, want)
	}
	t.Logf("%d cuts, %d restarts, %d stalls", cuts, restarts, stalls)
	if err := s.Shutdown(ctx); err != nil {
		t.Fatal(err)
	}
}

func anyExpiring(t *testing.T, k client.Keyspace) bool {
	for e, err := range k.List(t.Context(), "net1/", nil) {
		if err != nil {
			t.Fatal(err)
		}
		if !e.Expires.IsZero() {
			return true
		}
	}
	return false
}

func readUntilEnd(ctx context.Context, w client.Watch, shown map[string]string, stall <-chan struct{}) error {
	versions := make(map[string]client.Version)
	for {
		select {
		case <-stall:
			<-stall
		default:
		}
		short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
		ev, err := w.Next(short)
		cancel()
		if errors.Is(err, context.DeadlineExceeded) {
			continue
		}
		if err != nil {
			return err
		}
		key := ev.Entry.Key
		before, known := versions[key]
		switch ev.Type {
		case client.EventResync:
			return errors.New("a resync reached the reader")
		case client.EventPut:
			if known && before == ev.Entry.Version {
				return fmt.Errorf("put of %s with version %v twice", key, before)
			}
			if known != (ev.Prev != nil) || known && ev.Prev.Version != before {
				return fmt.Errorf("put of %s: prev %+v, shown before was version %v", key, ev.Prev, before)
			}
			versions[key] = ev.Entry.Version
		case client.EventDelete:
			if !known || ev.Prev == nil || ev.Prev.Version != before {
				return fmt.Errorf("delete of %s: prev %+v, shown before was version %v", key, ev.Prev, before)
			}
			delete(versions, key)
		}
		clienttest.Apply(shown, ev)
		if key == "net1/end" {
			return nil
		}
	}
}
