package api

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/crdt"
	"github.com/meshkv/meshkv/gossip"
	"github.com/meshkv/meshkv/keyspace"
	"github.com/meshkv/meshkv/node/api/internal/memory"
	"github.com/meshkv/meshkv/storage"
)

var (
	mapSteps = flag.Int("map.steps", 0, "writes of TestMapEqualsTheStore; 0: 30,000, or 1,000,000 with MESH_LONG=1")
	mapSeed  = flag.Uint64("map.seed", 0, "seed of TestMapEqualsTheStore; 0: a fresh one")
)

type noPeers struct{}

func (noPeers) Wake(string, gossip.PeerID) {}

// mapNode is a node with one keyspace, the real one, behind the real server.
type mapNode struct {
	memory.Cluster
	ks     *keyspace.Keyspace
	server *Server
	served chan error

	mu   sync.Mutex // protects the fields below
	addr string     // empty: nobody can connect
}

func (n *mapNode) Keyspace(context.Context, string) (client.Keyspace, error) { return n.ks, nil }
func (n *mapNode) Lookup(string) (client.Keyspace, error)                    { return n.ks, nil }

func (n *mapNode) setAddr(addr string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.addr = addr
}

func (n *mapNode) serve(t *testing.T) (addr string) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(n, Options{})
	n.server, n.served = s, make(chan error, 1)
	go func() { n.served <- s.Serve(ln) }()
	return ln.Addr().String()
}

func (n *mapNode) stop(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := errors.Join(n.server.Shutdown(ctx), <-n.served); err != nil {
		t.Error(err)
	}
}

func newMapNode(t *testing.T, i int) *mapNode {
	name, inc := fmt.Sprint("n", i), crdt.Inc((i+1)<<22)
	env := &keyspace.Env{
		Name: name, Inc: inc, Self: gossip.PeerID(name + "/1"), Clock: keyspace.NewClock(0), Owners: keyspace.NewOwners(),
		Waker: noPeers{}, Closed: func([]crdt.Inc) {}, Logger: slog.New(slog.DiscardHandler),
	}
	env.Owners.Set(inc, keyspace.Owner{Name: name})
	return &mapNode{ks: keyspace.Open("k", env, storage.KeyspaceState{}, time.Now())}
}

// mapWorld is the nodes, the client of all of them, and what its map has told.
type mapWorld struct {
	t     *testing.T
	rng   *rand.Rand
	nodes []*mapNode

	mu       sync.Mutex // protects the fields below
	conns    []net.Conn
	shown    map[string]client.Version
	sentinel string // the value that ends a round
	served   int    // the node that it came from
	stall    chan struct{}

	ended chan string // receives the sentinel
}

func (w *mapWorld) dial(ctx context.Context, name string) (net.Conn, error) {
	var i int
	fmt.Sscanf(name, "n%d", &i)
	n := w.nodes[i]
	n.mu.Lock()
	addr := n.addr
	n.mu.Unlock()
	if addr == "" {
		return nil, errors.New("down")
	}
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.conns = append(w.conns, c)
	return c, nil
}

// cut breaks all connections.
func (w *mapWorld) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.conns {
		c.Close()
	}
	w.conns = nil
}

// change is OnChange: the map tells nothing untrue.
func (w *mapWorld) change(c client.MapChange) {
	w.mu.Lock()
	defer w.mu.Unlock()
	before, had := w.shown[c.Key]
	switch {
	case c.Prev == nil && c.Next == nil, (c.Prev != nil) != had, had && c.Prev.Version != before:
		w.t.Errorf("change of %q from %+v to %+v, shown was %v", c.Key, c.Prev, c.Next, before)
	case c.Next == nil:
		delete(w.shown, c.Key)
		return
	case had && c.Next.Version == before:
		w.t.Errorf("change of %q to the version %v that it had", c.Key, before)
	}
	w.shown[c.Key] = c.Next.Version
	value, node, _ := strings.Cut(string(c.Next.Value), "@")
	if value == w.sentinel && value != "" {
		fmt.Sscan(node, &w.served)
		w.ended <- value
	}
	if stall := w.stall; stall != nil {
		w.mu.Unlock()
		<-stall
		w.mu.Lock()
	}
}

