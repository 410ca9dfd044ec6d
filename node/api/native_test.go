package api

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/client/clienttest"
	"github.com/meshkv/meshkv/client/wire"
	"github.com/meshkv/meshkv/node/api/internal/memory"
)

// start serves b on a loopback port until the test ends.
func start(t testing.TB, b Backend, o Options) (*Server, string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return serveOn(t, ln, b, o), ln.Addr().String()
}

func serveOn(t testing.TB, ln net.Listener, b Backend, o Options) *Server {
	t.Helper()
	s := NewServer(b, o)
	served := make(chan error, 1)
	go func() { served <- s.Serve(ln) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return s
}

func dial(t testing.TB, addr string, o *client.DialOptions) *client.Client {
	t.Helper()
	c, err := client.Dial(t.Context(), addr, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestConformanceOverNative(t *testing.T) {
	clienttest.Run(t, func(t *testing.T) client.Cluster {
		_, addr := start(t, memory.New(0x1234), Options{})
		return dial(t, addr, nil)
	})
}

func TestTypesOverNative(t *testing.T) {
	clienttest.RunTypes(t, func(t *testing.T) client.Cluster {
		_, addr := start(t, memory.New(0x1234), Options{})
		return dial(t, addr, nil)
	})
}

func TestConformanceWithSmallWindow(t *testing.T) {
	clienttest.Run(t, func(t *testing.T) client.Cluster {
		_, addr := start(t, memory.New(0x1234), Options{MaxInflight: 2})
		return dial(t, addr, &client.DialOptions{WatchBuffer: 1})
	})
}

func TestErrorsSurviveTheProtocol(t *testing.T) {
	for _, f := range failures {
		if f.err == nil || f.err == client.ErrClosed || f.err == context.DeadlineExceeded {
			continue
		}
		t.Run(f.code, func(t *testing.T) {
			_, addr := start(t, failing{memory.New(1), fmt.Errorf("here is why: %w", f.err)}, Options{})
			c := dial(t, addr, nil)
			_, err := c.Members(t.Context())
			if !errors.Is(err, f.err) || !strings.Contains(err.Error(), "here is why") {
				t.Errorf("got %v, want %v", err, f.err)
			}
		})
	}
}

// How many members acknowledged a write is told by both protocols.
func TestWriteConcernSurvivesTheProtocols(t *testing.T) {
	_, addr := start(t, failing{memory.New(1), fmt.Errorf("put: %w", &client.WriteConcernError{Acked: 2, Want: 3})}, Options{})
	_, err := dial(t, addr, nil).Members(t.Context())
	var c *client.WriteConcernError
	if !errors.As(err, &c) || !errors.Is(err, client.ErrWriteConcern) || c.Acked != 2 || c.Want != 3 {
		t.Errorf("native: %v", err)
	}
	if resp, body := exchange(t, addr, "GET", "/v1/members", ""); resp.StatusCode != 503 || !strings.Contains(body, `"acked":2,"want":3`) {
		t.Errorf("HTTP: %d %s", resp.StatusCode, body)
	}
}

// failing is a backend whose Members fail.
type failing struct {
	*memory.Cluster
	err error
}

func (f failing) Members(context.Context) ([]client.Member, error) { return nil, f.err }

func TestStatusSurvivesTheProtocol(t *testing.T) {
	b := memory.New(7)
	_, addr := start(t, b, Options{})
	c := dial(t, addr, nil)
	want, _ := b.Status(t.Context())
	got, err := c.Status(t.Context())
	if err != nil || fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
		t.Errorf("Status: got %+v, %v; want %+v", got, err, want)
	}
	wantMembers, _ := b.Members(t.Context())
	members, err := c.Members(t.Context())
	if err != nil || fmt.Sprintf("%+v", members) != fmt.Sprintf("%+v", wantMembers) {
		t.Errorf("Members: got %+v, %v; want %+v", members, err, wantMembers)
	}
	k, _ := c.Keyspace(t.Context(), "k")
	if _, err := k.Put(t.Context(), "a", []byte("v"), nil); err != nil {
		t.Fatal(err)
	}
	e, err := k.Get(t.Context(), "a", &client.GetOptions{Siblings: true})
	if err != nil || len(e.Siblings) != 1 || string(e.Siblings[0].Value) != "older" {
		t.Errorf("siblings: got %+v, %v", e, err)
	}
	if err := c.Leave(t.Context()); err != nil || !b.Left() {
		t.Errorf("Leave: %v, left %v", err, b.Left())
	}
}

func TestWriteOutcomes(t *testing.T) {
	b := memory.New(1)
	_, addr := start(t, b, Options{})
	c := dial(t, addr, nil)
	k, _ := c.Keyspace(t.Context(), "k")
	unblock := b.Block()
	defer unblock()

	short, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if _, err := k.Put(short, "a", nil, nil); !errors.Is(err, client.ErrUnknownOutcome) {
		t.Errorf("Put past its deadline: got %v", err)
	}
	cancelled, cancelNow := context.WithCancel(t.Context())
	cancelNow()
	if _, err := k.Put(cancelled, "a", nil, nil); !errors.Is(err, context.Canceled) || errors.Is(err, client.ErrUnknownOutcome) {
		t.Errorf("Put that was never sent: got %v", err)
	}
}

// proxy forwards connections, and cuts them on demand.
type proxy struct {
	ln     net.Listener
	target string
	wg     sync.WaitGroup

	mu    sync.Mutex // protects conns
	conns map[net.Conn]struct{}
}

func newProxy(t testing.TB, target string) *proxy {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{ln: ln, target: target, conns: make(map[net.Conn]struct{})}
	p.wg.Go(func() {
		for {
			in, err := ln.Accept()
			if err != nil {
				return
			}
			p.mu.Lock()
			target := p.target
			p.mu.Unlock()
			out, err := net.Dial("tcp", target)
			if err != nil {
				in.Close()
				continue
			}
			p.mu.Lock()
			p.conns[in], p.conns[out] = struct{}{}, struct{}{}
			p.mu.Unlock()
			p.wg.Go(func() { io.Copy(in, out); in.Close(); out.Close() })
			p.wg.Go(func() { io.Copy(out, in); in.Close(); out.Close() })
		}
	})
	t.Cleanup(func() { ln.Close(); p.cut(); p.wg.Wait() })
	return p
}

func (p *proxy) addr() string { return p.ln.Addr().String() }

// cut breaks all connections and returns how many there were.
func (p *proxy) cut() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.conns) / 2
	for c := range p.conns {
		c.Close()
	}
	clear(p.conns)
	return n
}

