package mesh

import (
	"io"
	"log"
	"net"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/hashicorp/serf/serf"
)

// stock is a plain serf node on its default transport.
type stock struct {
	*serf.Serf
	events chan serf.Event
	addr   string
	port   int
}

func startStock(t *testing.T, name string, port int) *stock {
	t.Helper()
	c := serf.DefaultConfig()
	c.NodeName = name
	var w io.Writer = io.Discard
	if os.Getenv("MESH_LOG") != "" {
		w = os.Stderr
	}
	c.Logger, c.LogOutput = log.New(w, "STOCK "+name+" ", log.Lmicroseconds), nil
	events := make(chan serf.Event, 256)
	c.EventCh = events
	ml := memberlist.DefaultLANConfig() // compression included
	ml.BindAddr, ml.BindPort, ml.AdvertisePort = "127.0.0.1", port, port
	ml.Logger, ml.LogOutput = c.Logger, nil
	c.MemberlistConfig = ml
	s, err := serf.Create(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Shutdown() })
	m := s.LocalMember()
	return &stock{Serf: s, events: events, addr: net.JoinHostPort(m.Addr.String(), strconv.Itoa(int(m.Port))), port: int(m.Port)}
}

// sees waits until the stock node has everybody with that status.
func (s *stock) sees(t *testing.T, within time.Duration, status serf.MemberStatus, names ...string) {
	t.Helper()
	timeout := time.After(within)
	for {
		n := 0
		for _, m := range s.Members() {
			for _, name := range names {
				if m.Name == name && m.Status == status {
					n++
				}
			}
		}
		if n == len(names) {
			return
		}
		select {
		case <-s.events:
		case <-time.After(50 * time.Millisecond):
		case <-timeout:
			t.Fatalf("stock node does not see %v %v: %v", names, status, s.Members())
		}
	}
}

func TestStockSerf(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	a := c.start("a", 11, func(c *Config) { c.Cluster = "" })
	b := c.start("b", 12, func(c *Config) { c.Cluster = "" }, a.Addr())
	meet(patience, a, b)

	s := startStock(t, "stock", 0)
	if _, err := s.Join([]string{a.Addr()}, true); err != nil { // it joins us
		t.Fatal(err)
	}
	a.sees(patience, StatusAlive, "stock")
	b.sees(patience, StatusAlive, "stock")
	s.sees(t, patience, serf.StatusAlive, "a", "b", "stock")
	if tags := s.Members()[0].Tags; len(tags) > 8 {
		t.Errorf("tags %v", tags)
	}

	// Serf's own traffic passes our gate: an event and a query through our nodes.
	if err := s.UserEvent("deploy", []byte("1"), false); err != nil {
		t.Fatal(err)
	}
	r, err := s.Query("_serf_ping", nil, &serf.QueryParam{RequestAck: true, Timeout: patience})
	if err != nil {
		t.Fatal(err)
	}
	acked := map[string]bool{}
	for timeout := time.After(patience); len(acked) < 3; {
		select {
		case name := <-r.AckCh():
			acked[name] = true
		case <-timeout:
			t.Fatalf("acknowledged only by %v", acked)
		}
	}

	// We join it, as a seed that does not know our hello.
	d := c.start("d", 13, func(c *Config) { c.Cluster = "" }, s.addr)
	d.sees(patience, StatusAlive, "a", "b", "stock")
	s.sees(t, patience, serf.StatusAlive, "d")
	meet(patience, a, b, d)

	// It fails and comes back without joining anybody.
	s.Shutdown()
	a.sees(patience, StatusFailed, "stock")
	back := startStock(t, "stock", s.port)
	a.sees(patience, StatusAlive, "stock")
	b.sees(patience, StatusAlive, "stock")
	d.sees(patience, StatusAlive, "stock")
	back.sees(t, patience, serf.StatusAlive, "a", "b", "d")
	if n := a.Stats(); n.Links != 2 {
		t.Errorf("%d links, want 2", n.Links)
	}
	// A restarted serf node whose clock starts at 1 must hear the others' before it leaves, or its
	// leave counts as older than its former self's join.
	if _, err := back.Join([]string{a.Addr()}, true); err != nil {
		t.Fatal(err)
	}
	if err := back.Leave(); err != nil {
		t.Fatal(err)
	}
	a.sees(patience, StatusLeft, "stock")
}
