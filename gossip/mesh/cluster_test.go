package mesh

import (
	"context"
	"flag"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/meshkv/meshkv/gossip/faultnet"
)

// fast are timings for tests that do not measure the defaults. A machine that is busy with other
// packages' tests stalls this process for more than a second at times.
var fast = Timings{
	ProbeInterval: 200 * time.Millisecond, ProbeTimeout: 150 * time.Millisecond, SuspicionMult: 8,
	GossipInterval: 40 * time.Millisecond, Redial: 500 * time.Millisecond, DialTimeout: time.Second,
	LinkPing: 200 * time.Millisecond, LinkSilence: 3 * time.Second, NameGrace: time.Second,
}

// TestMain runs more tests at once than there are cores: they wait most of the time.
func TestMain(m *testing.M) {
	flag.Parse()
	flag.Set("test.parallel", "4")
	os.Exit(m.Run())
}

// node is a running Mesh whose links are read until they end.
type node struct {
	*Mesh
	t      *testing.T
	stop   context.CancelFunc
	result chan error

	mu     sync.Mutex // protects the fields below
	latest map[string]Member
	events []Member
	links  map[string]*Link
	frames map[string]int // received, by peer
	change chan struct{}
}

type cluster struct {
	t   *testing.T
	net *faultnet.Network
}

func newCluster(t *testing.T) *cluster { return &cluster{t: t, net: faultnet.New(1)} }

func logTo(t *testing.T, name string) *slog.Logger {
	if os.Getenv("MESH_LOG") == "" {
		return nil
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("node", name)
}

// start runs a node on a port of its own; edit may change its configuration.
func (c *cluster) start(name string, inc uint64, edit func(*Config), seeds ...string) *node {
	c.t.Helper()
	cfg := Config{
		Name: name, Cluster: "test", Bind: "127.0.0.1:0", Inc: inc, Join: seeds, Timings: fast,
		Logger: logTo(c.t, name),
	}
	if c.net != nil {
		cfg.Network = c.net.Node(name)
	}
	if edit != nil {
		edit(&cfg)
	}
	m, err := New(cfg)
	if err != nil {
		c.t.Fatalf("start %s: %v", name, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	n := &node{
		Mesh: m, t: c.t, stop: cancel, result: make(chan error, 1),
		latest: make(map[string]Member), links: make(map[string]*Link), frames: make(map[string]int), change: make(chan struct{}),
	}
	go func() { n.result <- m.Run(ctx) }()
	go func() {
		for e := range m.Events() {
			n.update(func() {
				n.latest[e.Member.Name] = e.Member
				n.events = append(n.events, e.Member)
			})
		}
	}()
	go func() {
		for l := range m.Links() {
			n.update(func() { n.links[l.Peer.Name] = l })
			go n.read(l)
		}
	}()
	c.t.Cleanup(n.kill)
	return n
}

func (n *node) update(f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f()
	close(n.change)
	n.change = make(chan struct{})
}

func (n *node) read(l *Link) {
	var buf []byte
	for {
		b, err := l.ReadFrame(buf)
		if err != nil {
			n.update(func() {
				if n.links[l.Peer.Name] == l {
					delete(n.links, l.Peer.Name)
				}
			})
			return
		}
		buf = b
		n.update(func() { n.frames[l.Peer.Name]++ })
	}
}

// kill ends the node without leaving, and waits for it. It may be called twice.
func (n *node) kill() {
	n.stop()
	select {
	case err := <-n.result:
		n.result <- err
	case <-time.After(10 * time.Second):
		n.t.Errorf("%s does not stop", n.self.name)
	}
}

// until waits for a condition on what the node was told.
func (n *node) until(what string, within time.Duration, cond func() bool) time.Duration {
	n.t.Helper()
	start := time.Now()
	timeout := time.After(within)
	for {
		n.mu.Lock()
		ok, change := cond(), n.change
		n.mu.Unlock()
		if ok {
			return time.Since(start)
		}
		select {
		case <-change:
		case <-time.After(20 * time.Millisecond): // some conditions look at what has no event
		case <-timeout:
			n.t.Fatalf("%s: not within %v: %s; members %v", n.self.name, within, what, n.Members())
		}
	}
}

func (n *node) sees(within time.Duration, s Status, names ...string) time.Duration {
	n.t.Helper()
	return n.until(s.String()+" "+strings.Join(names, ","), within, func() bool {
		return !slices.ContainsFunc(names, func(name string) bool { return n.latest[name].Status != s })
	})
}

func (n *node) linked(within time.Duration, names ...string) time.Duration {
	n.t.Helper()
	return n.until("links to "+strings.Join(names, ","), within, func() bool {
		return !slices.ContainsFunc(names, func(name string) bool { return n.links[name] == nil })
	})
}

func (n *node) knows(within time.Duration, name string, inc uint64) time.Duration {
	n.t.Helper()
	return n.until("new incarnation of "+name, within, func() bool {
		return n.latest[name].Inc == inc && n.latest[name].Status == StatusAlive
	})
}

// meet waits until all nodes are alive and linked to all others.
func meet(within time.Duration, nodes ...*node) {
	for _, n := range nodes {
		n.t.Helper()
		var others []string
		for _, o := range nodes {
			if o != n {
				others = append(others, o.self.name)
			}
		}
		n.sees(within, StatusAlive, others...)
		n.linked(within, others...)
	}
}