func (p *proxy) redirect(target string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = target
}

func TestCutConnection(t *testing.T) {
	b := memory.New(1)
	_, addr := start(t, b, Options{})
	p := newProxy(t, addr)
	c := dial(t, p.addr(), nil)
	k, _ := c.Keyspace(t.Context(), "k")
	if _, err := k.Put(t.Context(), "a", []byte("1"), nil); err != nil {
		t.Fatal(err)
	}

	// A read in flight is asked again on the next connection.
	blocked := make(chan error)
	go func() {
		_, err := k.Get(t.Context(), "a", &client.GetOptions{After: client.Version{Inc: 1, Seq: 2}.Token()})
		blocked <- err
	}()
	unblock := b.Block()
	written := make(chan error)
	go func() {
		_, err := k.Put(t.Context(), "b", []byte("1"), nil)
		written <- err
	}()
	<-b.Waiting()
	p.cut()
	if err := <-written; !errors.Is(err, client.ErrUnknownOutcome) {
		t.Errorf("a write whose connection broke: got %v", err)
	}
	unblock()
	if _, err := k.Put(t.Context(), "c", []byte("1"), nil); err != nil {
		t.Errorf("a write after that: %v", err)
	}
	if _, err := k.Put(t.Context(), "c", []byte("1"), nil); err != nil {
		t.Errorf("a write after that: %v", err)
	}
	if err := <-blocked; err != nil {
		t.Errorf("a read whose connection broke: %v", err)
	}
}

