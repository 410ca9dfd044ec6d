package api

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/client/wire"
)

const (
	// lingerTime is how long a drained connection waits for its client to hang
	// up, so that a request that crosses the drain is refused, not cut.
	lingerTime = 500 * time.Millisecond
	// readBuffer is read from a connection at once.
	readBuffer = 64 << 10
	// keptFrame is the largest frame buffer that is kept for another frame.
	keptFrame = 64 << 10
)

var errClientGone = errors.New("the client's connection ended")

// serveNative upgrades a request and serves the native protocol on its
// connection until that ends.
func (s *Server) serveNative(w http.ResponseWriter, r *http.Request) {
	if !strings.EqualFold(r.Header.Get("Upgrade"), wire.Protocol) {
		w.Header().Set("Upgrade", wire.Protocol)
		s.writeError(w, http.StatusUpgradeRequired, "bad_request", "this address speaks "+wire.Protocol+" by HTTP upgrade")
		return
	}
	if s.isDraining() {
		s.metrics.rejected(rejectDraining)
		s.fail(w, client.ErrDraining)
		return
	}
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		s.fail(w, fmt.Errorf("%w: this connection cannot be upgraded", client.ErrBadRequest))
		return
	}
	defer conn.Close()
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(r.Context()))
	c := &nativeConn{
		server: s,
		conn:   conn,
		sender: wire.NewSender(),
		cancel: cancel,
		active: make(map[uint64]*activeRequest),
		work:   make(chan job, maxIdleWorkers),
		gone:   make(chan struct{}),
	}
	s.mu.Lock()
	if s.drained {
		s.mu.Unlock()
		return
	}
	s.native[c] = struct{}{}
	s.conns.Add(1)
	s.mu.Unlock()
	s.metrics.native.Inc()
	defer func() {
		s.metrics.native.Dec()
		s.mu.Lock()
		delete(s.native, c)
		s.mu.Unlock()
		s.conns.Done()
	}()
	conn.SetDeadline(time.Now().Add(s.opts.WriteTimeout))
	if _, err := fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n%s: %d\r\n\r\n",
		wire.Protocol, wire.MaxInflightHeader, s.opts.MaxInflight); err != nil {
		return
	}
	conn.SetDeadline(time.Time{})
	err = c.run(ctx, bufio.NewReaderSize(rw.Reader, readBuffer))
	s.log.Debug("native connection ended", "peer", conn.RemoteAddr().String(), "err", err)
}

// A nativeConn is one connection of the native protocol: a reader that starts
// requests, a pool of workers that carry them out, a goroutine for each watch,
// and a sender.
type nativeConn struct {
	server *Server
	conn   net.Conn
	sender *wire.Sender
	cancel context.CancelCauseFunc // ends the requests and watches
	work   chan job                // to workers that are idle
	gone   chan struct{}           // closed when the reader has ended
	wg     sync.WaitGroup

	mu       sync.Mutex // protects the fields below
	active   map[uint64]*activeRequest
	inflight int  // requests that are carried out, without watches
	replies  int  // requests whose reply is not queued yet
	idle     int  // workers that wait for work
	draining bool // no more requests
	quiet    chan struct{}
}

// An activeRequest is a request that can be cancelled.
type activeRequest struct {
	cancel context.CancelCauseFunc
	credit *credit // of a watch
	waits  bool    // it waits for something that may not come: it ends when the server drains
}

// maxIdleWorkers bounds the workers that wait for work.
const maxIdleWorkers = 64

// A job is one request on its way to a worker.
type job struct {
	req     wire.Request
	frame   *[]byte // goes back to the pool afterwards
	bytes   int64   // counted as in flight
	arrived time.Time
	last    bool // nothing had come after it when it was read
}

var framePool = sync.Pool{New: func() any { b := make([]byte, 0, 4<<10); return &b }}

func putFrame(f *[]byte) {
	if cap(*f) <= keptFrame {
		framePool.Put(f)
	}
}

