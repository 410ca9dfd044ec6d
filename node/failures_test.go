package node_test

import (
	"context"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/client/clienttest"
	"github.com/meshkv/meshkv/node"
)

var (
	f9Steps = flag.Int("f9.steps", 5_000, "writes of TestF9ClientMapEqualsStore")
	f9Seed  = flag.Uint64("f9.seed", 0, "its seed; 0: a fresh one")
)

// Eight nodes join one that holds 20,000 keys at the same time, while it is
// written to: every one of them has all of it in the end, and none waits for a
// timer of half a minute because another one is served.
func TestF7ParallelJoins(t *testing.T) {
	keys, joiners := 20_000, 8
	if underRace {
		keys = 3_000
	}
	first := start(t, node.Config{Name: "first", Durability: node.DurabilityMemory})
	ks := open(t, first, "net")
	for i := range keys {
		mustPut(t, ks, fmt.Sprintf("k%05d", i), "v", nil)
	}
	all := make([]*node.Node, joiners)
	var starting sync.WaitGroup
	for i := range all {
		starting.Go(func() {
			n, err := node.Start(t.Context(), node.Config{
				Name: fmt.Sprintf("join-%d", i), Durability: node.DurabilityMemory, Bind: "127.0.0.1:0", HTTP: "off", Join: []string{first.MeshAddr()},
			})
			if err != nil {
				t.Error(err)
				return
			}
			all[i] = n
			t.Cleanup(func() { stop(t, n) })
		})
	}
	for i := range 200 {
		mustPut(t, ks, fmt.Sprintf("during%d", i), "v", nil)
	}
	starting.Wait()
	if t.Failed() {
		return
	}
	for _, n := range all {
		until(t, n.Name()+" is ready", func() bool { return len(n.NotReady()) == 0 })
	}
	equal(t, "net", append(all, first)...)
	if d := digest(t, all[0], "net"); d.Entries != keys+200 {
		t.Errorf("%d entries, want %d", d.Entries, keys+200)
	}
	for _, n := range append(all, first) {
		st, err := n.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range st.Keyspaces {
			if len(k.Divergences) > 0 {
				t.Errorf("%s: joining is taken for a divergence: %+v", n.Name(), k.Divergences)
			}
		}
	}
}

// relay is a stream to a node that can be cut, and stalls when it is told to.
type relay struct {
	ln net.Listener

	mu    sync.Mutex // protects the fields below
	to    string
	conns map[net.Conn]struct{}
}

func newRelay(t *testing.T, to string) *relay {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{ln: ln, to: to, conns: make(map[net.Conn]struct{})}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			in, err := ln.Accept()
			if err != nil {
				return
			}
			r.mu.Lock()
			to := r.to
			r.mu.Unlock()
			out, err := net.Dial("tcp", to)
			if err != nil {
				in.Close()
				continue
			}
			r.mu.Lock()
			r.conns[in], r.conns[out] = struct{}{}, struct{}{}
			r.mu.Unlock()
			serving.Go(func() { io.Copy(out, in); in.Close(); out.Close() })
			serving.Go(func() { io.Copy(in, out); in.Close(); out.Close() })
		}
	})
	t.Cleanup(func() { ln.Close(); r.cut(""); serving.Wait() })
	return r
}

// cut breaks every stream that there is; those that follow lead to another
// address, if one is given.
func (r *relay) cut(to string) (cuts int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if to != "" {
		r.to = to
	}
	for c := range r.conns {
		c.Close()
		cuts++
	}
	clear(r.conns)
	return cuts
}

// A map kept by a watch over the API of one node, while others write at another
// node, equals the store, whatever the reader and its connection do. A delete
// that comes while the watch reconnects is not lost, nor does a neighbouring
// prefix leak in.
func TestF9ClientMapEqualsStore(t *testing.T) {
	seed := *f9Seed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("reproduce with -f9.seed=%d -f9.steps=%d", seed, *f9Steps)
	rng := rand.New(rand.NewPCG(seed, 9))
	ctx := t.Context()

	writer := start(t, node.Config{Name: "writer", Durability: node.DurabilityMemory})
	serve := func() *node.Node {
		n := start(t, node.Config{Name: "served", Durability: node.DurabilityMemory, HTTP: "127.0.0.1:0", Join: []string{writer.MeshAddr()}})
		until(t, "served is ready", func() bool { return len(n.NotReady()) == 0 })
		return n
	}
	served := serve()
	store := open(t, writer, "k")
	r := newRelay(t, served.APIAddr())
	c, err := client.Dial(ctx, r.ln.Addr().String(), &client.DialOptions{MaxBackoff: 20 * time.Millisecond, WatchBuffer: 4 << 10})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	remote, err := c.Keyspace(ctx, "k")
	if err != nil {
		t.Fatal(err)
	}
	w, err := remote.Watch(ctx, "net1/", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()

	shown := make(map[string]string)
	read := func(limit int) { // what comes, for a moment
		for range limit {
			short, cancel := context.WithTimeout(ctx, time.Millisecond)
			ev, err := w.Next(short)
			cancel()
			if err != nil {
				return
			}
			clienttest.Apply(shown, ev)
		}
	}
	cuts := 0
	for i := range *f9Steps {
		if (i+1)%(*f9Steps/2+1) == 0 { // half of it is after a restart, which no cursor survives
			mustPut(t, store, "net1/once", "v", nil)
			until(t, "the reader saw it", func() bool { read(1000); return shown["net1/once"] != "" })
			stop(t, served)
			if _, err := store.Delete(ctx, "net1/once", nil); err != nil { // in a time of which nobody can tell it
				t.Fatal(err)
			}
			served = serve()
			cuts += r.cut(served.APIAddr())
		}
		key := fmt.Sprintf("net1/%d", rng.IntN(60))
		switch rng.IntN(8) {
		case 0:
			key = "net10/x" // not watched
			fallthrough
		case 1, 2, 3, 4, 5:
			_, err = store.Put(ctx, key, fmt.Appendf(nil, "v%d", i), nil)
		default:
			_, err = store.Delete(ctx, key, nil)
		}
		if err != nil {
			t.Fatal(err)
		}
		switch rng.IntN(200) {
		case 0:
			cuts += r.cut("")
		case 1, 2, 3: // and otherwise the reader rests
			read(rng.IntN(300))
		}
	}
	mustPut(t, store, "net1/end", "end", nil)
	want := make(map[string]string)
	for e, err := range store.List(ctx, "net1/", nil) {
		if err != nil {
			t.Fatal(err)
		}
		want[e.Key] = string(e.Value)
	}
	until(t, "the reader's map equals the store", func() bool {
		read(1000)
		return maps.Equal(shown, want)
	})
	if cuts == 0 && *f9Steps >= 5_000 {
		t.Error("no connection was cut")
	}
	t.Logf("%d cuts", cuts)
}
