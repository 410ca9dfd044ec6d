// Package memnet is a network in memory for tests of what runs over streams. It
// delays, holds back and cuts, works under testing/synctest, and has no loss: a
// stream delivers everything in order, or goes silent.
package memnet

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// maxBuffered is how many bytes a stream holds in one direction before writes
// wait.
const maxBuffered = 1 << 20

// A Flow is one direction of all streams that Dialer opened to Acceptor: what the
// dialer writes, or, if Reply, what the acceptor does.
type Flow struct {
	Dialer, Acceptor string
	Reply            bool
}

// A Network connects nodes by their addresses, which may be any strings.
type Network struct {
	mu        sync.Mutex // protects the fields below
	changed   chan struct{}
	listeners map[string]*listener
	held      map[Flow]bool
	delay     map[Flow]time.Duration
	cut       map[[2]string]bool // by dialer and acceptor
	streams   map[*pipe]Flow     // the directions that are open
}

// New is a network without nodes.
func New() *Network {
	return &Network{
		changed: make(chan struct{}), listeners: make(map[string]*listener), held: make(map[Flow]bool),
		delay: make(map[Flow]time.Duration), cut: make(map[[2]string]bool), streams: make(map[*pipe]Flow),
	}
}

// update changes the network by fn and lets everyone who waits look again.
func (n *Network) update(fn func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	fn()
	close(n.changed)
	n.changed = make(chan struct{})
}

// Hold keeps back what flows from now on, until Release delivers it.
func (n *Network) Hold(f Flow) { n.update(func() { n.held[f] = true }) }

// Release ends Hold.
func (n *Network) Release(f Flow) { n.update(func() { delete(n.held, f) }) }

// Delay makes f take d from now on.
func (n *Network) Delay(f Flow, d time.Duration) { n.update(func() { n.delay[f] = d }) }

// Cut silences the streams that dialer has to acceptor, for ever and without an
// error, and lets new ones wait until Heal.
func (n *Network) Cut(dialer, acceptor string) {
	n.update(func() {
		n.cut[[2]string{dialer, acceptor}] = true
		for p, f := range n.streams {
			if f.Dialer == dialer && f.Acceptor == acceptor {
				p.silent = true
				delete(n.streams, p)
			}
		}
	})
}

// Heal lets dialer open streams to acceptor again.
func (n *Network) Heal(dialer, acceptor string) {
	n.update(func() { delete(n.cut, [2]string{dialer, acceptor}) })
}

// Listen makes addr reachable.
func (n *Network) Listen(addr string) (net.Listener, error) {
	l := &listener{network: n, addr: addr}
	var err error
	n.update(func() {
		if n.listeners[addr] != nil {
			err = fmt.Errorf("listen at %s: %w", addr, syscall.EADDRINUSE)
			return
		}
		n.listeners[addr] = l
	})
	if err != nil {
		return nil, err
	}
	return l, nil
}

// Dialer is how the node at from opens streams.
func (n *Network) Dialer(from string) func(ctx context.Context, to string) (net.Conn, error) {
	return func(ctx context.Context, to string) (net.Conn, error) { return n.dial(ctx, from, to) }
}

func (n *Network) dial(ctx context.Context, from, to string) (net.Conn, error) {
	for {
		n.mu.Lock()
		changed := n.changed
		if !n.cut[[2]string{from, to}] {
			defer n.mu.Unlock()
			l := n.listeners[to]
			if l == nil {
				return nil, fmt.Errorf("dial %s: %w", to, syscall.ECONNREFUSED)
			}
			there, back := &pipe{}, &pipe{}
			n.streams[there] = Flow{Dialer: from, Acceptor: to}
			n.streams[back] = Flow{Dialer: from, Acceptor: to, Reply: true}
			l.waiting = append(l.waiting, &conn{network: n, in: there, out: back, local: addr(to), remote: addr(from)})
			close(n.changed)
			n.changed = make(chan struct{})
			return &conn{network: n, in: back, out: there, local: addr(from), remote: addr(to)}, nil
		}
		n.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, fmt.Errorf("dial %s: %w", to, ctx.Err())
		}
	}
}

type addr string

func (addr) Network() string  { return "memory" }
func (a addr) String() string { return string(a) }

type listener struct {
	network *Network
	addr    string
	waiting []*conn // protected by the network's mutex
	closed  bool    // likewise
}

func (l *listener) Addr() net.Addr { return addr(l.addr) }