// run serves the connection until it fails, is drained, or its client hangs up,
// and leaves no goroutine behind.
func (c *nativeConn) run(ctx context.Context, r *bufio.Reader) error {
	defer c.wg.Wait()
	c.wg.Go(func() {
		err := c.sender.Run(c.conn, c.server.opts.WriteTimeout)
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			c.server.metrics.rejected(rejectSlow)
		}
		c.sender.Close(err)
		c.conn.Close() // ends the reader
	})
	err := c.read(ctx, r)
	if errors.Is(err, wire.ErrFrame) {
		c.server.metrics.rejected(rejectFrame)
		c.server.log.Debug("native connection sent no valid frame", "peer", c.conn.RemoteAddr().String(), "err", err)
	}
	close(c.gone)
	c.cancel(errClientGone)
	c.sender.Close(errClientGone)
	c.conn.Close()
	return err
}

// read starts the requests that come, until the connection fails.
func (c *nativeConn) read(ctx context.Context, r *bufio.Reader) error {
	frame := framePool.Get().(*[]byte)
	defer func() { putFrame(frame) }()
	for {
		if r.Buffered() == 0 {
			if err := c.conn.SetReadDeadline(time.Now().Add(c.server.opts.IdleTimeout)); err != nil {
				return err
			}
		}
		payload, err := wire.ReadFrame(r, *frame, wire.MaxRequest)
		if err != nil {
			if err == io.EOF {
				return nil
			}
			return err
		}
		*frame = payload
		j := job{arrived: time.Now(), bytes: int64(len(payload)), last: r.Buffered() == 0}
		if err := wire.DecodeRequest(payload, &j.req); err != nil {
			return err
		}
		if j.req.Value != nil {
			j.frame = frame // the value is part of it
		}
		if err := c.start(ctx, j); err != nil {
			return err
		}
		if j.frame != nil {
			frame = framePool.Get().(*[]byte)
		}
	}
}

// start carries out what takes no time and hands on the rest. An error ends the
// connection.
func (c *nativeConn) start(ctx context.Context, j job) error {
	switch j.req.Type {
	case wire.Ping:
		return c.reply(ctx, &wire.Reply{ID: j.req.ID, Type: wire.Done})
	case wire.Cancel:
		c.mu.Lock()
		if a := c.active[j.req.ID]; a != nil {
			a.cancel(context.Canceled)
		}
		c.mu.Unlock()
		return nil
	case wire.Credit:
		c.mu.Lock()
		if a := c.active[j.req.ID]; a != nil && a.credit != nil {
			a.credit.grant(j.req.Limit)
		}
		c.mu.Unlock()
		return nil
	}
	c.mu.Lock()
	if c.draining {
		c.mu.Unlock()
		c.server.metrics.rejected(rejectDraining)
		return c.refuse(ctx, j, client.ErrDraining)
	}
	if j.req.Type == wire.Watch {
		return c.startWatch(ctx, j) // unlocks
	}
	if c.inflight >= c.server.opts.MaxInflight {
		c.mu.Unlock()
		c.server.metrics.rejected(rejectInflight)
		return c.refuse(ctx, j, errTooManyRequests)
	}
	if c.server.inflightBytes.Add(j.bytes) > c.server.opts.MaxInflightBytes {
		c.mu.Unlock()
		c.server.inflightBytes.Add(-j.bytes)
		c.server.metrics.rejected(rejectInflight)
		return c.refuse(ctx, j, errTooManyInflight)
	}
	c.inflight++
	c.replies++
	if !c.server.waits(&j.req) {
		c.mu.Unlock()
		return c.answer(ctx, j) // from memory
	}
	idle := c.idle > 0
	if idle {
		c.idle--
	}
	c.mu.Unlock()
	if idle {
		c.work <- j // never blocks: the place of an idle worker was taken above
		return nil
	}
	c.wg.Go(func() { c.worker(ctx, j) })
	return nil
}

