package group_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/meshkv/meshkv/consensus/group"
	"github.com/meshkv/meshkv/consensus/logstore"
	"github.com/meshkv/meshkv/consensus/raftnet"
	"github.com/meshkv/meshkv/consensus/streams"
	"github.com/meshkv/meshkv/consensus/streams/memnet"
)

// kv is a state machine of "key=value" commands.
type kv struct {
	mu       sync.Mutex // protects the fields below
	values   map[string]string
	commands int
	restored bool
	block    chan struct{} // closed when commands may be applied; nil: at once
}

func newKV() *kv { return &kv{values: make(map[string]string)} }

func (k *kv) Apply(_ uint64, cmd []byte) any {
	k.mu.Lock()
	block := k.block
	k.mu.Unlock()
	if block != nil {
		<-block
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	key, value, _ := strings.Cut(string(cmd), "=")
	before := k.values[key]
	k.values[key] = value
	k.commands++
	return before
}

func (k *kv) Snapshot() (group.Snapshot, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return kvSnapshot{maps.Clone(k.values), k.commands}, nil
}

type kvSnapshot struct {
	Values   map[string]string
	Commands int
}

func (s kvSnapshot) Write(w io.Writer) error { return json.NewEncoder(w).Encode(s) }
func (kvSnapshot) Release()                  {}

func (k *kv) Restore(r io.Reader) error {
	var s kvSnapshot
	if err := json.NewDecoder(r).Decode(&s); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.values, k.commands, k.restored = s.Values, s.Commands, true
	return nil
}

func (k *kv) get(key string) string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.values[key]
}

func (k *kv) state() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	var b bytes.Buffer
	for _, key := range slices.Sorted(maps.Keys(k.values)) {
		fmt.Fprintf(&b, "%s=%s ", key, k.values[key])
	}
	return fmt.Sprint(b.String(), k.commands)
}

// A cluster is nodes on a network in memory. Each has the groups of names, over one
// listener and in one log store.
type cluster struct {
	t       *testing.T
	network *memnet.Network
	dir     string
	names   []string
	config  func(*group.Config)
	beats   bool // heartbeats are coalesced
	nodes   []*node
}

type node struct {
	id     string
	dir    string
	store  *logstore.Store
	groups map[string]*group.Group
	fsms   map[string]*kv
	beats  *beats
	open   func(name string) // the replica of a group
	stop   func()
}

// newCluster must be called within a synctest bubble. Its nodes are stopped by
// cluster.stop, within the bubble too.
func newCluster(t *testing.T, n int, names []string, config func(*group.Config)) *cluster {
	t.Helper()
	return startCluster(t, n, names, config, false)
}

// newBeatingCluster is newCluster with heartbeats that are coalesced.
func newBeatingCluster(t *testing.T, n int, names []string, config func(*group.Config)) *cluster {
	t.Helper()
	return startCluster(t, n, names, config, true)
}

func startCluster(t *testing.T, n int, names []string, config func(*group.Config), beats bool) *cluster {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "meshkv-group")
	if err != nil {
		dir = t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	c := &cluster{t: t, network: memnet.New(), dir: dir, names: names, config: config, beats: beats}
	for i := range n {
		c.nodes = append(c.nodes, &node{id: fmt.Sprint("n", i), dir: filepath.Join(dir, fmt.Sprint("n", i))})
	}
	for _, n := range c.nodes {
		c.start(n)
	}
	return c
}

func (c *cluster) servers() (s []group.Server) {
	for _, n := range c.nodes {
		s = append(s, group.Server{ID: n.id, Addr: n.id})
	}
	return s
}