func (l *listener) Accept() (net.Conn, error) {
	for {
		l.network.mu.Lock()
		changed := l.network.changed
		switch {
		case l.closed:
			l.network.mu.Unlock()
			return nil, net.ErrClosed
		case len(l.waiting) > 0:
			c := l.waiting[0]
			l.waiting = l.waiting[1:]
			l.network.mu.Unlock()
			return c, nil
		}
		l.network.mu.Unlock()
		<-changed
	}
}

func (l *listener) Close() error {
	var waiting []*conn
	l.network.update(func() {
		if !l.closed {
			l.closed = true
			delete(l.network.listeners, l.addr)
			waiting, l.waiting = l.waiting, nil
		}
	})
	for _, c := range waiting {
		_ = c.Close()
	}
	return nil
}

// A pipe is one direction of a stream. All fields are protected by the network's
// mutex.
type pipe struct {
	chunks        []chunk
	bytes         int
	silent        bool // nothing arrives any more, not even the end
	writerClosed  bool
	readerClosed  bool
	readDeadline  time.Time
	writeDeadline time.Time
}

type chunk struct {
	b  []byte
	at time.Time // when it arrives
}

type conn struct {
	network       *Network
	in, out       *pipe
	local, remote addr
}

func (c *conn) LocalAddr() net.Addr  { return c.local }
func (c *conn) RemoteAddr() net.Addr { return c.remote }

// wait lets look run under the mutex after each change, until it reports that it
// is done, or until the moment that it gives.
func (c *conn) wait(look func(now time.Time) (done bool, until time.Time)) {
	for {
		c.network.mu.Lock()
		done, until := look(time.Now())
		changed := c.network.changed
		c.network.mu.Unlock()
		if done {
			return
		}
		if until.IsZero() {
			<-changed
			continue
		}
		timer := time.NewTimer(time.Until(until))
		select {
		case <-changed:
		case <-timer.C:
		}
		timer.Stop()
	}
}

func (c *conn) Read(b []byte) (n int, err error) {
	p := c.in
	c.wait(func(now time.Time) (bool, time.Time) {
		until := p.readDeadline
		switch f := c.network.streams[p]; {
		case p.readerClosed:
			err = net.ErrClosed
			return true, until
		case !until.IsZero() && !now.Before(until):
			err = os.ErrDeadlineExceeded
			return true, until
		case p.silent || c.network.held[f]:
			return false, until
		case len(p.chunks) == 0 && p.writerClosed:
			err = io.EOF
			return true, until
		case len(p.chunks) == 0:
			return false, until
		case now.Before(p.chunks[0].at):
			if at := p.chunks[0].at; until.IsZero() || at.Before(until) {
				until = at
			}
			return false, until
		}
		n = copy(b, p.chunks[0].b)
		if p.chunks[0].b = p.chunks[0].b[n:]; len(p.chunks[0].b) == 0 {
			p.chunks = p.chunks[1:]
		}
		p.bytes -= n
		return true, until
	})
	if n > 0 {
		c.network.update(func() {}) // a writer may wait for the room
	}
	return n, err
}

func (c *conn) Write(b []byte) (n int, err error) {
	p := c.out
	c.wait(func(now time.Time) (bool, time.Time) {
		switch {
		case p.writerClosed:
			err = net.ErrClosed
		case !p.writeDeadline.IsZero() && !now.Before(p.writeDeadline):
			err = os.ErrDeadlineExceeded
		case p.silent:
			n = len(b) // as the kernel would take it
		case p.readerClosed:
			err = syscall.EPIPE
		case p.bytes >= maxBuffered:
			return false, p.writeDeadline
		default:
			n = len(b)
			at := now.Add(c.network.delay[c.network.streams[p]])
			p.chunks = append(p.chunks, chunk{append([]byte(nil), b...), at})
			p.bytes += n
		}
		return true, time.Time{}
	})
	c.network.update(func() {})
	return n, err
}

func (c *conn) Close() error {
	c.network.update(func() {
		c.in.readerClosed, c.out.writerClosed = true, true
		for _, p := range []*pipe{c.in, c.out} {
			if p.readerClosed && p.writerClosed {
				delete(c.network.streams, p)
			}
		}
	})
	return nil
}

func (c *conn) SetDeadline(t time.Time) error {
	c.network.update(func() { c.in.readDeadline, c.out.writeDeadline = t, t })
	return nil
}

func (c *conn) SetReadDeadline(t time.Time) error {
	c.network.update(func() { c.in.readDeadline = t })
	return nil
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	c.network.update(func() { c.out.writeDeadline = t })
	return nil
}
