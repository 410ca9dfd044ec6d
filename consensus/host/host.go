package host

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/meshkv/meshkv/consensus/calls"
	"github.com/meshkv/meshkv/consensus/heartbeat"
	"github.com/meshkv/meshkv/consensus/logstore"
	"github.com/meshkv/meshkv/consensus/placement"
	"github.com/meshkv/meshkv/consensus/raftnet"
	"github.com/meshkv/meshkv/consensus/replica"
	"github.com/meshkv/meshkv/consensus/streams"
)

// Config of a Host. The fields up to Alive are required.
type Config struct {
	// Name of this node, and Zone of its server.
	Name, Zone string
	// Dir holds everything; it is made if need be.
	Dir string
	// Listener accepts the streams of other servers, Dial opens one to a server by the
	// name of its node.
	Listener net.Listener
	Dial     func(ctx context.Context, node string) (net.Conn, error)
	// Alive is what membership says of a node.
	Alive placement.Alive

	// Bootstrap are the names of the servers that begin the system group, the same list at
	// each, this one among them. Without it this server joins one that has begun.
	Bootstrap []string
	// LogStore is the kind of the log store; see logstore.Kind.
	LogStore logstore.Kind
	// Policy says when voters are replaced.
	Policy placement.Policy
	// Publish tells all nodes of a committed entry. It is called by the leader of the
	// system group, again and again; it must not block for long.
	Publish func(Entry)
	// Failed is called once if the host cannot go on: its log store failed.
	Failed func(error)
	Logger *slog.Logger
}

// A Host runs the replicas of one server. Safe for concurrent use.
type Host struct {
	cfg      Config
	log      *slog.Logger
	identity *identity
	engine   logstore.Engine
	mux      *streams.Mux
	rpc      *streams.Layer // the streams of calls
	client   *calls.Client
	server   *calls.Server
	beats    *heartbeat.Coalescer
	rafts    *raftnet.Net

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	work   sync.WaitGroup
	conns  sync.WaitGroup // that calls come on

	kick    chan struct{}   // of capacity 1: entries have changed
	opening sync.Mutex      // held by whoever opens, ends or recovers replicas; protects telling
	telling map[string]bool // stores whose recovery is being told to the catalog
	starter starter

	mu      sync.Mutex // protects the fields below
	entries map[string]Entry
	running map[string]*running // by group
	halted  map[string]bool     // groups whose replica cannot go on
	changed chan struct{}       // closed and replaced when entries or running change
	closed  bool
}

// running is a replica that runs.
type running struct {
	keyspace string
	group    string
	store    string
	replica  *replica.Replica
}

// callsLayer is the name of the streams that carry calls. No group has it.
const callsLayer = "_calls"

// Open starts a host with the replicas that it had. Close must be called.
func Open(c Config) (_ *Host, err error) {
	if c.Name == "" || c.Dir == "" || c.Listener == nil || c.Dial == nil || c.Alive == nil {
		return nil, errors.New("host: Name, Dir, Listener, Dial and Alive are required")
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("directory of strong keyspaces: %w", err)
	}
	h := &Host{
		cfg: c, log: c.Logger, kick: make(chan struct{}, 1),
		entries: make(map[string]Entry), running: make(map[string]*running), halted: make(map[string]bool), telling: make(map[string]bool), changed: make(chan struct{}),
	}
	if h.identity, err = openIdentity(c.Dir, c.Name); err != nil {
		return nil, err
	}
	if err := h.identity.claimLogStore(c.LogStore, c.Dir); err != nil {
		return nil, err
	}
	if h.engine, err = logstore.OpenEngine(c.LogStore, c.Dir, nil); err != nil {
		return nil, fmt.Errorf("open the log of strong keyspaces: %w", err)
	}
	own := namedListener{c.Listener, h.identity.server(c.Zone).Replica().ID}
	h.mux = streams.New(own, func(ctx context.Context, addr string) (net.Conn, error) { return c.Dial(ctx, placement.NodeOf(addr)) })
	if h.rpc, err = h.mux.Layer(callsLayer); err != nil {
		return nil, errors.Join(err, h.engine.Close())
	}
	opts := &calls.Options{ClusterID: func() string { return h.identity.get().Cluster }, Logger: c.Logger}
	h.client = calls.NewClient(h.dialCalls, opts)
	h.server = calls.NewServer(h, opts)
	h.beats = heartbeat.New(h.sendHeartbeats, nil)
	if h.rafts, err = raftnet.Open(h.mux, opts); err != nil {
		return nil, errors.Join(err, h.rpc.Close(), h.engine.Close())
	}
	// What this server acted upon it goes on with, whatever comes from elsewhere, which begins
	// below.
	file := h.identity.get()
	for name, e := range file.Entries {
		h.entries[name] = e
	}
	if file.System != nil {
		h.entries[System] = *file.System
	}
	h.signal()
	h.ctx, h.cancel = context.WithCancel(context.Background()) // until Close
	h.work.Go(func() {
		if err := h.mux.Run(h.ctx); err != nil && h.ctx.Err() == nil {
			h.fail(fmt.Errorf("accept streams of other servers: %w", err))
		}
	})
	h.work.Go(h.acceptCalls)
	h.work.Go(h.follow)
	h.work.Go(h.join)
	h.work.Go(h.control)
	return h, nil
}