func (c *cluster) start(n *node) {
	c.t.Helper()
	must := func(err error) {
		if err != nil {
			c.t.Fatal(err)
		}
	}
	must(os.MkdirAll(n.dir, 0o700))
	ln, err := c.network.Listen(n.id)
	must(err)
	mux := streams.New(ln, c.network.Dialer(n.id))
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := mux.Run(ctx); err != nil {
			c.t.Error(err)
		}
	})
	wire, err := raftnet.Open(mux, nil)
	must(err)
	n.store, err = logstore.Open(filepath.Join(n.dir, "raft.db"), nil)
	must(err)
	if c.beats {
		n.beats, err = newBeats(mux, c.network.Dialer(n.id))
		must(err)
	}
	n.groups, n.fsms = make(map[string]*group.Group), make(map[string]*kv)
	n.open = func(name string) {
		c.t.Helper()
		log, err := n.store.Group(name)
		must(err)
		member, err := wire.Member(name, n.id)
		must(err)
		n.fsms[name] = newKV()
		cfg := group.Config{
			ID: n.id, Dir: filepath.Join(n.dir, name), Log: log, Transport: member, FSM: n.fsms[name], Bootstrap: c.servers(),
		}
		if c.beats {
			cfg.Heartbeats, err = n.beats.Line(name)
			must(err)
		}
		if c.config != nil {
			c.config(&cfg)
		}
		n.groups[name], err = group.Open(cfg)
		must(err)
	}
	for _, name := range c.names {
		n.open(name)
	}
	n.stop = func() {
		if c.beats {
			n.beats.close()
		}
		must(wire.Close())
		cancel()
		running.Wait()
		must(n.store.Close())
		n.groups = nil
	}
}

// close stops n in good order.
func (c *cluster) close(n *node) {
	c.t.Helper()
	for _, g := range n.groups {
		if err := g.Close(context.Background()); err != nil {
			c.t.Error(err)
		}
	}
	n.stop()
}

// kill stops n as if it were cut off at once: nobody hears of it any more, and
// nothing is handed over.
func (c *cluster) kill(n *node) {
	c.t.Helper()
	c.isolate(n)
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	for _, g := range n.groups {
		if err := g.Close(gone); err != nil {
			c.t.Error(err)
		}
	}
	n.stop()
}

func (c *cluster) isolate(n *node) {
	for _, o := range c.nodes {
		c.network.Cut(n.id, o.id)
		c.network.Cut(o.id, n.id)
	}
}

func (c *cluster) heal(n *node) {
	for _, o := range c.nodes {
		c.network.Heal(n.id, o.id)
		c.network.Heal(o.id, n.id)
	}
}

func (c *cluster) stop() {
	c.t.Helper()
	for _, n := range c.nodes {
		if n.groups != nil {
			c.close(n)
		}
	}
}

// await steps the bubble's clock until cond holds.
func await(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

// leader is the node that leads the group among those given, when all of these
// follow it.
func (c *cluster) leader(name string, among ...*node) *node {
	c.t.Helper()
	if among == nil {
		among = c.nodes
	}
	var leader *node
	await(c.t, "a leader of "+name, func() bool {
		leader = nil
		for _, n := range among {
			s, err := n.groups[name].Status()
			if err != nil {
				c.t.Fatal(err)
			}
			if s.State == "Leader" {
				leader = n
			}
		}
		return leader != nil
	})
	return leader
}

// without is the other nodes.
func (c *cluster) without(n *node) (others []*node) {
	for _, o := range c.nodes {
		if o != n {
			others = append(others, o)
		}
	}
	return others
}

// equal waits until all nodes given have the same state, and returns it.
func (c *cluster) equal(name string, among ...*node) (state string) {
	c.t.Helper()
	if among == nil {
		among = c.nodes
	}
	await(c.t, "equal replicas of "+name, func() bool {
		state = among[0].fsms[name].state()
		for _, n := range among {
			if n.fsms[name].state() != state {
				return false
			}
		}
		return true
	})
	return state
}

// put proposes until it is applied, wherever the leader is.
func (c *cluster) put(name, cmd string, among ...*node) *node {
	c.t.Helper()
	for range 100 {
		n := c.leader(name, among...)
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		_, err := n.groups[name].Propose(ctx, []byte(cmd))
		cancel()
		if err == nil {
			return n
		}
		if !errors.Is(err, group.ErrNotApplied) {
			c.t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond) // until the new leader is known
	}
	c.t.Fatal("never applied")
	return nil
}
