package client

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/meshkv/meshkv/client/wire"
)

// errNotSent and errLost say how a connection ended for a request: before it
// was sent, or after.
var (
	errNotSent = errors.New("connection broke before the request was sent")
	errLost    = errors.New("connection broke")
)

// A conn is one connection. It is never repaired: when it fails, all its calls
// and streams do.
type conn struct {
	net      net.Conn
	reader   *bufio.Reader
	sender   *wire.Sender
	slots    chan struct{} // one for each call in flight
	gone     chan struct{} // closed when it has failed
	draining chan struct{} // closed when the node stops
	heard    atomic.Int64  // when something last came, Unix nanoseconds

	mu      sync.Mutex // protects the fields below
	err     error      // why it failed
	drained bool       // draining is closed
	lastID  uint64
	calls   map[uint64]*remoteCall
	streams map[uint64]*stream
}

// A remoteCall is one request that waits for its reply. One without done was
// given up by its caller: it keeps its slot until the node has answered.
type remoteCall struct {
	reply wire.Reply
	err   error
	done  chan struct{} // receives one token when reply or err is set
}

var callPool = sync.Pool{New: func() any { return &remoteCall{done: make(chan struct{}, 1)} }}

func newConn(nc net.Conn, r *bufio.Reader, inflight int) *conn {
	cn := &conn{
		net:      nc,
		reader:   r,
		sender:   wire.NewSender(),
		slots:    make(chan struct{}, inflight),
		gone:     make(chan struct{}),
		draining: make(chan struct{}),
		calls:    make(map[uint64]*remoteCall),
		streams:  make(map[uint64]*stream),
	}
	cn.heard.Store(time.Now().UnixNano())
	return cn
}

// fail ends the connection; the first error counts.
func (cn *conn) fail(err error) {
	cn.mu.Lock()
	if cn.err != nil {
		cn.mu.Unlock()
		return
	}
	cn.err = err
	close(cn.gone)
	calls, streams := cn.calls, cn.streams
	cn.calls, cn.streams = nil, nil
	cn.mu.Unlock()
	cn.sender.Close(err)
	cn.net.Close()
	for _, c := range calls {
		if c.done == nil {
			continue
		}
		c.err = errLost
		c.done <- struct{}{}
	}
	for _, s := range streams {
		s.end(errLost)
	}
}

// watchOver pings when nothing comes, and ends a connection over which nothing
// comes for three intervals.
func (cn *conn) watchOver(closed <-chan struct{}, interval time.Duration) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-closed:
			cn.fail(ErrClosed)
			return
		case <-cn.gone:
			return
		case now := <-ticker.C:
			switch silent := now.Sub(time.Unix(0, cn.heard.Load())); {
			case silent > 3*interval:
				cn.fail(fmt.Errorf("%w: nothing heard for %s", ErrUnavailable, silent.Round(time.Second)))
				return
			case silent > interval/2:
				// If the sender is full, the node's answers to that will do.
				cn.sender.TrySendRequest(&wire.Request{Type: wire.Ping})
			}
		}
	}
}

// read delivers replies until the connection fails.
func (cn *conn) read() {
	buf := make([]byte, 0, 4<<10)
	for {
		payload, err := wire.ReadFrame(cn.reader, buf, wire.MaxReply)
		if err != nil {
			cn.fail(err)
			return
		}
		if cap(payload) <= 256<<10 {
			buf = payload
		}
		cn.heard.Store(time.Now().UnixNano())
		var r wire.Reply
		if err := wire.DecodeReply(payload, &r); err != nil {
			cn.fail(err)
			return
		}
		cn.deliver(&r, len(payload)+4)
	}
}

func (cn *conn) deliver(r *wire.Reply, size int) {
	if r.Type == wire.Draining {
		cn.mu.Lock()
		if !cn.drained {
			cn.drained = true
			close(cn.draining)
		}
		cn.mu.Unlock()
		cn.hangUpIfDrained()
		return
	}
	cn.mu.Lock()
	s := cn.streams[r.ID]
	c := cn.calls[r.ID]
	delete(cn.calls, r.ID)
	if s != nil && r.Type == wire.Error {
		delete(cn.streams, r.ID)
	}
	cn.mu.Unlock()
	switch {
	case c != nil && c.done == nil:
		<-cn.slots
	case c != nil:
		own(r)
		c.reply = *r
		c.done <- struct{}{}
	case s != nil:
		s.deliver(r, size)
	case r.Type == wire.Happened:
		// The cancellation of a watch did not get through.
		cn.sender.TrySendRequest(&wire.Request{ID: r.ID, Type: wire.Cancel})
	}
	cn.hangUpIfDrained()
}

