package mesh

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/meshkv/meshkv/gossip/faultnet"
)

// Not parallel: it counts goroutines.
func TestRunLeavesNothing(t *testing.T) {
	before := runtime.NumGoroutine()
	c := newCluster(t)
	a := c.start("a", 11, nil)
	b := c.start("b", 12, nil, a.Addr())
	d := c.start("d", 13, nil, a.Addr(), "127.0.0.1:1", "nobody.invalid:1")
	meet(patience, a, b, d)
	c.net.Partition([]string{"a", "b"}, []string{"d"}) // dials hang
	d.sees(patience, StatusFailed, "a", "b")
	for _, n := range []*node{a, b, d} {
		n.kill()
		if _, open := <-n.Events(); open {
			t.Error("events after the end")
		}
		if err := n.Close(); err != nil {
			t.Errorf("close after Run: %v", err)
		}
		if err := n.Run(context.Background()); !errors.Is(err, ErrNotRunning) {
			t.Errorf("second Run: %v", err)
		}
	}
	c.net.Heal() // closes what was closed across the partition
	// memberlist does not join its own goroutines; they end at once, or with a probe.
	for timeout := time.After(patience); ; {
		n := runtime.NumGoroutine()
		if n <= before {
			return
		}
		select {
		case <-timeout:
			buf := make([]byte, 1<<20)
			t.Fatalf("%d goroutines before, %d after\n%s", before, n, buf[:runtime.Stack(buf, true)])
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func TestCloseWithoutRun(t *testing.T) {
	m, err := New(Config{Name: "a", Inc: 1, Bind: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Leave(t.Context()); !errors.Is(err, ErrNotRunning) {
		t.Errorf("leave: %v", err)
	}
	if ms := m.Members(); len(ms) != 1 || ms[0].Name != "a" {
		t.Errorf("members %v", ms)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := New(Config{Name: "a", Inc: 2, Bind: m.Addr()})
	if err != nil {
		t.Fatalf("the address is not free: %v", err)
	}
	again.Close()
	if err := m.Run(t.Context()); !errors.Is(err, ErrNotRunning) {
		t.Errorf("run after close: %v", err)
	}
}

func TestBadConfig(t *testing.T) {
	for name, c := range map[string]Config{
		"no name":   {Inc: 1},
		"name":      {Inc: 1, Name: "a/b"},
		"no inc":    {Name: "a"},
		"bind":      {Name: "a", Inc: 1, Bind: "127.0.0.1"},
		"seed":      {Name: "a", Inc: 1, Join: []string{"x"}},
		"role":      {Name: "a", Inc: 1, Roles: []string{"a,b"}},
		"tags":      {Name: "a", Inc: 1, Bind: "127.0.0.1:0", Zone: strings.Repeat("z", 600)},
		"advertise": {Name: "a", Inc: 1, Bind: "127.0.0.1:0", Advertise: "127.0.0.1:port"},
	} {
		if m, err := New(c); !errors.Is(err, ErrConfig) {
			t.Errorf("%s: got %v", name, err)
			if m != nil {
				m.Close()
			}
		}
	}
}

func TestAdvertise(t *testing.T) {
	for _, c := range []struct{ advertise, bind, want string }{
		{"", "127.0.0.1:0", "127.0.0.1:"},
		{"127.0.0.9", "127.0.0.1:0", "127.0.0.9:"},
		{"127.0.0.9:0", "0.0.0.0:0", "127.0.0.9:"},
		{"127.0.0.9:77", "0.0.0.0:0", "127.0.0.9:77"},
		{"localhost:77", "0.0.0.0:0", "127.0.0.1:77"},
	} {
		m, err := New(Config{Name: "a", Inc: 1, Bind: c.bind, Advertise: c.advertise})
		if err != nil {
			t.Errorf("%+v: %v", c, err)
			continue
		}
		if !strings.HasPrefix(m.Addr(), c.want) || strings.HasSuffix(m.Addr(), ":0") {
			t.Errorf("%+v: got %s", c, m.Addr())
		}
		m.Close()
	}
}

// The defaults: a dead node, and one whose host is gone, are failed within about 5 s; the limit here leaves
// room for a busy machine. Not parallel: it measures.
func TestDetectionByDefaults(t *testing.T) {
	c := newCluster(t)
	nodes := []*node{c.start("n0", 10, lan)}
	for i := 1; i < 5; i++ {
		nodes = append(nodes, c.start(fmt.Sprintf("n%d", i), uint64(10+i), lan, nodes[0].Addr()))
	}
	meet(patience, nodes...)
	nodes[4].kill()
	c.net.Partition([]string{"n0", "n1", "n2"}, []string{"n3"})
	start := time.Now()
	for _, n := range nodes[:3] {
		n.sees(patience, StatusFailed, "n3", "n4")
	}
	took := time.Since(start)
	t.Logf("detected after %v", took)
	if took > 10*time.Second {
		t.Errorf("detected after %v", took)
	}
	for _, n := range nodes[:3] {
		n.mu.Lock()
		for _, e := range n.events {
			if e.Status == StatusFailed && e.Name != "n3" && e.Name != "n4" {
				t.Errorf("%s: %s failed by mistake", n.self.name, e.Name)
			}
		}
		n.mu.Unlock()
	}
}

func TestReadSnapshot(t *testing.T) {
	path := filepath.Join(t.TempDir(), "members")
	if known, err := readSnapshot(path); err != nil || known != nil {
		t.Errorf("no file: %v, %v", known, err)
	}
	text := "alive: a 127.0.0.1:1\nalive: b 127.0.0.1:2\nnot-alive: a\nclock: 7\nalive: \nalive: x evil.example:3\nalive: b 127.0.0.1:4\n\x00\xff\nleave\nalive: torn 127.0"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	known, err := readSnapshot(path)
	if got := fmt.Sprint(known[0].name, known[0].addr, known[1].name, known[1].addr, len(known)); err != nil || got != "a127.0.0.1:1b127.0.0.1:42" {
		t.Errorf("got %s, %v", got, err)
	}
	for i := range maxFormer {
		text += fmt.Sprintf("\nalive: n%d 127.0.0.1:5", i)
	}
	os.WriteFile(path, []byte(text), 0o600)
	if known, _ = readSnapshot(path); len(known) != maxFormer || known[0].name != "n0" {
		t.Errorf("%d from %s", len(known), known[0].name)
	}
}

// A node without seeds restarts elsewhere after everybody has forgotten it. It saw the others fail before it
// died, so that serf's own rejoin has nobody to ask.
func TestSnapshotRejoins(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	path := filepath.Join(t.TempDir(), "members.snapshot")
	reap := func(c *Config) { c.ReapAfter = 300 * time.Millisecond }
	keep := func(c *Config) { reap(c); c.SnapshotPath = path }
	a := c.start("a", 11, keep)
	b := c.start("b", 12, reap, a.Addr())
	meet(patience, a, b)
	c.net.Partition([]string{"a"}, []string{"b"})
	a.sees(patience, StatusReaped, "b")
	b.sees(patience, StatusReaped, "a")
	a.kill()
	c.net.Heal()
	a = c.start("a", 13, keep)
	b.knows(patience, "a", 13)
	meet(patience, a, b)
}

func lan(c *Config) { c.Timings = Timings{} }

// F7: many that join at once through one seed do not wait for each other.
func TestF7ParallelJoins(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	nodes := []*node{c.start("n0", 10, lan)}
	start := time.Now()
	for i := 1; i <= 8; i++ {
		nodes = append(nodes, c.start(fmt.Sprintf("n%d", i), uint64(10+i), lan, nodes[0].Addr()))
	}
	meet(patience, nodes...)
	t.Logf("full mesh after %v", time.Since(start))
}

// F5: all but one restart at once, some elsewhere, while one stays dead: everybody sees the new ones, the dead
// one is reaped everywhere, and does not come back.
func TestF5MassRestart(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	// The defaults, except that a death shows in half the time, and that no push/pull comes by
	// itself: of two nodes that both came back at other ports, each may have heard of the
	// other while it still took its former self for alive, and must not depend on that.
	reap := func(c *Config) {
		c.Timings = Timings{ProbeInterval: 300 * time.Millisecond, PushPullInterval: time.Hour}
		c.ReapAfter = 2 * time.Second
	}
	nodes := []*node{c.start("n0", 10, reap)}
	for i := 1; i < 6; i++ {
		nodes = append(nodes, c.start(fmt.Sprintf("n%d", i), uint64(10+i), reap, nodes[0].Addr()))
	}
	meet(patience, nodes...)
	for _, n := range nodes[1:] {
		n.kill()
	}
	live := []*node{nodes[0]}
	for i := 1; i < 5; i++ {
		live = append(live, c.start(fmt.Sprintf("n%d", i), uint64(20+i), func(c *Config) {
			reap(c)
			if i%2 == 0 {
				c.Bind = nodes[i].Addr()
			}
		}, nodes[0].Addr()))
	}
	for i := 1; i < 5; i++ {
		nodes[0].knows(patience, fmt.Sprintf("n%d", i), uint64(20+i))
	}
	meet(patience, live...)
	nodes[0].sees(patience, StatusReaped, "n5")
	for _, n := range live {
		n.until("no ghost", patience, func() bool {
			for _, m := range n.Members() {
				if m.Name == "n5" {
					return false
				}
			}
			return true
		})
	}
	for _, n := range live {
		for _, m := range n.Members() {
			if m.Name == "n5" || m.Status != StatusAlive {
				t.Errorf("%s: %v", n.self.name, m)
			}
		}
	}
}

// A flood on the port is counted and harms nobody.
func TestGarbage(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	a := c.start("a", 11, lan)
	b := c.start("b", 12, lan, a.Addr())
	meet(patience, a, b)
	udp, err := net.Dial("udp", a.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	udp.Write([]byte{magicByte, 1, 2})
	udp.Write([]byte{99, 1, 2})
	udp.Write([]byte{3, 1, 2}) // memberlist's, and bad
	for _, first := range [][]byte{{99}, {magicByte, 'x', 1, 2, 3, 4, 5, 6}, {22, 3, 1}, {6, 0xff}, appendOpening(nil, 1, []byte{0, 9, 0, 0, 0, 0, 0, 0, 0, 1})} {
		tcp, err := net.Dial("tcp", a.Addr())
		if err != nil {
			t.Fatal(err)
		}
		tcp.Write(first)
		tcp.SetReadDeadline(time.Now().Add(patience))
		if _, err := io.Copy(io.Discard, tcp); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%v: the stream is left open", first)
		}
		tcp.Close()
	}
	a.until("counters", patience, func() bool {
		s := a.Stats()
		return s.PacketsOurs == 1 && s.PacketsUnknown == 1 && s.StreamsUnknown >= 3 && s.LinksRefused == 1
	})
	if s := a.Stats(); s.Links != 1 || s.Alive != 2 {
		t.Errorf("%+v", s)
	}
}

func TestLatency(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.net.SetLatency(40 * time.Millisecond)
	a := c.start("a", 11, nil)
	b := c.start("b", 12, nil, a.Addr())
	meet(patience, a, b)
	a.until("round trip", patience, func() bool {
		for _, m := range a.Members() {
			if m.Name == "b" && m.RTT >= 80*time.Millisecond && m.RTT < time.Second {
				return true
			}
		}
		return false
	})
}

func TestLibraryLog(t *testing.T) {
	var out bytes.Buffer
	var dropped atomic.Int64
	l := &libraryLog{log: slog.New(slog.NewTextHandler(&out, nil)), dropped: &dropped}
	lg := l.logger()
	lg.Printf("[ERR] memberlist: something odd")
	lg.Printf("[WARN] memberlist: Refuting a suspect message (from: x)")
	lg.Printf("[INFO] serf: EventMemberJoin: x")
	lg.Printf("no level")
	if got := out.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "level=WARN") || !strings.Contains(got, `message="memberlist: something odd"`) {
		t.Errorf("got %s", got)
	}
	for range 50 {
		lg.Printf("[ERR] memberlist: flood\nlevel=ERROR msg=forged")
	}
	if got := out.String(); strings.Contains(got, "\nlevel=ERROR") || strings.Count(got, "flood") > 2*maxWarnings || dropped.Load() == 0 {
		t.Errorf("dropped %d of:\n%s", dropped.Load(), got)
	}
}

// TestLongPartition takes minutes: MESH_LONG=1 runs it with the defaults.
func TestLongPartition(t *testing.T) {
	if os.Getenv("MESH_LONG") == "" {
		t.Skip("takes 90 s; MESH_LONG=1 runs it")
	}
	c := &cluster{t: t, net: faultnet.New(1)}
	nodes := []*node{c.start("n0", 10, lan)}
	for i := 1; i < 5; i++ {
		nodes = append(nodes, c.start(fmt.Sprintf("n%d", i), uint64(10+i), lan, nodes[0].Addr()))
	}
	meet(patience, nodes...)
	for _, cut := range []time.Duration{60 * time.Second, 20 * time.Second} {
		c.net.Partition([]string{"n0", "n1"}, []string{"n2", "n3", "n4"})
		time.Sleep(cut)
		c.net.Heal()
		start := time.Now()
		for i, n := range nodes {
			for j, o := range nodes {
				if i != j {
					n.linked(patience, o.self.name)
				}
			}
		}
		links := time.Since(start)
		meet(patience, nodes...)
		took := time.Since(start)
		t.Logf("cut %v: links after %v, membership after %v", cut, links, took)
		if took > 4*time.Second {
			t.Errorf("healed after %v", took)
		}
	}
}

// A hello of the far future is refused at either end, told why, and counted.
func TestFutureRefused(t *testing.T) {
	m, err := New(Config{Name: "a", Inc: 1, Bind: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	forged := hello{name: "b", inc: math.MaxUint64, addr: "127.0.0.1:1"}
	dialed, _ := tcpPair(t)
	var refused *refusedError
	if _, err := m.register(t.Context(), dialed, m.identity(), forged, true); !errors.As(err, &refused) || refused.code != refusedFuture {
		t.Errorf("dialed: got %v", err)
	}
	ours, theirs := tcpPair(t)
	if _, err := theirs.Write(appendHello(nil, forged)[1:]); err != nil {
		t.Fatal(err)
	}
	m.answer(t.Context(), ours)
	if _, err := readHello(theirs); !errors.As(err, &refused) || refused.code != refusedFuture || refused.name != "a" {
		t.Errorf("answered: got %v", err)
	}
	if s := m.Stats(); s.LinksFuture != 2 || s.LinksRefused != 2 || s.Links != 0 {
		t.Errorf("counted %d of %d, %d links", s.LinksFuture, s.LinksRefused, s.Links)
	}
}

// Whenever a link is given, those to the same peer that were given before have ended, however many
// are made at once.
func TestReplacedLinkHasEnded(t *testing.T) {
	m, err := New(Config{Name: "a", Inc: 1, Bind: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	ctx, cancel := context.WithCancel(t.Context())
	var delivery, makers sync.WaitGroup
	delivery.Go(func() { m.deliver(ctx) })
	defer delivery.Wait()
	defer cancel()

	const makersN, each = 8, 200
	for i := range makersN {
		makers.Go(func() {
			for n := range each {
				conn, other := net.Pipe()
				inc := uint64(1 + n*makersN + i)
				if _, err := m.register(ctx, conn, m.identity(), hello{name: "b", inc: inc, addr: "127.0.0.1:1"}, false); err != nil && !errors.Is(err, ErrRefused) {
					t.Errorf("register: %v", err)
				}
				other.Close()
			}
		})
	}
	made := make(chan struct{})
	go func() {
		makers.Wait()
		close(made)
	}()
	var given []*Link
	take := func(l *Link) {
		for _, old := range given {
			if old.Err() == nil {
				t.Errorf("incarnation %d has a link while that of %d is given", old.Peer.Inc, l.Peer.Inc)
			}
		}
		given = append(given, l)
	}
	for going := true; going; {
		select {
		case l := <-m.Links():
			take(l)
		case <-made:
			going = false
		}
	}
	for len(given) == 0 || given[len(given)-1].Peer.Inc != makersN*each { // the last one stays
		select {
		case l := <-m.Links():
			take(l)
		case <-time.After(patience):
			t.Fatalf("%d links given, and not the last one", len(given))
		}
	}
	if last := given[len(given)-1]; last.Err() != nil {
		t.Errorf("the last link: %v", last.Err())
	}
}

// A peer that takes nothing delays the farewell for a moment, and for itself only.
func TestByeToStalledPeer(t *testing.T) {
	t.Parallel()
	m, err := New(Config{Name: "a", Inc: 1, Bind: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	peers := make(map[string]net.Conn)
	for _, name := range []string{"b", "c", "d", "e"} {
		var conn net.Conn
		conn, peers[name] = net.Pipe() // takes nothing until it is read
		if _, err := m.register(t.Context(), conn, m.identity(), hello{name: name, inc: 1, addr: "127.0.0.1:1"}, false); err != nil {
			t.Fatal(err)
		}
	}
	got := make(chan error, 1)
	go func() { // one of them listens
		_, err := io.ReadFull(peers["d"], make([]byte, frameHead))
		got <- err
	}()
	start := time.Now()
	m.sayBye()
	if took := time.Since(start); took > byeTimeout+5*time.Second {
		t.Errorf("took %v", took)
	}
	if err := <-got; err != nil {
		t.Errorf("who listens: %v", err)
	}
	if m.byName["d"].Err() != nil || m.byName["b"].Err() == nil {
		t.Errorf("links: %v, %v", m.byName["d"].Err(), m.byName["b"].Err())
	}
}