// TestMapEqualsTheStore: writes go on at nodes that differ in everything, while the client of
// all of them is cut off, moved to another node, drained, and stalled beyond the credit
// and the log. Whatever the map calls a change is one, and when the writers
// pause it equals the node that serves it.
func TestMapEqualsTheStore(t *testing.T) {
	steps, seed := *mapSteps, *mapSeed
	if steps == 0 {
		steps = 30_000
		if os.Getenv("MESH_LONG") == "1" {
			steps = 1_000_000
		}
	}
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("reproduce with -map.seed=%d -map.steps=%d", seed, steps)
	w := &mapWorld{t: t, rng: rand.New(rand.NewPCG(seed, 1)), shown: make(map[string]client.Version), ended: make(chan string, 64)}
	for i := range 3 {
		n := newMapNode(t, i)
		n.addr = n.serve(t)
		w.nodes = append(w.nodes, n)
		defer n.ks.Close()
		defer func() { n.stop(t) }()
	}
	c, err := client.Dial(t.Context(), "n0,n1,n2", &client.DialOptions{DialTo: w.dial, MaxBackoff: 20 * time.Millisecond, WatchBuffer: 16 << 10})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	remote, err := c.Keyspace(t.Context(), "k")
	if err != nil {
		t.Fatal(err)
	}
	m := client.NewMap(remote, "m/", &client.MapOptions{OnChange: w.change, MaxBackoff: 20 * time.Millisecond})
	defer m.Close()

	var cuts, moves, drains, stalls, checks int
	down, upAt, goOnAt := -1, 0, 0
	bring := func() {
		if down >= 0 {
			w.nodes[down].setAddr(w.nodes[down].serve(t))
			down = -1
		}
		if w.stall != nil {
			w.mu.Lock()
			close(w.stall)
			w.stall = nil
			w.mu.Unlock()
		}
	}
	defer bring()
	for i := 1; i <= steps && !t.Failed(); i++ {
		w.write(i)
		switch {
		case i%(steps/10) == 0:
			bring()
			w.check(m, i)
			checks++
		case i == goOnAt && w.stall != nil:
			w.mu.Lock()
			close(w.stall)
			w.stall = nil
			w.mu.Unlock()
		case i >= upAt && down >= 0:
			w.nodes[down].setAddr(w.nodes[down].serve(t))
			down = -1
		}
		switch w.rng.IntN(1000) {
		case 0:
			w.cut()
			cuts++
		case 1, 2:
			if down < 0 {
				fmt.Sscanf(c.Addr(), "n%d", &down)
				w.nodes[down].setAddr("")
				if w.rng.IntN(2) == 0 {
					w.cut()
					moves++
				} else {
					drains++
				}
				w.nodes[down].stop(t)
				upAt = i + w.rng.IntN(300)
			}
		case 3:
			if w.stall == nil {
				w.mu.Lock()
				w.stall = make(chan struct{})
				w.mu.Unlock()
				stalls++
				goOnAt = i + 1 + w.rng.IntN(2000)
				if w.rng.IntN(100) == 0 { // beyond the log
					goOnAt = i + 250_000
				}
			}
		}
	}
	t.Logf("%d cuts, %d nodes lost, %d drained, %d stalls, %d checks", cuts, moves, drains, stalls, checks)
	if steps >= 30_000 && (cuts == 0 || moves == 0 || drains == 0 || stalls == 0 || checks == 0) {
		t.Error("not all of it happened")
	}
}

// write changes one key at one node, now and then outside of the map's prefix.
func (w *mapWorld) write(i int) {
	k := w.nodes[w.rng.IntN(len(w.nodes))].ks
	key := fmt.Sprintf("m/%03d", w.rng.IntN(400))
	if w.rng.IntN(10) == 0 {
		key = "mm/other"
	}
	var err error
	if w.rng.IntN(3) == 0 {
		_, err = k.Delete(context.Background(), key, nil)
	} else {
		_, err = k.Put(context.Background(), key, fmt.Appendf(nil, "v%d", i), nil)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// check has the map come to what its node has, and compares the two.
func (w *mapWorld) check(m *client.Map, step int) {
	for round := 0; ; round++ {
		sentinel := fmt.Sprintf("end %d %d", step, round)
		w.mu.Lock()
		w.sentinel = sentinel
		w.mu.Unlock()
		for i, n := range w.nodes {
			if _, err := n.ks.Put(context.Background(), "m/~", fmt.Appendf(nil, "%s@%d", sentinel, i), nil); err != nil {
				w.t.Fatal(err)
			}
		}
		select {
		case at := <-w.ended:
			if at != sentinel { // of the round before, from another node
				continue
			}
		case <-time.After(60 * time.Second):
			since, stale := m.Stale()
			w.t.Fatalf("step %d: the map does not come to the end: stale %v since %v, %v", step, stale, since, m.Err())
		}
		if _, stale := m.Stale(); !stale {
			break
		}
	}
	// The map shows what a snapshot took away before it has told all of it.
	shown := func() int {
		w.mu.Lock()
		defer w.mu.Unlock()
		return len(w.shown)
	}
	for deadline := time.Now().Add(60 * time.Second); shown() != m.Len() && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	got := make(map[string]client.Version)
	for e := range m.Range("") {
		got[e.Key] = e.Version
		if one, ok := m.Get(e.Key); !ok || one.Version != e.Version || w.shown[e.Key] != e.Version {
			w.t.Errorf("step %d: %q is %v in Range, %v in Get, %v by its changes", step, e.Key, e.Version, one.Version, w.shown[e.Key])
		}
	}
	want, node := 0, w.served
	for e, err := range w.nodes[node].ks.List(context.Background(), "m/", nil) {
		if err != nil {
			w.t.Fatal(err)
		}
		if want++; got[e.Key] != e.Version {
			w.t.Errorf("step %d: the map has %v of %q, node %d has %v", step, got[e.Key], e.Key, node, e.Version)
		}
	}
	if len(got) != want || m.Len() != want || len(w.shown) != want {
		w.t.Errorf("step %d: the map has %d entries, by Len %d, by its changes %d; node %d has %d", step, len(got), m.Len(), len(w.shown), node, want)
	}
}
