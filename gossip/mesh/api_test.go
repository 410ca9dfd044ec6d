package mesh

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"
)

// apiConn takes the next inbound connection.
func (n *node) apiConn(within time.Duration) *APIConn {
	n.t.Helper()
	select {
	case c, ok := <-n.APIConns():
		if !ok {
			n.t.Fatalf("%s: ended", n.self.name)
		}
		return c.(*APIConn)
	case <-time.After(within):
		n.t.Fatalf("%s: no API connection within %v", n.self.name, within)
		return nil
	}
}

func TestAPIConns(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	a := c.start("a", 11, func(c *Config) { c.MaxAPIConns = 2 })
	b := c.start("b", 12, nil, a.Addr())
	meet(patience, a, b)

	var mine []net.Conn
	var theirs []*APIConn
	for range 2 {
		conn, err := b.DialAPI(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		mine, theirs = append(mine, conn), append(theirs, a.apiConn(patience))
	}
	if p := theirs[0].Peer; p.Name != "b" || p.Inc != 12 || p.Addr != b.Addr() {
		t.Errorf("peer %+v", p)
	}
	if _, err := mine[0].Write([]byte("request")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 7)
	if _, err := io.ReadFull(theirs[0], buf); err != nil || string(buf) != "request" {
		t.Errorf("got %q, %v", buf, err)
	}

	if _, err := b.DialAPI(t.Context(), "a"); !errors.Is(err, ErrRefused) {
		t.Errorf("one too many: %v", err)
	}
	if s := a.Stats(); s.APIConns != 2 || s.APIConnsMade != 2 || s.APIConnsRefused != 1 || s.LinksRefused != 0 {
		t.Errorf("stats %+v", s)
	}
	theirs[0].Close()
	theirs[0].Close()
	if s := a.Stats(); s.APIConns != 1 {
		t.Errorf("%d open after one was closed twice", s.APIConns)
	}
	if conn, err := b.DialAPI(t.Context(), "a"); err != nil {
		t.Errorf("there is room again: %v", err)
	} else {
		mine = append(mine, conn)
	}
	for _, name := range []string{"nobody", "b"} {
		if _, err := b.DialAPI(t.Context(), name); !errors.Is(err, ErrUnknownMember) {
			t.Errorf("%s: %v", name, err)
		}
	}
	a.kill() // both the one that was read and the one that waits end
	for _, conn := range mine[1:] {
		conn.SetReadDeadline(time.Now().Add(patience))
		if _, err := conn.Read(buf); err == nil || timedOut(err) {
			t.Errorf("a connection outlives Run: %v", err)
		}
	}
	if _, err := a.DialAPI(t.Context(), "b"); !errors.Is(err, ErrNotRunning) {
		t.Errorf("after the end: %v", err)
	}
}

func timedOut(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

// The rules of the hello hold for API connections, too.
func TestAPIGreetingIsChecked(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	a := c.start("a", 11, nil)
	b := c.start("b", 12, nil, a.Addr())
	meet(patience, a, b)
	good := hello{cluster: "test", name: "x", inc: 5, addr: "127.0.0.1:1"}
	for name, tc := range map[string]struct {
		edit func(*hello)
		want refusal
	}{
		"cluster":    {func(h *hello) { h.cluster = "other" }, refusedCluster},
		"own name":   {func(h *hello) { h.name = "a" }, refusedName},
		"itself":     {func(h *hello) { h.name, h.inc = "a", 11 }, refusedSelf},
		"superseded": {func(h *hello) { h.name, h.inc = "b", 3 }, refusedSuperseded},
		"future":     {func(h *hello) { h.inc = 1<<64 - 1 }, refusedFuture},
	} {
		h := good
		tc.edit(&h)
		conn, err := net.Dial("tcp", a.Addr())
		if err != nil {
			t.Fatal(err)
		}
		conn.Write(appendGreeting(nil, kindAPI, h))
		conn.SetReadDeadline(time.Now().Add(patience))
		var refused *refusedError
		if _, err := readHello(conn); !errors.As(err, &refused) || refused.code != tc.want {
			t.Errorf("%s: got %v, want %v", name, err, tc.want)
		}
		conn.Close()
	}
}

// A connection that comes while the mesh ends is closed, and its place is free again.
func TestAPIConnWhileTheMeshEnds(t *testing.T) {
	c := newCluster(t)
	a := c.start("a", 11, nil)
	ended, end := context.WithCancel(t.Context())
	end()
	for range 100 {
		mine, theirs := net.Pipe()
		go io.Copy(io.Discard, mine) // ends with the pipe
		a.answerPort(ended, &a.api, theirs, hello{cluster: a.self.cluster, name: "b", inc: 12, addr: "127.0.0.1:1"})
		if _, err := theirs.Write([]byte("x")); !errors.Is(err, io.ErrClosedPipe) {
			t.Fatalf("still open: %v", err)
		}
	}
	if s := a.Stats(); s.APIConns != 0 || s.APIConnsRefused != 0 {
		t.Errorf("stats %+v", s)
	}
}