// worker carries out j and then what else there is, until enough others do so.
func (c *nativeConn) worker(ctx context.Context, j job) {
	for {
		c.answer(ctx, j) // the reader ends when the sender has failed
		c.mu.Lock()
		if c.idle >= maxIdleWorkers {
			c.mu.Unlock()
			return
		}
		c.idle++
		c.mu.Unlock()
		select {
		case j = <-c.work:
		case <-c.gone:
			c.giveBack()
			return
		}
	}
}

// giveBack lets go of a request that nobody will carry out. A worker counts
// itself idle before it waits, so the reader may hand it a request and then end
// while the worker is on its way to the select, which may choose gone. No more
// than one request is left for each worker that ends: start takes an idle one
// for each, and the reader hands on none after gone is closed.
func (c *nativeConn) giveBack() {
	select {
	case j := <-c.work:
		c.finish(j)
		c.replied()
	default:
	}
}

// finish is called when a request was carried out, before its reply is queued:
// the client may use its place as soon as it has the reply. It reports whether no other
// reply is to come soon, as far as can be seen.
func (c *nativeConn) finish(j job) (alone bool) {
	if j.frame != nil {
		putFrame(j.frame)
	}
	c.server.inflightBytes.Add(-j.bytes)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.inflight--
	return j.last && c.replies == 1
}

// replied is called when the reply is queued.
func (c *nativeConn) replied() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.replies--
	c.signalQuiet()
}

// signalQuiet tells drain that nothing is in flight any more.
func (c *nativeConn) signalQuiet() {
	if c.quiet != nil && c.replies == 0 && len(c.active) == 0 {
		close(c.quiet)
		c.quiet = nil
	}
}

func (c *nativeConn) reply(ctx context.Context, r *wire.Reply) error {
	_, err := c.sender.SendReply(ctx, r, false)
	return err
}

// refuse answers a request that is not carried out.
func (c *nativeConn) refuse(ctx context.Context, j job, err error) error {
	op := operationOf(j.req.Type)
	c.server.metrics.done(overNative, op, err, time.Since(j.arrived))
	return c.reply(ctx, errorReply(j.req.ID, err))
}

func errorReply(id uint64, err error) *wire.Reply {
	reply := &wire.Reply{ID: id, Type: wire.Error, Code: failures[failureOf(err)].code, Message: err.Error()}
	if c := concernOf(err); c != nil {
		reply.Acked, reply.Want = uint64(c.Acked), uint64(c.Want)
	}
	return reply
}

// register makes a request cancellable; c.mu is held. False if its id is in use.
func (c *nativeConn) register(id uint64, a *activeRequest) bool {
	if c.active[id] != nil {
		return false
	}
	c.active[id] = a
	return true
}

func (c *nativeConn) unregister(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.active, id)
	c.signalQuiet()
}

// drain refuses further requests, ends the watches, waits for what is in
// flight until ctx ends, and hangs up.
func (c *nativeConn) drain(ctx context.Context) {
	defer c.conn.Close()
	c.mu.Lock()
	c.draining = true
	for _, a := range c.active {
		if a.credit != nil || a.waits {
			a.cancel(client.ErrDraining)
		}
	}
	var quiet chan struct{}
	if c.replies > 0 || len(c.active) > 0 {
		if c.quiet == nil {
			c.quiet = make(chan struct{})
		}
		quiet = c.quiet
	}
	c.mu.Unlock()
	if c.reply(ctx, &wire.Reply{Type: wire.Draining}) != nil {
		return
	}
	if quiet != nil {
		select {
		case <-quiet:
		case <-c.gone:
		case <-ctx.Done():
			c.cancel(client.ErrDraining)
			return
		}
	}
	c.sender.Flush(ctx)
	linger := time.NewTimer(lingerTime)
	defer linger.Stop()
	select {
	case <-linger.C:
	case <-c.gone:
	case <-ctx.Done():
	}
}

var errTooManyRequests = fmt.Errorf("%w: the connection has as many requests in flight as it may", client.ErrOverloaded)