func TestNodeGone(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	ln.Close()
	if _, err := client.Dial(t.Context(), addr, nil); !errors.Is(err, client.ErrUnavailable) || !strings.Contains(err.Error(), addr) {
		t.Errorf("Dial of nothing: got %v", err)
	}
	for _, bad := range []string{"", "localhost", "https://localhost:1", "http://", "ftp://a:1"} {
		if _, err := client.Dial(t.Context(), bad, nil); !errors.Is(err, client.ErrBadRequest) {
			t.Errorf("Dial(%q): got %v", bad, err)
		}
	}

	s, addr := start(t, memory.New(1), Options{})
	c := dial(t, "http://"+addr+"/", &client.DialOptions{Timeout: 100 * time.Millisecond, GiveUpAfter: 50 * time.Millisecond})
	k, _ := c.Keyspace(t.Context(), "k")
	w, err := k.Watch(t.Context(), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := s.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Put(t.Context(), "a", nil, nil); !errors.Is(err, client.ErrUnavailable) || errors.Is(err, client.ErrUnknownOutcome) {
		t.Errorf("Put at a node that is gone: got %v", err)
	}
	for err == nil {
		_, err = w.Next(t.Context())
	}
	if !errors.Is(err, client.ErrUnavailable) {
		t.Errorf("Next at a node that is gone: got %v", err)
	}
	c.Close()
	if _, err := w.Next(t.Context()); !errors.Is(err, client.ErrClosed) {
		t.Errorf("Next of a closed client: got %v", err)
	}
	if _, err := k.Get(t.Context(), "a", nil); !errors.Is(err, client.ErrClosed) {
		t.Errorf("Get of a closed client: got %v", err)
	}
}

// rawConn is a native connection without the client library.
type rawConn struct {
	net.Conn
	r *bufio.Reader
}

func rawDial(t testing.TB, addr string) rawConn {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprintf(nc, "GET %s HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", wire.Path, wire.Protocol)
	r := bufio.NewReader(nc)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if line == "\r\n" {
			return rawConn{nc, r}
		}
	}
}

func (c rawConn) send(t testing.TB, r *wire.Request) {
	t.Helper()
	if _, err := c.Write(wire.AppendRequest(nil, r)); err != nil {
		t.Fatal(err)
	}
}

