package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/meshkv/meshkv/client/wire"
)

// DialOptions modify a Dial. Nil and zero values are usable.
type DialOptions struct {
	// Timeout bounds each call whose context has no deadline, watches
	// excepted. It includes the time in which the node is not reachable.
	// Default 10s.
	Timeout time.Duration
	// DialTimeout bounds one attempt to connect. Default 5s.
	DialTimeout time.Duration
	// MaxBackoff bounds the pause between two attempts to connect again, which
	// starts at 50ms and doubles. Default 2s.
	MaxBackoff time.Duration
	// GiveUpAfter makes the Next of a watch return ErrUnavailable when the node
	// could not be reached for that long; the watch stays usable. 0: it waits
	// as long as its context allows.
	GiveUpAfter time.Duration
	// WatchBuffer is how many bytes of events a watch may hold that its reader
	// has not taken. Default 1 MiB, at most 64 MiB.
	WatchBuffer int
	// PingInterval is the silence after which the connection is tested; after
	// three of them it is given up. Default 5s.
	PingInterval time.Duration
	// Dialer makes the connections instead of the machine's network; the address
	// is only a name then. Default: TCP to the address.
	Dialer func(ctx context.Context) (net.Conn, error)
	// DialTo is Dialer for clients of several nodes: it is told to which address. At most
	// one of the two may be set.
	DialTo func(ctx context.Context, addr string) (net.Conn, error)
	// FailFast makes calls and watches return ErrUnavailable at once while there
	// is no connection, instead of waiting for one. A watch stays usable.
	FailFast bool
	// Logger receives debug records of connections. Default: discard.
	Logger *slog.Logger
}

func (o *DialOptions) withDefaults() DialOptions {
	var opts DialOptions
	if o != nil {
		opts = *o
	}
	for _, d := range []struct {
		v   *time.Duration
		def time.Duration
	}{
		{&opts.Timeout, 10 * time.Second},
		{&opts.DialTimeout, 5 * time.Second},
		{&opts.MaxBackoff, 2 * time.Second},
		{&opts.PingInterval, 5 * time.Second},
	} {
		if *d.v <= 0 {
			*d.v = d.def
		}
	}
	if opts.WatchBuffer <= 0 {
		opts.WatchBuffer = 1 << 20
	}
	// A watch grants credit anew when half of its window is taken: a window of
	// more than twice the node's bound would never come to that.
	opts.WatchBuffer = min(opts.WatchBuffer, wire.MaxCredit)
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	return opts
}

const minBackoff = 50 * time.Millisecond

// A Client is a connection to one node, made again whenever it breaks, to the same node
// or to another of those that Dial was given. It implements Cluster. Calls from many goroutines share it: they are pipelined,
// and none waits for another.
//
// A call waits, within its time, for a node that is not reachable, and then
// returns ErrUnavailable. A read whose connection breaks is asked again; a write
// that may have reached the node returns ErrUnknownOutcome and is never repeated, one that
// has certainly not is made at the next node. Watches survive
// broken connections and restarts of the node: they resume where they were or,
// where the node cannot, as another one, compare a new snapshot with what they have shown and
// report the difference. For that a watch keeps the entries that it has shown.
//
// Another node of an eventual keyspace may not have yet what the former one had shown: what a
// reader sees then goes back for a while, and a watch reports that as the changes that it is.
type Client struct {
	addrs  []string
	opts   DialOptions
	cancel context.CancelFunc
	done   <-chan struct{} // closed by Close
	wg     sync.WaitGroup
	waits  chan struct{} // one for each strong call that waits at the node

	mu      sync.Mutex // protects the fields below
	conn    *conn      // nil while there is none
	changed chan struct{}
	at      int   // in addrs: of conn, or to be tried next
	lastErr error // of the last attempt to connect
	strong  map[string]StrongHandle
}

var (
	_ Cluster      = (*Client)(nil)
	_ StrongCaller = (*Client)(nil)
)

// maxAddrs bounds the nodes of one client: while none is reachable all are tried in turn.
const maxAddrs = 64

