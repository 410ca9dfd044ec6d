package mesh

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// memory is a network in memory on which [synctest] can let hours pass: like faultnet it has broken cables, not
// closed ports. A node has its own host, 10.0.x.y, and is cut off by the name of that.
type memory struct {
	mu      sync.Mutex // protects the fields below
	tcp     map[string]*memoryListener
	udp     map[string]*memoryPackets
	cut     func(from, to string, udp bool) bool // by host; nil: nothing is cut
	changed chan struct{}
	port    int
}

const (
	memoryBuffer  = 256 << 10
	memoryLatency = 100 * time.Microsecond
)

func newMemory() *memory {
	return &memory{tcp: make(map[string]*memoryListener), udp: make(map[string]*memoryPackets), changed: make(chan struct{}), port: 40000}
}

// split cuts the hosts off from all others.
func (m *memory) split(hosts ...string) {
	m.fault(func(from, to string, _ bool) bool { return slices.Contains(hosts, from) != slices.Contains(hosts, to) })
}

func (m *memory) heal() { m.fault(nil) }

// fault replaces what is cut.
func (m *memory) fault(cut func(from, to string, udp bool) bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cut = cut
	close(m.changed)
	m.changed = make(chan struct{})
}

func hostOf(addr string) string {
	host, _, _ := net.SplitHostPort(addr)
	return host
}

// way says whether the way is open; if not, it may be when the channel is closed.
func (m *memory) way(a, b string, udp bool) (bool, <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.cut == nil || !m.cut(hostOf(a), hostOf(b), udp), m.changed
}

type memoryAddr string

func (a memoryAddr) Network() string { return "memory" }
func (a memoryAddr) String() string  { return string(a) }

// memoryHost implements Network.
type memoryHost struct {
	net  *memory
	host string
}

func (h memoryHost) ListenTCP(addr string) (net.Listener, error) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	if h.net.tcp[addr] != nil {
		return nil, syscall.EADDRINUSE
	}
	l := &memoryListener{host: h, addr: memoryAddr(addr), conns: make(chan net.Conn, 256), closed: make(chan struct{})}
	h.net.tcp[addr] = l
	return l, nil
}

func (h memoryHost) ListenUDP(addr string) (net.PacketConn, error) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	p := &memoryPackets{host: h, addr: memoryAddr(addr), in: make(chan memoryPacket, 1024), closed: make(chan struct{})}
	h.net.udp[addr] = p
	return p, nil
}

func (h memoryHost) DialTCP(ctx context.Context, addr string) (net.Conn, error) {
	for {
		open, changed := h.net.way(h.host+":0", addr, false)
		back, _ := h.net.way(addr, h.host+":0", false)
		if open && back {
			break
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, &net.OpError{Op: "dial", Net: "memory", Err: ctx.Err()}
		}
	}
	time.Sleep(2 * memoryLatency)
	h.net.mu.Lock()
	l := h.net.tcp[addr]
	h.net.port++
	local := memoryAddr(fmt.Sprintf("%s:%d", h.host, h.net.port))
	h.net.mu.Unlock()
	refused := &net.OpError{Op: "dial", Net: "memory", Err: syscall.ECONNREFUSED}
	if l == nil {
		return nil, refused
	}
	there, back := newMemoryPipe(h.net, string(local), addr), newMemoryPipe(h.net, addr, string(local))
	select {
	case l.conns <- &memoryConn{in: there, out: back, local: memoryAddr(addr), remote: local}:
		return &memoryConn{in: back, out: there, local: local, remote: memoryAddr(addr)}, nil
	default:
		return nil, refused
	}
}