// own copies what is part of the connection's buffer.
func own(r *wire.Reply) {
	switch r.Type {
	case wire.Document:
		r.Body = append([]byte(nil), r.Body...)
	case wire.Found:
		ownEntry(&r.Entry)
	case wire.Page:
		for i := range r.Entries {
			ownEntry(&r.Entries[i])
		}
	}
}

func ownEntry(e *wire.Entry) {
	e.Value = cloneValue(e.Value)
	for i := range e.Siblings {
		e.Siblings[i].Value = cloneValue(e.Siblings[i].Value)
	}
}

// cloneValue keeps nil apart from empty.
func cloneValue(v []byte) []byte {
	if v == nil {
		return nil
	}
	return append(make([]byte, 0, len(v)), v...)
}

// hangUpIfDrained ends a connection to a stopping node once nothing is left on
// it.
func (cn *conn) hangUpIfDrained() {
	cn.mu.Lock()
	over := cn.drained && cn.err == nil && len(cn.calls) == 0 && len(cn.streams) == 0
	cn.mu.Unlock()
	if over {
		cn.fail(ErrDraining)
	}
}

// call sends r and waits for its reply. The error is errNotSent, errLost, or
// that of ctx; sent says whether the request may have reached the node.
func (cn *conn) call(ctx context.Context, r *wire.Request) (reply wire.Reply, sent bool, err error) {
	select {
	case cn.slots <- struct{}{}:
	case <-cn.gone:
		return wire.Reply{}, false, errNotSent
	case <-ctx.Done():
		return wire.Reply{}, false, ctx.Err()
	}
	c := callPool.Get().(*remoteCall)
	cn.mu.Lock()
	if cn.err != nil || cn.drained {
		cn.mu.Unlock()
		<-cn.slots
		callPool.Put(c)
		return wire.Reply{}, false, errNotSent
	}
	cn.lastID++
	r.ID = cn.lastID
	alone := len(cn.calls) == 0
	cn.calls[r.ID] = c
	cn.mu.Unlock()
	if err := cn.sender.SendRequest(ctx, r, alone); err != nil {
		cn.takeBack(r.ID, c, nil)
		<-cn.slots
		cn.hangUpIfDrained()
		if ctx.Err() == nil {
			err = errNotSent
		}
		return wire.Reply{}, false, err
	}
	select {
	case <-c.done:
	case <-ctx.Done():
		if cn.takeBack(r.ID, c, &remoteCall{}) {
			cn.sender.TrySendRequest(&wire.Request{ID: r.ID, Type: wire.Cancel})
			return wire.Reply{}, true, ctx.Err()
		}
		// The reply came at the same time: it counts.
	}
	<-cn.slots
	reply, err = c.reply, c.err
	c.reply, c.err = wire.Reply{}, nil
	callPool.Put(c)
	return reply, true, err
}

// takeBack replaces a call, by nothing if instead is nil, and reports true; or
// it waits for the outcome that is being delivered.
func (cn *conn) takeBack(id uint64, c, instead *remoteCall) bool {
	cn.mu.Lock()
	mine := cn.calls[id] == c
	if mine {
		if delete(cn.calls, id); instead != nil {
			cn.calls[id] = instead
		}
	}
	cn.mu.Unlock()
	if !mine {
		<-c.done
	}
	return mine
}

// open starts a watch. Its first reply, Opened or an error, comes to the
// stream's queue.
func (cn *conn) open(ctx context.Context, r *wire.Request) (*stream, error) {
	s := &stream{conn: cn, window: int(r.Limit), ready: make(chan struct{}, 1)}
	cn.mu.Lock()
	if cn.err != nil || cn.drained {
		cn.mu.Unlock()
		return nil, errNotSent
	}
	cn.lastID++
	r.ID = cn.lastID
	s.id = r.ID
	cn.streams[r.ID] = s
	cn.mu.Unlock()
	if err := cn.sender.SendRequest(ctx, r, false); err != nil {
		s.close()
		if ctx.Err() == nil {
			err = errNotSent
		}
		return nil, err
	}
	return s, nil
}
