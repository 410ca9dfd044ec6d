package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/meshkv/meshkv/client"
)

const (
	forwardDial = 2 * time.Second // to connect to a member
	// forwardRead bounds how long one member may take over a read while there
	// are others to ask.
	forwardRead = 3 * time.Second
	// forwardIdle is after how long a connection to a member is closed that
	// nothing was forwarded over.
	forwardIdle = time.Minute
)

// A forwarder carries requests for keyspaces that this node does not hold to
// nodes that do, over the mesh port. It keeps one connection for each member
// that is asked. Safe for concurrent use.
type forwarder struct {
	dial    func(ctx context.Context, member string) (net.Conn, error)
	holders func(keyspace string) []holder
	zone    string
	log     *slog.Logger

	mu      sync.Mutex // protects the fields below
	clients map[string]*forwarded
	last    map[string]string // the member that last served a keyspace
	closed  bool

	working sync.WaitGroup // of connections that are opened, or closed by sweep
}

func newForwarder() *forwarder {
	return &forwarder{clients: make(map[string]*forwarded), last: make(map[string]string)}
}

// forwarded is the connection to one member.
type forwarded struct {
	ready  chan struct{} // closed when client or err is set
	client *client.Client
	err    error
	used   time.Time // protected by forwarder.mu
	users  int       // requests and watches that go over it; protected by forwarder.mu
}

// A forwardKind is what may be done again, and how long one try may take.
type forwardKind uint8

const (
	forwardWrite forwardKind = iota // once, unless it was certainly not sent
	forwardQuick                    // a read of little
	forwardLong                     // a read that may take its time
)

// do carries out op at a member of the keyspace: the nearest that answers.
func (f *forwarder) do(ctx context.Context, keyspace string, kind forwardKind, op func(context.Context, client.Keyspace) error) error {
	return f.try(ctx, keyspace, kind, func(ctx context.Context, fc *forwarded) error {
		ks, err := fc.client.Keyspace(ctx, keyspace)
		if err != nil {
			return err
		}
		return op(ctx, ks)
	})
}