type memoryListener struct {
	host   memoryHost
	addr   memoryAddr
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

func (l *memoryListener) Addr() net.Addr { return l.addr }
func (l *memoryListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *memoryListener) Close() error {
	l.once.Do(func() {
		l.host.net.mu.Lock()
		delete(l.host.net.tcp, string(l.addr))
		l.host.net.mu.Unlock()
		close(l.closed)
		for {
			select {
			case c := <-l.conns:
				c.Close()
				continue
			default:
			}
			return
		}
	})
	return nil
}

// memoryPipe is one direction of a connection.
type memoryPipe struct {
	net      *memory
	from, to string

	mu       sync.Mutex // protects the fields below
	buf      bytes.Buffer
	closed   bool // by the writer: the reader learns it across an open way
	gone     bool // the reader closed
	readEnd  time.Time
	writeEnd time.Time
	changed  chan struct{}
}

func newMemoryPipe(m *memory, from, to string) *memoryPipe {
	return &memoryPipe{net: m, from: from, to: to, changed: make(chan struct{})}
}

// update changes the pipe and wakes who waits on it.
func (p *memoryPipe) update(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
	close(p.changed)
	p.changed = make(chan struct{})
}

// await runs try until it is done; end is the deadline, read under the lock.
func (p *memoryPipe) await(end *time.Time, try func(open bool) (int, error, bool)) (int, error) {
	for {
		open, way := p.net.way(p.from, p.to, false)
		p.mu.Lock()
		n, err, done := try(open)
		changed, at := p.changed, *end
		p.mu.Unlock()
		if done {
			return n, err
		}
		var expired <-chan time.Time
		if !at.IsZero() {
			left := time.Until(at)
			if left <= 0 {
				return 0, os.ErrDeadlineExceeded
			}
			t := time.NewTimer(left)
			defer t.Stop()
			expired = t.C
		}
		select {
		case <-changed:
		case <-way:
		case <-expired:
		}
	}
}

type memoryConn struct {
	in, out       *memoryPipe
	local, remote memoryAddr
}

func (c *memoryConn) LocalAddr() net.Addr  { return c.local }
func (c *memoryConn) RemoteAddr() net.Addr { return c.remote }

func (c *memoryConn) Read(b []byte) (int, error) {
	p := c.in
	return p.await(&p.readEnd, func(open bool) (int, error, bool) {
		switch {
		case p.gone:
			return 0, net.ErrClosed, true
		case open && p.buf.Len() > 0:
			n, _ := p.buf.Read(b)
			close(p.changed) // there is room
			p.changed = make(chan struct{})
			return n, nil, true
		case open && p.closed:
			return 0, io.EOF, true
		}
		return 0, nil, false
	})
}

func (c *memoryConn) Write(b []byte) (int, error) {
	p, total := c.out, 0
	for len(b) > 0 {
		n, err := p.await(&p.writeEnd, func(open bool) (int, error, bool) {
			switch room := memoryBuffer - p.buf.Len(); {
			case p.closed:
				return 0, net.ErrClosed, true
			case open && p.gone:
				return 0, syscall.EPIPE, true
			case room > 0:
				n, _ := p.buf.Write(b[:min(room, len(b))])
				close(p.changed)
				p.changed = make(chan struct{})
				return n, nil, true
			}
			return 0, nil, false
		})
		total, b = total+n, b[n:]
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

func (c *memoryConn) Close() error {
	c.out.update(func() { c.out.closed = true })
	c.in.update(func() { c.in.gone = true })
	return nil
}

func (c *memoryConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

func (c *memoryConn) SetReadDeadline(t time.Time) error {
	c.in.update(func() { c.in.readEnd = t })
	return nil
}

func (c *memoryConn) SetWriteDeadline(t time.Time) error {
	c.out.update(func() { c.out.writeEnd = t })
	return nil
}

type memoryPacket struct {
	data []byte
	from memoryAddr
}

type memoryPackets struct {
	host   memoryHost
	addr   memoryAddr
	in     chan memoryPacket
	once   sync.Once
	closed chan struct{}
}

func (p *memoryPackets) LocalAddr() net.Addr              { return p.addr }
func (p *memoryPackets) SetDeadline(time.Time) error      { return nil }
func (p *memoryPackets) SetReadDeadline(time.Time) error  { return nil }
func (p *memoryPackets) SetWriteDeadline(time.Time) error { return nil }

func (p *memoryPackets) ReadFrom(b []byte) (int, net.Addr, error) {
	select {
	case m := <-p.in:
		return copy(b, m.data), m.from, nil
	case <-p.closed:
		return 0, nil, net.ErrClosed
	}
}

func (p *memoryPackets) WriteTo(b []byte, to net.Addr) (int, error) {
	if open, _ := p.host.net.way(string(p.addr), to.String(), true); !open {
		return len(b), nil
	}
	m := memoryPacket{data: bytes.Clone(b), from: p.addr}
	time.AfterFunc(memoryLatency, func() {
		p.host.net.mu.Lock()
		there := p.host.net.udp[to.String()]
		p.host.net.mu.Unlock()
		if there == nil {
			return
		}
		select {
		case there.in <- m:
		default:
		}
	})
	return len(b), nil
}

func (p *memoryPackets) Close() error {
	p.once.Do(func() {
		p.host.net.mu.Lock()
		if p.host.net.udp[string(p.addr)] == p {
			delete(p.host.net.udp, string(p.addr))
		}
		p.host.net.mu.Unlock()
		close(p.closed)
	})
	return nil
}

// virtual runs a test on a network in memory, in a bubble where time passes as fast as nothing is left to do.
func virtual(t *testing.T, run func(t *testing.T, c *memoryCluster)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := &memoryCluster{cluster: cluster{t: t}, mem: newMemory()}
		defer func() {
			for _, n := range c.started {
				n.kill()
			}
			time.Sleep(time.Minute) // memberlist's goroutines end with their probes
		}()
		run(t, c)
	})
}

type memoryCluster struct {
	cluster
	mem     *memory
	started []*node
}

// host is that of the i-th node.
func memoryHostOf(i int) string { return fmt.Sprintf("10.0.%d.%d", i/250, i%250+1) }

// begin starts a node with the default timings on the i-th host; edit may change them.
func (c *memoryCluster) begin(i int, inc uint64, port int, edit func(*Config), seeds ...string) *node {
	n := c.start(fmt.Sprintf("n%03d", i), inc, func(cfg *Config) {
		cfg.Timings = Timings{}
		cfg.Network = memoryHost{net: c.mem, host: memoryHostOf(i)}
		cfg.Bind = fmt.Sprintf("%s:%d", memoryHostOf(i), port)
		if edit != nil {
			edit(cfg)
		}
	}, seeds...)
	c.started = append(c.started, n)
	return n
}