func (c rawConn) receive(t testing.TB) wire.Reply {
	t.Helper()
	payload, err := wire.ReadFrame(c.r, nil, wire.MaxReply)
	if err != nil {
		t.Fatal(err)
	}
	var r wire.Reply
	if err := wire.DecodeReply(payload, &r); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestHostileFrames(t *testing.T) {
	reg := prometheus.NewRegistry()
	_, addr := start(t, memory.New(1), Options{Registry: reg})
	for name, bytes := range map[string][]byte{
		"length zero":     {0, 0, 0, 0},
		"length huge":     {0xff, 0xff, 0xff, 0xff, 1, 2, 3},
		"length over cap": {0, 0x20, 0, 1},
		"not an array":    {0, 0, 0, 1, 0xc0},
		"array too long":  {0, 0, 0, 5, 0xdd, 0xff, 0xff, 0xff, 0xff},
		"nested deeply":   append([]byte{0, 0, 0, 200, 0x94, 1, 14, 0}, []byte(strings.Repeat("\x91", 196))...),
		"http":            []byte("GET / HTTP/1.1\r\n\r\n"),
	} {
		t.Run(name, func(t *testing.T) {
			c := rawDial(t, addr)
			if _, err := c.Write(bytes); err != nil {
				t.Fatal(err)
			}
			if b, err := c.r.ReadByte(); err == nil {
				t.Errorf("got byte %x, want the end of the connection", b)
			}
		})
	}
	if got := counter(t, reg, "meshkv_api_rejected_total", "reason", "bad_frame"); got != 7 {
		t.Errorf("bad frames counted: got %v, want 7", got)
	}
	// Others are not harmed, and strange requests are answered.
	c := rawDial(t, addr)
	for _, r := range []wire.Request{
		{ID: 1, Type: 99},
		{ID: 2, Type: wire.Put, Keyspace: "Not A Name", Key: "a"},
		{ID: 3, Type: wire.Put, Keyspace: "k", Key: ""},
	} {
		c.send(t, &r)
		if got := c.receive(t); got.Type != wire.Error || got.Code != "bad_request" || got.ID != r.ID {
			t.Errorf("%v: got %+v", r.Type, got)
		}
	}
	c.send(t, &wire.Request{ID: 77, Type: wire.Cancel})
	c.send(t, &wire.Request{ID: 77, Type: wire.Credit, Limit: 1 << 63})
	c.send(t, &wire.Request{ID: 4, Type: wire.Ping})
	if got := c.receive(t); got.ID != 4 || got.Type != wire.Done {
		t.Errorf("ping: got %+v", got)
	}
}

func TestIDInUse(t *testing.T) {
	_, addr := start(t, memory.New(1), Options{})
	c := rawDial(t, addr)
	c.send(t, &wire.Request{ID: 1, Type: wire.Watch, Keyspace: "k", Limit: 1000})
	if got := c.receive(t); got.Type != wire.Opened {
		t.Fatalf("got %+v", got)
	}
	c.receive(t) // synced
	c.send(t, &wire.Request{ID: 1, Type: wire.Watch, Keyspace: "k", Limit: 1000})
	if got := c.receive(t); got.Type != wire.Error || got.Code != "bad_request" {
		t.Errorf("got %+v", got)
	}
}

func TestBounds(t *testing.T) {
	reg := prometheus.NewRegistry()
	b := memory.New(1)
	_, addr := start(t, b, Options{Registry: reg, MaxInflight: 2, MaxWatches: 1, MaxConns: 3, MaxInflightBytes: 4 << 10})
	c := rawDial(t, addr)
	unblock := b.Block()
	defer unblock()
	c.send(t, &wire.Request{ID: 1, Type: wire.Put, Keyspace: "k", Key: "a"})
	c.send(t, &wire.Request{ID: 2, Type: wire.Put, Keyspace: "k", Key: "a"})
	c.send(t, &wire.Request{ID: 3, Type: wire.Put, Keyspace: "k", Key: "a"})
	if got := c.receive(t); got.ID != 3 || got.Code != "overloaded" {
		t.Errorf("third request: got %+v", got)
	}
	other := rawDial(t, addr)
	other.send(t, &wire.Request{ID: 1, Type: wire.Put, Keyspace: "k", Key: "a", Value: make([]byte, 8<<10)})
	if got := other.receive(t); got.Code != "overloaded" {
		t.Errorf("bytes in flight: got %+v", got)
	}
	other.send(t, &wire.Request{ID: 2, Type: wire.Watch, Keyspace: "k", Limit: 1})
	if got := other.receive(t); got.Type != wire.Opened {
		t.Errorf("first watch: got %+v", got)
	}
	c.send(t, &wire.Request{ID: 9, Type: wire.Watch, Keyspace: "k", Limit: 1})
	if got := c.receive(t); got.Code != "overloaded" {
		t.Errorf("second watch: got %+v", got)
	}
	rawDial(t, addr)
	fourth, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer fourth.Close()
	fourth.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := fourth.Read(make([]byte, 1)); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("fourth connection: got %v", err)
	}
	c.send(t, &wire.Request{ID: 1, Type: wire.Cancel})
	if got := c.receive(t); got.ID != 1 || got.Code != "unknown_outcome" {
		t.Errorf("cancelled write: got %+v", got)
	}
	for reason, want := range map[string]float64{"inflight_bytes": 2, "watches": 1, "connections": 1} {
		if got := counter(t, reg, "meshkv_api_rejected_total", "reason", reason); got != want {
			t.Errorf("rejected for %s: got %v, want %v", reason, got, want)
		}
	}
}

func TestVanishedClientsLeaveNothing(t *testing.T) {
	reg := prometheus.NewRegistry()
	b := memory.New(1)
	s, addr := start(t, b, Options{Registry: reg})
	unblock := b.Block()
	defer unblock()
	for range 20 {
		c := rawDial(t, addr)
		c.send(t, &wire.Request{ID: 1, Type: wire.Put, Keyspace: "k", Key: "a"})
		c.send(t, &wire.Request{ID: 2, Type: wire.Watch, Keyspace: "k", Limit: 1})
		c.receive(t)
		c.Close()
	}
	s.conns.Wait() // all of them end by themselves
	if got := s.watches.Load(); got != 0 {
		t.Errorf("watches left: %d", got)
	}
	if got := s.inflightBytes.Load(); got != 0 {
		t.Errorf("bytes in flight left: %d", got)
	}
}