// watch opens a watch at a member, which keeps the connection from being closed
// as idle.
func (f *forwarder) watch(ctx context.Context, keyspace, prefix string, o *client.WatchOptions) (client.Watch, error) {
	var out *forwardedWatch
	err := f.try(ctx, keyspace, forwardLong, func(ctx context.Context, fc *forwarded) error {
		ks, err := fc.client.Keyspace(ctx, keyspace)
		if err != nil {
			return err
		}
		w, err := ks.Watch(ctx, prefix, o)
		if err != nil {
			return err
		}
		f.retain(fc)
		out = &forwardedWatch{Watch: w, release: func() { f.release(fc) }}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// A forwardedWatch is a watch at a member.
type forwardedWatch struct {
	client.Watch
	once    sync.Once
	release func()
}

// Close implements client.Watch.
func (w *forwardedWatch) Close() error {
	w.once.Do(w.release)
	return w.Watch.Close()
}

func (f *forwarder) try(ctx context.Context, keyspace string, kind forwardKind, op func(context.Context, *forwarded) error) error {
	members := f.members(keyspace)
	err := fmt.Errorf("%w: no member of keyspace %s can be reached: start a node with --keyspaces %s, or let this one join it (POST /v1/keyspaces/%s)",
		client.ErrUnavailable, keyspace, keyspace, keyspace)
	for i, member := range members {
		if ctx.Err() != nil {
			return fmt.Errorf("%w: %w", client.ErrTimeout, ctx.Err())
		}
		attempt, cancel := ctx, context.CancelFunc(func() {})
		if kind == forwardQuick && i < len(members)-1 {
			attempt, cancel = context.WithTimeout(ctx, forwardRead)
		}
		merr := f.at(attempt, member, op)
		late := attempt.Err() != nil && ctx.Err() == nil // this member, not the caller's time
		cancel()
		another := unreached(merr) || kind != forwardWrite && (late || errors.Is(merr, client.ErrOverloaded))
		if !another {
			f.served(keyspace, member)
			return merr
		}
		f.log.Debug("request not served by a member", "peer", member, "keyspace", keyspace, "err", merr)
		err = fmt.Errorf("%w: keyspace %s at %s: %w", client.ErrUnavailable, keyspace, member, merr)
	}
	return err
}

// maxServed bounds what is remembered of who served; beyond, all is forgotten.
const maxServed = 4096

// served remembers who answered: the same node is asked again, so that a program
// reads what it wrote and sees no older state than before, as long as that node
// is there.
func (f *forwarder) served(keyspace, member string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.last[keyspace] == member {
		return
	}
	if len(f.last) >= maxServed {
		clear(f.last)
	}
	f.last[keyspace] = member
}

// members are the nodes to ask, in this order: the one that served last, those
// of the own zone, then by round trip time, where one that is not known counts
// as long.
func (f *forwarder) members(keyspace string) []string {
	all := slices.DeleteFunc(f.holders(keyspace), func(h holder) bool { return !h.alive })
	far := func(h holder) time.Duration {
		if h.rtt == 0 {
			return time.Hour
		}
		return h.rtt
	}
	f.mu.Lock()
	last := f.last[keyspace]
	f.mu.Unlock()
	other := func(h holder) int {
		switch {
		case h.name == last:
			return 0
		case h.zone == f.zone:
			return 1
		}
		return 2
	}
	slices.SortStableFunc(all, func(a, b holder) int {
		return cmp.Or(cmp.Compare(other(a), other(b)), cmp.Compare(far(a), far(b)))
	})
	names := make([]string, len(all))
	for i, h := range all {
		names[i] = h.name
	}
	return names
}

// at carries out op at one member. A connection that broke is made again by its
// client; requests fail until then, so that another member is asked.
func (f *forwarder) at(ctx context.Context, member string, op func(context.Context, *forwarded) error) error {
	fc, err := f.connect(ctx, member)
	if err != nil {
		return err
	}
	defer f.release(fc)
	return op(ctx, fc)
}

// connect gives the connection to a member, which is to be released.
func (f *forwarder) connect(ctx context.Context, member string) (*forwarded, error) {
	f.mu.Lock()
	if f.closed {
		f.mu.Unlock()
		return nil, client.ErrDraining
	}
	fc := f.clients[member]
	first := fc == nil
	if first {
		fc = &forwarded{ready: make(chan struct{})}
		f.clients[member] = fc
		f.working.Go(func() { f.open(member, fc) })
	}
	fc.users++
	f.mu.Unlock()
	select {
	case <-fc.ready:
	case <-ctx.Done():
		f.release(fc)
		return nil, fmt.Errorf("%w: %w", client.ErrUnavailable, ctx.Err())
	}
	if fc.err != nil {
		f.release(fc)
		return nil, fc.err
	}
	return fc, nil
}

// open dials a member for all who wait for that: none of their contexts ends it.
func (f *forwarder) open(member string, fc *forwarded) {
	fc.client, fc.err = client.Dial(context.Background(), member, &client.DialOptions{
		Dialer:      func(ctx context.Context) (net.Conn, error) { return f.dial(ctx, member) },
		DialTimeout: forwardDial,
		FailFast:    true,
		Logger:      f.log,
	})
	if fc.err != nil {
		f.discard(member, fc)
	}
	close(fc.ready)
}

func (f *forwarder) retain(fc *forwarded) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fc.users++
}

func (f *forwarder) release(fc *forwarded) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fc.users--
	fc.used = time.Now()
}

// discard makes the next request to a member dial it again.
func (f *forwarder) discard(member string, fc *forwarded) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.clients[member] == fc {
		delete(f.clients, member)
	}
}

// sweep closes connections that are not used any more.
func (f *forwarder) sweep(now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for member, fc := range f.clients {
		if fc.users == 0 && closed(fc.ready) && now.Sub(fc.used) > forwardIdle {
			delete(f.clients, member)
			f.working.Go(func() { fc.client.Close() })
		}
	}
}

// close ends all connections.
func (f *forwarder) close() {
	f.mu.Lock()
	f.closed = true
	all := f.clients
	f.clients = nil
	f.mu.Unlock()
	f.working.Wait() // as long as one attempt to connect takes, at most
	for _, fc := range all {
		if fc.client != nil {
			fc.client.Close()
		}
	}
}