// A namedListener says that its address is the id of this server's replicas. Raft knows its members by
// it: two members may be at one node while a disk that was lost is replaced.
type namedListener struct {
	net.Listener
	name string
}

// Addr implements net.Listener.
func (l namedListener) Addr() net.Addr { return replicaAddr(l.name) }

// replicaAddr is the id of a replica as an address.
type replicaAddr string

// Network implements net.Addr.
func (replicaAddr) Network() string { return "replica" }

// String implements net.Addr.
func (a replicaAddr) String() string { return string(a) }

func (h *Host) dialCalls(ctx context.Context, node string) (net.Conn, error) {
	timeout := closeTimeout
	if deadline, ok := ctx.Deadline(); ok {
		timeout = min(timeout, time.Until(deadline))
	}
	return h.rpc.Dial(raft.ServerAddress(node), max(timeout, time.Millisecond))
}

func (h *Host) acceptCalls() {
	defer h.conns.Wait()
	for {
		conn, err := h.rpc.Accept()
		if err != nil {
			return // closed
		}
		h.conns.Go(func() {
			defer conn.Close()
			if err := h.server.ServeConn(h.ctx, conn); err != nil && h.ctx.Err() == nil {
				h.log.Debug("calls of another server ended", "err", err)
			}
		})
	}
}

// Close ends all replicas, each handing over its leadership, and the host. It may be called twice.
func (h *Host) Close(ctx context.Context) error {
	h.opening.Lock() // nothing is opened from here on
	h.mu.Lock()
	first := !h.closed
	h.closed = true
	h.mu.Unlock()
	h.opening.Unlock()
	if !first {
		h.work.Wait()
		return nil
	}
	// The replicas first: their calls still go out.
	err := h.closeReplicas(ctx)
	h.cancel()
	h.beats.Close()
	err = errors.Join(err, h.rafts.Close(), h.client.Close(), h.rpc.Close())
	h.work.Wait()
	return errors.Join(err, h.engine.Close())
}

func (h *Host) fail(err error) {
	h.log.Error("strong keyspaces cannot go on at this node", "err", err)
	if h.cfg.Failed != nil {
		h.cfg.Failed(err)
	}
}

// signal makes follow look at the entries again, and wakes whoever waits for a change.
func (h *Host) signal() {
	select {
	case h.kick <- struct{}{}:
	default: // it is about to
	}
}

// Learn takes note of a committed entry, from wherever it comes.
func (h *Host) Learn(e Entry) {
	if own := h.identity.get().Cluster; own != "" && own != e.Cluster {
		h.log.Warn("entry of another cluster ignored", "keyspace", e.Keyspace.Name, "cluster", e.Cluster)
		return
	}
	if e.Keyspace.Name == System && !h.promised(e) {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if had, ok := h.entries[e.Keyspace.Name]; ok && had.Revision >= e.Revision {
		return
	}
	h.entries[e.Keyspace.Name] = e
	h.announce()
	h.signal()
}

// announce wakes whoever waits for entries or replicas. The caller holds mu.
func (h *Host) announce() {
	close(h.changed)
	h.changed = make(chan struct{})
}

// Entry is what is known of a keyspace.
func (h *Host) Entry(name string) (Entry, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	e, ok := h.entries[name]
	return e, ok
}

// Replica is this server's replica of a keyspace, if it has one.
func (h *Host) Replica(name string) (*replica.Replica, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	e, ok := h.entries[name]
	if !ok || e.Keyspace.Removed {
		return nil, false
	}
	r, ok := h.running[e.Keyspace.Group()]
	if !ok {
		return nil, false
	}
	return r.replica, true
}

// await waits until ok says so, which is called with mu held after each change.
func (h *Host) await(ctx context.Context, ok func() bool) error {
	for {
		h.mu.Lock()
		done, changed := ok(), h.changed
		h.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-h.ctx.Done():
			return errClosed
		}
	}
}

var errClosed = errors.New("the host is closed")

// groupDir is where the snapshots of a store are. Its name has no slash.
func (h *Host) groupDir(store string) string { return filepath.Join(h.cfg.Dir, "groups", store) }

// closeTimeout bounds the end of one replica that is not needed here any more, and the opening of a
// stream.
const closeTimeout = 5 * time.Second

// pause waits, or returns why there is no more time.
func (h *Host) pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-h.ctx.Done():
		return errClosed
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