func TestSlowReaderIsCut(t *testing.T) {
	reg := prometheus.NewRegistry()
	b := memory.New(1)
	s, addr := start(t, b, Options{Registry: reg, WriteTimeout: 100 * time.Millisecond})
	k, _ := b.Keyspace(t.Context(), "k")
	if _, err := k.Put(t.Context(), "a", make([]byte, 60<<10), nil); err != nil {
		t.Fatal(err)
	}
	c := rawDial(t, addr)
	frame := wire.AppendRequest(nil, &wire.Request{ID: 1, Type: wire.Get, Keyspace: "k", Key: "a"})
	var err error
	for err == nil {
		_, err = c.Write(frame) // and never reads
	}
	s.conns.Wait()
	if got := counter(t, reg, "meshkv_api_rejected_total", "reason", "slow_reader"); got != 1 {
		t.Errorf("slow readers counted: got %v", got)
	}
}

func TestNativeShutdown(t *testing.T) {
	b := memory.New(1)
	s, addr := start(t, b, Options{})
	c := rawDial(t, addr)
	c.send(t, &wire.Request{ID: 1, Type: wire.Watch, Keyspace: "k", Limit: 1000})
	c.receive(t) // opened
	c.receive(t) // synced
	unblock := b.Block()
	c.send(t, &wire.Request{ID: 2, Type: wire.Put, Keyspace: "k", Key: "a"})
	c.send(t, &wire.Request{ID: 3, Type: wire.Ping})
	c.receive(t)
	done := make(chan error, 1)
	go func() { done <- s.Shutdown(t.Context()) }()
	var sawWatch, sawNotice bool
	for !sawWatch || !sawNotice {
		switch r := c.receive(t); {
		case r.ID == 1 && r.Type == wire.Error && r.Code == "draining":
			sawWatch = true
		case r.ID == 0 && r.Type == wire.Draining:
			sawNotice = true
		default:
			t.Fatalf("got %+v", r)
		}
	}
	c.send(t, &wire.Request{ID: 4, Type: wire.Put, Keyspace: "k", Key: "b"})
	if r := c.receive(t); r.ID != 4 || r.Code != "draining" {
		t.Errorf("a request while draining: got %+v", r)
	}
	unblock()
	if r := c.receive(t); r.ID != 2 || r.Type != wire.Written {
		t.Errorf("the request in flight: got %+v", r)
	}
	c.Close()
	if err := <-done; err != nil {
		t.Errorf("Shutdown: %v", err)
	}
	if err := s.Shutdown(t.Context()); err != nil {
		t.Errorf("second Shutdown: %v", err)
	}
}

func TestShutdownCutsWhatTakesTooLong(t *testing.T) {
	b := memory.New(1)
	s, addr := start(t, b, Options{})
	c := dial(t, addr, nil)
	k, _ := c.Keyspace(t.Context(), "k")
	unblock := b.Block()
	defer unblock()
	written := make(chan error)
	go func() {
		_, err := k.Put(t.Context(), "b", []byte("1"), nil)
		written <- err
	}()
	<-b.Waiting()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := s.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Shutdown: got %v", err)
	}
	if err := <-written; !errors.Is(err, client.ErrUnknownOutcome) {
		t.Errorf("the write that was cut: got %v", err)
	}
}

// counter is the value of one series.
func counter(t testing.TB, reg *prometheus.Registry, name, label, value string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var sum float64
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetName() == label && l.GetValue() == value {
					sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
				}
			}
		}
	}
	return sum
}

// A worker that has counted itself idle is handed a request, and the connection
// ends before it waits: whichever case its select chooses, the bytes of the
// request are given back.
func TestRequestOfEndedConnection(t *testing.T) {
	s := NewServer(memory.New(7), Options{})
	for range 100 {
		c := &nativeConn{
			server: s,
			sender: wire.NewSender(),
			active: make(map[uint64]*activeRequest),
			work:   make(chan job, maxIdleWorkers),
			gone:   make(chan struct{}),
		}
		c.inflight, c.replies = 2, 2
		s.inflightBytes.Add(1000)
		c.work <- job{req: wire.Request{ID: 2, Type: wire.Put, Keyspace: "k", Key: "a"}, bytes: 1000}
		close(c.gone)
		c.worker(t.Context(), job{req: wire.Request{ID: 1, Type: wire.Digest, Keyspace: "k"}})
		if c.inflight != 0 || c.replies != 0 {
			t.Fatalf("in flight %d, without reply %d; want 0", c.inflight, c.replies)
		}
	}
	if n := s.inflightBytes.Load(); n != 0 {
		t.Errorf("%d bytes are in flight for ever", n)
	}
}

