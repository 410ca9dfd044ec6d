package faultnet

import (
	"bytes"
	"cmp"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// A node that writes faster than the other takes, or into a partition, blocks after this much.
const connBuffer = 256 << 10

// conn delays and holds what its end writes. Each end does so for its own direction, so reading
// passes through.
type conn struct {
	net.Conn
	end     *Endpoint
	release func()

	mu       sync.Mutex // protects the fields below
	queue    []chunk
	queued   int
	err      error         // of the pump: all later writes fail
	deadline time.Time     // of writes
	state    chan struct{} // closed and replaced whenever any of these changes

	shut bool

	closed chan struct{}
	done   chan struct{} // the pump has ended
}

type chunk struct {
	data []byte
	due  time.Time
}

func newConn(c net.Conn, e *Endpoint, release func()) *conn {
	fc := &conn{Conn: c, end: e, release: release, state: make(chan struct{}), closed: make(chan struct{}), done: make(chan struct{})}
	go fc.pump()
	return fc
}

// signal wakes whoever waits for a change. mu is held.
func (c *conn) signal() {
	close(c.state)
	c.state = make(chan struct{})
}

func (c *conn) Write(b []byte) (int, error) {
	total := 0
	for len(b) > 0 {
		n, err := c.put(b)
		total += n
		b = b[n:]
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

// put queues a piece of b, waiting for room.
func (c *conn) put(b []byte) (int, error) {
	for {
		delay := c.end.net.path(c.end.name, "tcp", c.RemoteAddr().String()).delay
		c.mu.Lock()
		if err := c.err; err != nil || c.shut {
			c.mu.Unlock()
			return 0, cmp.Or(err, net.ErrClosed)
		}
		if room := connBuffer - c.queued; room > 0 {
			n := min(room, len(b))
			c.queue = append(c.queue, chunk{data: bytes.Clone(b[:n]), due: time.Now().Add(delay)})
			c.queued += n
			c.signal()
			c.mu.Unlock()
			return n, nil
		}
		state, deadline := c.state, c.deadline
		c.mu.Unlock()
		if err := c.await(state, deadline); err != nil {
			return 0, err
		}
	}
}

// await waits for a change of state until the deadline.
func (c *conn) await(state <-chan struct{}, deadline time.Time) error {
	var expired <-chan time.Time
	if !deadline.IsZero() {
		t := time.NewTimer(time.Until(deadline))
		defer t.Stop()
		expired = t.C
	}
	select {
	case <-state:
		return nil
	case <-c.closed:
		return net.ErrClosed
	case <-expired:
		return os.ErrDeadlineExceeded
	}
}

// pump writes chunks to the socket when they are due and the way is open, until the connection is
// closed. It is the only writer.
func (c *conn) pump() {
	defer close(c.done)
	for {
		c.mu.Lock()
		state := c.state
		var next chunk
		if len(c.queue) > 0 {
			next = c.queue[0]
		}
		c.mu.Unlock()
		if next.data == nil {
			select {
			case <-state:
				continue
			case <-c.closed:
				return
			}
		}
		if !c.passable(next.due) {
			return
		}
		n, err := c.Conn.Write(next.data)
		c.mu.Lock()
		c.queued -= n
		if n == len(next.data) {
			c.queue = c.queue[1:]
		} else {
			c.queue[0].data = next.data[n:]
		}
		if err != nil && !c.shut {
			c.err = err
			c.queue, c.queued = nil, 0
		}
		c.signal()
		c.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// passable waits until due and until no partition is on the way, and is false when the connection
// was closed.
func (c *conn) passable(due time.Time) bool {
	for {
		p := c.end.net.path(c.end.name, "tcp", c.RemoteAddr().String())
		var timer <-chan time.Time
		var t *time.Timer
		if !p.cut {
			left := time.Until(due)
			if left <= 0 {
				return true
			}
			t = time.NewTimer(left)
			timer = t.C
		}
		select {
		case <-timer:
		case <-p.changed:
		case <-c.closed:
		}
		if t != nil {
			t.Stop()
		}
		select {
		case <-c.closed:
			return false
		default:
		}
	}
}

func (c *conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err != nil {
		select {
		case <-c.closed: // it may be open below, see finish
			err = net.ErrClosed
		default:
		}
	}
	return n, err
}

func (c *conn) SetDeadline(t time.Time) error {
	c.SetWriteDeadline(t)
	return c.SetReadDeadline(t)
}

func (c *conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.shut {
		return net.ErrClosed
	}
	return c.Conn.SetReadDeadline(t)
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = t
	c.signal()
	return nil
}

// Close ends the connection for this end. What is queued is sent before, latency or not, as far as the
// kernel takes it within 100 ms. Across a partition the other end learns of it after the healing.
func (c *conn) Close() error {
	c.mu.Lock()
	if c.shut {
		c.mu.Unlock()
		return net.ErrClosed
	}
	c.shut = true
	close(c.closed)                                  // before, or Read takes that for a deadline
	c.Conn.SetDeadline(time.Now().Add(-time.Second)) // a read or write in progress ends
	c.mu.Unlock()
	<-c.done
	c.finish()
	return nil
}

// finish closes the socket if the way is open, and comes again after the next change if not.
func (c *conn) finish() {
	if c.end.net.keepCut(c) {
		return
	}
	c.Conn.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
	for _, q := range c.queue { // nobody else touches it any more
		if _, err := c.Conn.Write(q.data); err != nil {
			break
		}
	}
	c.queue = nil
	c.release()
	c.Conn.Close()
}

// packetConn delays and drops what its end sends.
type packetConn struct {
	net.PacketConn
	end     *Endpoint
	pending atomic.Int64
	closed  chan struct{}
	once    sync.Once
}

const maxPending = 4096 // delayed packets of one socket; more are lost

func newPacketConn(c net.PacketConn, e *Endpoint) *packetConn {
	return &packetConn{PacketConn: c, end: e, closed: make(chan struct{})}
}

func (c *packetConn) WriteTo(b []byte, to net.Addr) (int, error) {
	p := c.end.net.path(c.end.name, "udp", to.String())
	switch {
	case p.cut || p.lossy:
		return len(b), nil
	case p.delay == 0:
		return c.PacketConn.WriteTo(b, to)
	}
	select {
	case <-c.closed:
		return 0, net.ErrClosed
	default:
	}
	if c.pending.Add(1) > maxPending {
		c.pending.Add(-1)
		return len(b), nil
	}
	data := bytes.Clone(b)
	time.AfterFunc(p.delay, func() {
		defer c.pending.Add(-1)
		if !c.end.net.path(c.end.name, "udp", to.String()).cut {
			c.PacketConn.WriteTo(data, to) // lost if it was closed meanwhile
		}
	})
	return len(b), nil
}

func (c *packetConn) SetReadBuffer(n int) error {
	if b, ok := c.PacketConn.(interface{ SetReadBuffer(int) error }); ok {
		return b.SetReadBuffer(n)
	}
	return nil
}

func (c *packetConn) Close() error {
	c.once.Do(func() {
		close(c.closed)
		c.end.net.release("udp", c.LocalAddr().String(), c.end.name)
	})
	return c.PacketConn.Close()
}