// Dial connects to the API of a node: host:port, or a URL http://host:port. Of several,
// with commas between them, it takes the first that can be reached; when the connection
// breaks or the node stops, the client goes on with the next, round and round, and does not
// come back of itself. Dial fails with ErrUnavailable if none can be reached now. The
// caller must Close the client.
func Dial(ctx context.Context, addr string, o *DialOptions) (*Client, error) {
	addrs, err := addresses(addr, o)
	if err != nil {
		return nil, err
	}
	life, cancel := context.WithCancel(context.Background())
	c := &Client{addrs: addrs, opts: o.withDefaults(), cancel: cancel, done: life.Done(), changed: make(chan struct{}),
		waits: make(chan struct{}, maxWaits), strong: make(map[string]StrongHandle)}
	first, err := c.connectAny(ctx)
	if err != nil {
		cancel()
		return nil, err
	}
	c.install(first)
	c.wg.Go(func() { c.keepConnected(life, first) })
	return c, nil
}

// addresses are the nodes that are meant by the addr of Dial.
func addresses(addr string, o *DialOptions) ([]string, error) {
	named := o != nil && o.DialTo != nil
	if o != nil && o.Dialer != nil {
		if named {
			return nil, fmt.Errorf("%w: DialOptions with both Dialer and DialTo: give one of them", ErrBadRequest)
		}
		return []string{addr}, nil
	}
	addrs := strings.Split(addr, ",")
	if len(addrs) > maxAddrs {
		return nil, fmt.Errorf("%w: %d addresses: give at most %d", ErrBadRequest, len(addrs), maxAddrs)
	}
	for i, a := range addrs {
		a = strings.TrimSpace(a)
		if !named {
			var err error
			if a, err = hostPort(a); err != nil {
				return nil, err
			}
		}
		addrs[i] = a
	}
	return addrs, nil
}

func hostPort(addr string) (string, error) {
	scheme, rest, ok := strings.Cut(addr, "://")
	if !ok {
		scheme, rest = "http", addr
	}
	rest = strings.TrimSuffix(rest, "/")
	if scheme != "http" {
		return "", fmt.Errorf("%w: address %q: only http is available yet", ErrBadRequest, addr)
	}
	if host, port, err := net.SplitHostPort(rest); err != nil || port == "" || host == "" {
		return "", fmt.Errorf("%w: address %q is not host:port", ErrBadRequest, addr)
	}
	return rest, nil
}

// Close ends the sessions of strong keyspaces, as far as that takes no longer than a
// second, the connection, all calls and all watches. It may be called twice.
func (c *Client) Close() error {
	c.closeStrong()
	c.cancel()
	c.wg.Wait()
	return nil
}

// Addr is the host:port of the node that serves the client or, while there is none, of the one
// that is tried next.
func (c *Client) Addr() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.addrs[c.at]
}

// keepConnected replaces connections that broke or are being drained.
func (c *Client) keepConnected(ctx context.Context, cur *conn) {
	for {
		began := time.Now()
		select {
		case <-cur.gone:
		case <-cur.draining:
		case <-ctx.Done():
			return
		}
		c.discard(cur)
		// One that breaks at once, as by an answer that cannot be read, would do so again and again.
		if time.Since(began) < minBackoff && pause(ctx, minBackoff) != nil {
			return
		}
		c.tryNext() // whether this one comes back is seen when the others have been tried
		backoff := minBackoff
		for {
			next, err := c.connectAny(ctx)
			if err == nil {
				c.install(next)
				cur = next
				break
			}
			c.opts.Logger.Debug("connecting again failed", "addrs", c.addrs, "err", err)
			c.mu.Lock()
			c.lastErr = err
			c.mu.Unlock()
			if pause(ctx, backoff/2+rand.N(backoff/2)) != nil {
				return
			}
			backoff = min(2*backoff, c.opts.MaxBackoff)
		}
	}
}

// connectAny makes one attempt at each node, until one succeeds. The error is the last one.
func (c *Client) connectAny(ctx context.Context) (cn *conn, err error) {
	for range c.addrs {
		if cn, err = c.connect(ctx, c.Addr()); err == nil || ctx.Err() != nil {
			break
		}
		c.tryNext()
	}
	return cn, err
}