func TestReadsOverNativeMakeNoKeyspace(t *testing.T) {
	b := memory.New(5)
	_, addr := start(t, b, Options{})
	k, err := dial(t, addr, nil).Keyspace(t.Context(), "none")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Get(t.Context(), "a", nil); !errors.Is(err, client.ErrNotFound) {
		t.Errorf("Get: got %v", err)
	}
	if d, err := k.Delete(t.Context(), "a", nil); err != nil || d != (client.Deletion{}) {
		t.Errorf("Delete: got %+v, %v", d, err)
	}
	for e, err := range k.List(t.Context(), "", nil) {
		t.Errorf("List: got %+v, %v", e, err)
	}
	if _, err := k.Info(t.Context()); !errors.Is(err, client.ErrNotFound) {
		t.Errorf("Info: got %v", err)
	}
	if d, err := k.Digest(t.Context()); err != nil || d.Keyspace != "none" || d.Digest != emptyDigest || d.Clock != emptyDigest || d.Entries != 0 {
		t.Errorf("Digest: got %+v, %v", d, err)
	}
	wantNoKeyspace(t, b)
}

// A token names a write in a keyspace that has not come here yet.
func TestGetAfterWaitsForKeyspace(t *testing.T) {
	b := memory.New(5)
	_, addr := start(t, b, Options{})
	k, err := dial(t, addr, nil).Keyspace(t.Context(), "k")
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan error, 1)
	go func() {
		e, err := k.Get(t.Context(), "a", &client.GetOptions{After: "5-1"})
		if err == nil && string(e.Value) != "v" {
			err = fmt.Errorf("value %q", e.Value)
		}
		got <- err
	}()
	time.Sleep(3 * absentInterval) // either order is right; this one is the rarer
	made, _ := b.Keyspace(t.Context(), "k")
	if _, err := made.Put(t.Context(), "a", []byte("v"), nil); err != nil {
		t.Fatal(err)
	}
	if err := <-got; err != nil {
		t.Errorf("Get: %v", err)
	}
}

// A reader whose patience ends while the node stops learns that its patience
// ended, and not that the watch did.
func TestNextAfterDrainingAndContext(t *testing.T) {
	s, addr := start(t, memory.New(1), Options{})
	c := dial(t, addr, nil)
	k, _ := c.Keyspace(t.Context(), "k")
	w, err := k.Watch(t.Context(), "", &client.WatchOptions{UpdatesOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if ev, err := w.Next(t.Context()); err != nil || ev.Type != client.EventSynced {
		t.Fatal(ev, err)
	}
	if err := s.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for range 200 {
		if _, err := w.Next(ended); !errors.Is(err, context.Canceled) {
			t.Fatalf("got %v, want %v", err, context.Canceled)
		}
	}
}

// A reader whose time ends together with the connection gets the end of its time.
func TestNextAfterBrokenConnectionAndContext(t *testing.T) {
	s, addr := start(t, memory.New(1), Options{})
	c := dial(t, addr, nil)
	k, _ := c.Keyspace(t.Context(), "k")
	for range 20 {
		w, err := k.Watch(t.Context(), "", &client.WatchOptions{UpdatesOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		if ev, err := w.Next(t.Context()); err != nil || ev.Type != client.EventSynced {
			t.Fatal(ev, err)
		}
		s.mu.Lock()
		for n := range s.native {
			n.conn.Close()
		}
		s.mu.Unlock()
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		returned := make(chan error, 1)
		go func() {
			for range 1000 {
				if _, err := w.Next(ended); !errors.Is(err, context.Canceled) {
					returned <- err
					return
				}
			}
			returned <- nil
		}()
		select {
		case err := <-returned:
			if err != nil {
				t.Fatal(err)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("Next does not return")
		}
		if _, err := k.Put(t.Context(), "k", nil, nil); err != nil && !errors.Is(err, client.ErrUnknownOutcome) {
			t.Fatal(err)
		}
		w.Close()
	}
}
