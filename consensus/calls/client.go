package calls

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	firstBackoff = 50 * time.Millisecond
	maxBackoff   = time.Second
	// maxPeers is how many nodes a client remembers before it forgets those without a
	// connection. Those with one are as many as the cluster has.
	maxPeers = 1024
)

// A Client calls nodes. Safe for concurrent use.
type Client struct {
	dial  Dialer
	opt   Options
	stats clientCounts
	spare sync.Pool // of *call

	ctx    context.Context // of all connections; ends with Close
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup

	mu     sync.Mutex // protects the fields below
	peers  map[string]*peer
	closed bool
}

// A peer is a node that was called. Its client's mutex protects it.
type peer struct {
	link    *link         // nil: there is no connection, nor is one being made
	why     error         // how the last one ended
	backoff time.Duration // after which one may follow the last; 0 before the first
	retry   time.Time
}

type clientCounts struct{ dials, calls, notSent, overloaded, lost, malformed atomic.Uint64 }

// ClientStats count since the start. A call that was refused is among none but Calls.
type ClientStats struct {
	// Dials were begun; Malformed are connections that ended since what came was not of
	// the protocol.
	Dials, Malformed uint64
	// Calls were made. NotSent of them ended with ErrNotSent, among them Overloaded; Lost
	// with ErrLost.
	Calls, NotSent, Overloaded, Lost uint64
}

// count takes note of how a call ended.
func (s *clientCounts) count(err error) {
	switch {
	case errors.Is(err, ErrLost):
		s.lost.Add(1)
	case errors.Is(err, ErrOverloaded):
		s.overloaded.Add(1)
		s.notSent.Add(1)
	case errors.Is(err, ErrNotSent):
		s.notSent.Add(1)
	}
}

// Stats are the counts now.
func (c *Client) Stats() ClientStats {
	s := &c.stats
	return ClientStats{
		Dials: s.dials.Load(), Malformed: s.malformed.Load(),
		Calls: s.calls.Load(), NotSent: s.notSent.Load(), Overloaded: s.overloaded.Load(), Lost: s.lost.Load(),
	}
}

// NewClient is a client without connections: they are made by the first call to a node.
func NewClient(d Dialer, o *Options) *Client {
	c := &Client{dial: d, opt: o.orDefaults(), peers: make(map[string]*peer)}
	c.spare.New = func() any { return &call{done: make(chan struct{}, 1)} }
	c.ctx, c.cancel = context.WithCancelCause(context.Background())
	return c
}

// Call asks the handler of node and waits for its answer, which is the caller's, until
// ctx ends. body is the caller's again when Call returns. Errors match one of ErrNotSent,
// ErrLost and ErrInvalid, with the cause if there is one, or are a *Refusal.
//
// A connection that broke is made again by a later call, at the earliest after 50 ms,
// doubling to 1 s while none works; calls before that fail at once with ErrNotSent.
func (c *Client) Call(ctx context.Context, node, group string, kind Kind, body []byte) ([]byte, error) {
	if len(body) > MaxBody || len(group) > MaxGroup {
		return nil, fmt.Errorf("%w: %d bytes to a group whose name has %d", ErrInvalid, len(body), len(group))
	}
	c.stats.calls.Add(1)
	l, err := c.link(node)
	if err == nil {
		var answer []byte
		if answer, err = l.do(ctx, group, kind, body); err == nil {
			return answer, nil
		}
	}
	c.stats.count(err)
	return nil, err
}

// Start is Call that waits for nothing. If it returns nil, done is called once: by the
// goroutine that reads the connection, in the order in which answers come, so it must not
// block; the answer is its own until it returns. Calls that were started to one node come
// there in the order of Start. There is no deadline: a connection that is silent ends.
func (c *Client) Start(node, group string, kind Kind, body []byte, done func(answer []byte, err error)) error {
	if len(body) > MaxBody || len(group) > MaxGroup {
		return fmt.Errorf("%w: %d bytes to a group whose name has %d", ErrInvalid, len(body), len(group))
	}
	c.stats.calls.Add(1)
	l, err := c.link(node)
	if err == nil {
		_, _, err = l.send(func(answer []byte, err error) {
			c.stats.count(err)
			done(answer, err)
		}, 0, group, kind, body)
	}
	c.stats.count(err)
	return err
}

// link is the connection to node, which may not be open yet.
func (c *Client) link(node string) (*link, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, ErrClosed
	}
	p := c.peers[node]
	if p == nil {
		if len(c.peers) >= maxPeers {
			c.forget()
		}
		p = &peer{}
		c.peers[node] = p
	}
	if p.link != nil {
		return p.link, nil
	}
	if time.Now().Before(p.retry) {
		return nil, notSent(p.why)
	}
	l := newLink(&c.opt, &c.spare)
	p.link = l
	c.stats.dials.Add(1)
	c.wg.Go(func() { c.run(node, p, l) })
	return l, nil
}

// forget drops the peers without a connection. The caller holds mu.
func (c *Client) forget() {
	for node, p := range c.peers {
		if p.link == nil {
			delete(c.peers, node)
		}
	}
}

// run runs the connection of p until its end.
func (c *Client) run(node string, p *peer, l *link) {
	why := l.run(c.ctx, func(ctx context.Context) (net.Conn, error) { return c.dial(ctx, node) })
	c.opt.Logger.Debug("connection ended", "peer", node, "err", why)
	if errors.Is(why, ErrMalformed) {
		c.stats.malformed.Add(1)
	}
	l.fail(why)
	c.opt.Ended(node)
	c.mu.Lock()
	defer c.mu.Unlock()
	if l.worked() {
		p.backoff = 0
	}
	p.backoff = min(max(2*p.backoff, firstBackoff), maxBackoff)
	p.link, p.why, p.retry = nil, why, time.Now().Add(p.backoff)
}

// Close ends all connections and calls, waits until they have, and returns nil. It may be
// called twice.
func (c *Client) Close() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.cancel(errClosed)
	c.wg.Wait()
	return nil
}