func (c *Client) tryNext() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = (c.at + 1) % len(c.addrs)
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *Client) install(cn *conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conn = cn
	if cn != nil {
		close(c.changed)
		c.changed = make(chan struct{})
	}
}

// discard makes await give out cn no more: it is of no use, which
// keepConnected may not have noticed yet.
func (c *Client) discard(cn *conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn == cn {
		c.conn = nil
	}
}

// await returns the connection, once there is one.
func (c *Client) await(ctx context.Context) (*conn, error) {
	for {
		c.mu.Lock()
		cn, changed, lastErr, addr := c.conn, c.changed, c.lastErr, c.addrs[c.at]
		c.mu.Unlock()
		if c.isClosed() {
			return nil, ErrClosed
		}
		if cn != nil {
			return cn, nil
		}
		if lastErr == nil {
			lastErr = fmt.Errorf("%w: the connection broke, %s is tried next", ErrUnavailable, addr)
		}
		if c.opts.FailFast {
			return nil, lastErr
		}
		select {
		case <-changed:
		case <-c.done:
			return nil, ErrClosed
		case <-ctx.Done():
			return nil, fmt.Errorf("%w (%w)", lastErr, ctx.Err())
		}
	}
}

func (c *Client) isClosed() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// connect makes one attempt.
func (c *Client) connect(ctx context.Context, addr string) (*conn, error) {
	ctx, cancel := context.WithTimeout(ctx, c.opts.DialTimeout)
	defer cancel()
	nc, err := c.dial(ctx, addr)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w: %w", addr, ErrUnavailable, reason(err))
	}
	stop := context.AfterFunc(ctx, func() { nc.SetDeadline(time.Unix(1, 0)) })
	cn, err := c.upgrade(nc, addr)
	if !stop() && err == nil {
		err = fmt.Errorf("connect to %s: %w: %w", addr, ErrUnavailable, ctx.Err())
	}
	if err != nil {
		nc.Close()
		return nil, err
	}
	c.wg.Go(cn.read)
	c.wg.Go(func() {
		cn.fail(cn.sender.Run(nc, 3*c.opts.PingInterval))
	})
	c.wg.Go(func() { cn.watchOver(c.done, c.opts.PingInterval) })
	return cn, nil
}

func (c *Client) dial(ctx context.Context, addr string) (net.Conn, error) {
	if c.opts.DialTo != nil {
		return c.opts.DialTo(ctx, addr)
	}
	if c.opts.Dialer != nil {
		return c.opts.Dialer(ctx)
	}
	return (&net.Dialer{}).DialContext(ctx, "tcp", addr)
}

func (c *Client) upgrade(nc net.Conn, addr string) (*conn, error) {
	if _, err := fmt.Fprintf(nc, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", wire.Path, addr, wire.Protocol); err != nil {
		return nil, fmt.Errorf("connect to %s: %w: %w", addr, ErrUnavailable, reason(err))
	}
	r := bufio.NewReaderSize(nc, 64<<10)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w: %w", addr, ErrUnavailable, reason(err))
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		return nil, fmt.Errorf("connect to %s: %w", addr, refusal(resp))
	}
	inflight, err := strconv.Atoi(resp.Header.Get(wire.MaxInflightHeader))
	if err != nil || inflight < 1 {
		inflight = 64
	}
	return newConn(nc, r, min(inflight, 4096)), nil
}

// reason is why an operation of package net failed, without its name and the
// address, which the error that wraps it tells already.
func reason(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	var call *os.SyscallError
	if errors.As(err, &call) {
		err = call.Err
	}
	return err
}

// refusal is the error of an answer that is no upgrade.
func refusal(resp *http.Response) error {
	defer resp.Body.Close()
	var body struct {
		Error struct{ Code, Message string }
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
	if err == nil && json.Unmarshal(data, &body) == nil && body.Error.Code != "" {
		return fmt.Errorf("%w: %w", ErrUnavailable, remoteError(&wire.Reply{Code: body.Error.Code, Message: body.Error.Message}))
	}
	return fmt.Errorf("%w: it is no meshkv API, or a version that does not speak %s (status %d)", ErrUnavailable, wire.Protocol, resp.StatusCode)
}
