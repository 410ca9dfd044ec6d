package host_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/meshkv/meshkv/consensus/host"
	"github.com/meshkv/meshkv/consensus/logstore"
	"github.com/meshkv/meshkv/consensus/placement"
)

// patience bounds what should happen soon; only a test that fails uses it up.
const patience = 30 * time.Second

// A cluster is servers of one process, over loopback.
type cluster struct {
	t        *testing.T
	dir      string
	policy   placement.Policy
	logStore logstore.Kind
	zones    map[string]string // of servers; none: ""

	mu    sync.Mutex // protects the fields below
	addrs map[string]string
	down  map[string]time.Time
	hosts map[string]*host.Host
}

func newCluster(t *testing.T) *cluster {
	return &cluster{t: t, dir: t.TempDir(), addrs: make(map[string]string), down: make(map[string]time.Time), hosts: make(map[string]*host.Host)}
}

func (c *cluster) dial(ctx context.Context, node string) (net.Conn, error) {
	c.mu.Lock()
	addr, ok := c.addrs[node]
	c.mu.Unlock()
	if !ok {
		return nil, fmt.Errorf("node %s is not there", node)
	}
	return new(net.Dialer).DialContext(ctx, "tcp", addr)
}

func (c *cluster) alive(node string) (bool, time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, up := c.hosts[node]
	return up, c.down[node]
}

// publish stands for gossip: all hosts learn of an entry.
func (c *cluster) publish(e host.Entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, h := range c.hosts {
		h.Learn(e)
	}
}

func (c *cluster) start(name string, bootstrap ...string) *host.Host {
	c.t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		c.t.Fatal(err)
	}
	c.mu.Lock()
	c.addrs[name] = ln.Addr().String()
	c.mu.Unlock()
	h, err := c.openAt(ln, name, bootstrap...)
	if err != nil {
		c.t.Fatal(err)
	}
	c.mu.Lock()
	c.hosts[name] = h
	c.mu.Unlock()
	c.t.Cleanup(func() { c.stop(name) })
	return h
}

// open opens a server that may be refused.
func (c *cluster) open(name string, bootstrap ...string) (*host.Host, error) {
	c.t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		c.t.Fatal(err)
	}
	defer ln.Close()
	return c.openAt(ln, name, bootstrap...)
}

func (c *cluster) openAt(ln net.Listener, name string, bootstrap ...string) (*host.Host, error) {
	var out slog.Handler = slog.DiscardHandler
	if testing.Verbose() {
		out = slog.NewTextHandler(c.t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo})
	}
	return host.Open(host.Config{
		Name: name, Zone: c.zones[name], Dir: filepath.Join(c.dir, name), Listener: ln, Dial: c.dial, Alive: c.alive, Bootstrap: bootstrap, Policy: c.policy, LogStore: c.logStore,
		Publish: c.publish, Failed: func(err error) { c.t.Errorf("host %s failed: %v", name, err) },
		Logger: slog.New(out).With("node", name),
	})
}

func (c *cluster) stop(name string) {
	c.mu.Lock()
	h := c.hosts[name]
	delete(c.hosts, name)
	c.down[name] = time.Now()
	c.mu.Unlock()
	if h == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := h.Close(ctx); err != nil {
		c.t.Errorf("close %s: %v", name, err)
	}
}

// leaderOf is the server that leads a keyspace.
func (c *cluster) leaderOf(ctx context.Context, at, keyspace string) string {
	c.t.Helper()
	for {
		c.mu.Lock()
		h := c.hosts[at]
		c.mu.Unlock()
		d, err := h.Describe(ctx, keyspace)
		if err == nil && d.Leader != "" && d.Term > 0 {
			return d.Leader
		}
		if ctx.Err() != nil {
			c.t.Fatalf("no leader of %s: %v", keyspace, err)
		}
		pause(ctx, 20*time.Millisecond)
	}
}

// pause waits between two looks at a condition.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// wipe deletes the disk of a server that does not run.
func (c *cluster) wipe(name string) {
	c.t.Helper()
	if err := os.RemoveAll(filepath.Join(c.dir, name)); err != nil {
		c.t.Fatal(err)
	}
}
