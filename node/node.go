package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/puzpuzpuz/xsync/v4"

	"github.com/meshkv/meshkv/crdt"
	"github.com/meshkv/meshkv/gossip"
	"github.com/meshkv/meshkv/gossip/mesh"
	"github.com/meshkv/meshkv/keyspace"
	"github.com/meshkv/meshkv/node/api"
	"github.com/meshkv/meshkv/storage"
)

// Errors of Start. Match with errors.Is.
var (
	// ErrDataDir: the data directory cannot be used.
	ErrDataDir = errors.New("data directory")
	// ErrAddrInUse: an address is taken by another process.
	ErrAddrInUse = errors.New("address in use")
)

const (
	tickEvery    = 50 * time.Millisecond // while something is due
	slowEvery    = time.Second           // what needs no more, and the longest sleep between two ticks
	drainTimeout = 5 * time.Second       // for API calls in flight, at Stop
	flushTimeout = time.Second           // for peers to take the newest changes, at Stop
)

// A Node is one running node. It implements client.Cluster. Safe for
// concurrent use.
type Node struct {
	cfg     Config
	log     *slog.Logger
	started time.Time

	store  storage.Store
	writer *storage.Writer  // nil: memory only
	syncer *keyspace.Syncer // of writer; nil as it is
	clock  *keyspace.Clock
	owners *keyspace.Owners
	env    *keyspace.Env
	mesh   *mesh.Mesh
	api    *api.Server  // nil if the API is off
	apiLn  net.Listener // nil if the API is off
	peers  *xsync.Map[gossip.PeerID, *peer]
	drops  drops
	pacer  pacer

	wanted    *wanted
	catalog   *catalog
	directory *directory
	registry  *registry
	overlay   *weaver
	forward   *forwarder
	inner     *api.Server // serves other nodes, over the mesh port
	strongs   *strongs

	everLinked atomic.Bool
	aloneSince atomic.Int64 // since when there are others and no link, Unix nanoseconds; 0: it is not so
	draining   atomic.Bool

	holdings *xsync.Map[string, *holding] // by name
	// linkMu serialises what changes holdings or peers, so that every keyspace
	// hears of every link. Taken before any keyspace's mutex. It protects the
	// fields below.
	linkMu sync.Mutex
	epoch  uint64                          // of the last holding
	ended  map[gossip.PeerID]chan struct{} // per peer, closed when its link has ended

	closedMu sync.Mutex // protects closed
	closed   []crdt.Inc // learned from clocks, not yet told to all keyspaces
	closedC  chan struct{}
	lostC    chan struct{} // of capacity 1: a keyspace takes no writes under this incarnation

	stopC      <-chan struct{} // closed when the node is to end
	cancel     context.CancelCauseFunc
	background sync.WaitGroup // of what nobody waits for until the end

	done chan struct{} // closed when everything has ended
	err  error         // why; set before done is closed
}

// Start opens the store, binds the addresses, and returns a node that serves.
// It does not wait for seeds. ctx bounds the start, not the life of the node.
func Start(ctx context.Context, cfg Config) (_ *Node, err error) {
	cfg, err = cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	n := &Node{
		cfg:       cfg,
		catalog:   newCatalog(),
		directory: newDirectory(),
		registry:  newRegistry(),
		overlay:   newWeaver(),
		forward:   newForwarder(),
		strongs:   newStrongs(),
		log:       cfg.Logger.With("node", cfg.Name),
		started:   time.Now(),
		owners:    keyspace.NewOwners(),
		peers:     xsync.NewMap[gossip.PeerID, *peer](),
		holdings:  xsync.NewMap[string, *holding](),
		ended:     make(map[gossip.PeerID]chan struct{}),
		closedC:   make(chan struct{}, 1),
		lostC:     make(chan struct{}, 1),
		done:      make(chan struct{}),
	}
	var undo []func() // closes what was opened, if a later step does not succeed
	defer func() {
		if err != nil {
			for i := len(undo) - 1; i >= 0; i-- {
				undo[i]()
			}
		}
	}()

	state, err := n.openStore(ctx)
	if err != nil {
		return nil, err
	}
	undo = append(undo, func() { n.store.Close() })

	// A new incarnation at every start, without exception, and born after
	// everything that this directory knows of.
	born := max(n.started.UnixMilli(), state.HLCBound.WallMs())
	for _, st := range state.Keyspaces {
		born = max(born, st.Clock.Horizon().BirthMs()+1)
	}
	inc := crdt.NewInc(born, rand.Uint64())
	n.log = n.log.With("inc", inc) // of the start
	n.clock = keyspace.NewClock(state.HLCBound)
	n.owners.Set(inc, keyspace.Owner{Name: cfg.Name, State: crdt.OwnerAlive})
	n.env = &keyspace.Env{
		Name:    cfg.Name,
		Inc:     inc,
		Self:    peerID(cfg.Name, inc),
		Clock:   n.clock,
		Owners:  n.owners,
		Writer:  n.writer,
		Waker:   n,
		Closed:  n.noteClosed,
		Holders: n.overlay.members,
		Members: n.registered,
		Syncer:  n.syncer,
		Lost:    n.noteLost,

		Doze:     keyspace.NewDoze(tickEvery),
		Rejected: n.noteRejected,
		Sync:     cfg.Durability == DurabilityFsync,
		Logger:   n.log,
	}
	if n.wanted, err = newWanted(cfg.Keyspaces, n.inDir("keyspaces")); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDataDir, err)
	}
	obsolete := n.resume(state.Keyspaces)
	state.Keyspaces = nil

	if cfg.HTTP != "off" {
		if n.apiLn, err = (&net.ListenConfig{}).Listen(ctx, "tcp", cfg.HTTP); err != nil {
			return nil, bindError("API", "--http", cfg.HTTP, err)
		}
		undo = append(undo, func() { n.apiLn.Close() })
	}
	if n.mesh, err = mesh.New(mesh.Config{
		Name:      cfg.Name,
		Cluster:   cfg.Cluster,
		Bind:      cfg.Bind,
		Advertise: cfg.Advertise,
		Join:      cfg.Join,
		Inc:       uint64(inc),
		Zone:      cfg.Zone,
		Roles:     cfg.Roles,
		APIAddr:   n.APIAddr(),
		// After a restart the members known before are dialed besides the seeds.
		SnapshotPath: n.inDir("members"),
		ReapAfter:    cfg.ReapAfter,
		Network:      cfg.Network,
		Logger:       n.log,
	}); err != nil {
		return nil, bindError("mesh", "--bind", cfg.Bind, err)
	}
	undo = append(undo, func() { n.mesh.Close() })

	if n.apiLn != nil {
		registry := prometheus.NewRegistry()
		if err := registry.Register(newCollector(n)); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
		n.api = api.NewServer(backend{n, false}, api.Options{Registry: registry, Logger: n.log})
	}
	n.inner = api.NewServer(backend{n, true}, api.Options{Logger: n.log})
	n.forward.dial, n.forward.holders, n.forward.zone, n.forward.log = n.mesh.DialAPI, n.holders, cfg.Zone, n.log
	if cfg.Server {
		if err := n.openHost(); err != nil {
			return nil, err
		}
	}
	n.run()
	for _, drop := range obsolete {
		n.background.Go(func() { n.dropLater(drop) })
	}
	if n.writer != nil {
		if err := n.clock.Extend(ctx, n.writer); err != nil {
			n.cancel(err)
			<-n.done
			undo = nil
			return nil, fmt.Errorf("%w: %w", ErrDataDir, err)
		}
		if err := n.supersede(); err != nil {
			n.cancel(err)
			<-n.done
			undo = nil
			return nil, fmt.Errorf("%w: %w", ErrDataDir, err)
		}
	}
	if err := n.register(ctx); err != nil {
		n.cancel(err)
		<-n.done
		undo = nil
		return nil, err
	}
	n.completeCatalog(ctx)
	n.log.Info("node started", "mesh", n.MeshAddr(), "api", n.APIAddr(), "data_dir", cfg.DataDir, "durability", cfg.Durability)
	return n, nil
}

// openStore opens and loads the store. Files that fail verification are moved
// aside, all of them, and the node begins empty: its peers have the data, and a
// clock without its cells would lose some for ever.
func (n *Node) openStore(ctx context.Context) (storage.State, error) {
	dir := n.cfg.DataDir
	if dir == "" || n.cfg.Durability == DurabilityMemory {
		n.store = storage.OpenMemory()
		return n.store.Load(ctx)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return storage.State{}, fmt.Errorf("%w: %w: choose a directory that this user may write (--data-dir)", ErrDataDir, err)
	}
	for attempt := 0; ; attempt++ {
		store, err := storage.Open(dir, nil)
		if err == nil {
			var state storage.State
			if state, err = store.Load(ctx); err == nil {
				n.store = store
				n.writer = storage.NewWriter(store, nil)
				n.syncer = keyspace.NewSyncer(n.writer)
				return state, nil
			}
			store.Close()
		}
		switch {
		case errors.Is(err, storage.ErrLocked):
			return storage.State{}, fmt.Errorf("%w: %w: stop the other process or choose another --data-dir", ErrDataDir, err)
		case errors.Is(err, storage.ErrFormat):
			return storage.State{}, fmt.Errorf("%w: %w: run the version of meshkv that wrote it, or choose another --data-dir", ErrDataDir, err)
		case errors.Is(err, storage.ErrDamaged) && attempt == 0:
			moved, derr := storage.Discard(dir)
			if derr != nil {
				return storage.State{}, fmt.Errorf("%w: %w; moving it aside: %w", ErrDataDir, err, derr)
			}
			n.log.Error("store is damaged: moved aside, beginning empty, data comes back from the peers", "err", err, "moved_to", moved)
			n.drops.add("damaged_store")
		default:
			return storage.State{}, fmt.Errorf("%w: %w", ErrDataDir, err)
		}
	}
}

func bindError(what, flag, addr string, err error) error {
	if errors.Is(err, syscall.EADDRINUSE) || errors.Is(err, mesh.ErrAddrInUse) {
		return fmt.Errorf("%w: %s address %s is taken: stop the other process or choose another with %s", ErrAddrInUse, what, addr, flag)
	}
	return fmt.Errorf("%w: listen on %s address %s: %w", ErrConfig, what, addr, err)
}

// run starts the goroutines of the node. The node ends, as a whole, with the
// first of them that fails.
func (n *Node) run() {
	stop, cancel := context.WithCancelCause(context.Background())
	n.stopC, n.cancel = stop.Done(), cancel
	// In the order in which they end: the API, the network, the writer.
	netCtx, stopNet := context.WithCancel(context.Background())
	writerCtx, stopWriter := context.WithCancel(context.Background())
	var network, writers sync.WaitGroup
	extend := make(chan struct{}, 1) // the clock's bound is to be extended
	if n.writer != nil {
		writers.Go(func() {
			if err := n.writer.Run(writerCtx); err != nil {
				cancel(fmt.Errorf("%w: %w", ErrDataDir, err))
			}
		})
		network.Go(func() { n.extendClock(netCtx, extend) })
		network.Go(func() { n.syncer.Run(netCtx) })
	}
	network.Go(func() {
		if err := n.mesh.Run(netCtx); err != nil && netCtx.Err() == nil {
			cancel(fmt.Errorf("mesh: %w", err))
		}
	})
	network.Go(func() { n.links(netCtx) })
	network.Go(func() { n.membership(netCtx) })
	network.Go(func() { n.tick(netCtx, extend) })
	network.Go(func() { n.watchDirectory(netCtx) })
	network.Go(func() { n.watchCatalog(netCtx) })
	network.Go(func() { n.weave(netCtx) })
	network.Go(func() { n.renewals(netCtx) })
	network.Go(func() { n.seal(netCtx) })
	network.Go(func() { n.serveMembers(netCtx) })
	network.Go(func() { n.watchStrongs(netCtx) })
	network.Go(func() { n.followMirrors(netCtx) })
	if n.api != nil {
		network.Go(func() {
			if err := n.api.Serve(n.apiLn); err != nil && stop.Err() == nil {
				cancel(fmt.Errorf("API: %w", err))
			}
		})
	}
	go func() {
		<-stop.Done()
		n.drain()
		stopNet()
		network.Wait()
		n.forward.close()
		n.background.Wait()
		stopWriter() // flushes what is left
		writers.Wait()
		err := n.store.Close()
		if cause := context.Cause(stop); !errors.Is(cause, errStopped) {
			err = cause
		}
		n.err = err
		close(n.done)
	}()
}

// drain ends the API and the keyspaces, and gives what was acknowledged a moment
// to reach the peers: a node in memory has nowhere else to leave it.
func (n *Node) drain() {
	n.draining.Store(true)
	n.closeStrongs() // sessions first: they end with the node, and their calls still go out
	if n.api != nil {
		ctx, cancel := context.WithTimeout(context.Background(), drainTimeout)
		if err := n.api.Shutdown(ctx); err != nil {
			n.log.Warn("API calls were cut off", "err", err)
		}
		cancel()
	}
	{
		ctx, cancel := context.WithTimeout(context.Background(), drainTimeout)
		if err := n.inner.Shutdown(ctx); err != nil {
			n.log.Warn("calls of other nodes were cut off", "err", err)
		}
		cancel()
	}
	n.linkMu.Lock() // no keyspace is opened from here on
	all := n.sorted()
	n.linkMu.Unlock()
	for _, ks := range all {
		ks.Close()
	}
	limit := time.NewTimer(flushTimeout)
	defer limit.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for slices.ContainsFunc(all, (*keyspace.Keyspace).Queued) {
		select {
		case <-limit.C:
			n.log.Warn("stopped before all peers had taken the newest changes")
			return
		case <-tick.C:
		}
	}
}

// stopping reports whether the node has begun to end.
func (n *Node) stopping() bool {
	select {
	case <-n.stopC:
		return true
	default:
		return false
	}
}

// extendClock keeps the persisted bound of the clock ahead of what is issued. The
// tick says when, and does not wait for the disk.
func (n *Node) extendClock(ctx context.Context, due <-chan struct{}) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-due:
			if !n.clock.ExtendDue(time.Now()) { // it was just done
				continue
			}
			if err := n.clock.Extend(ctx, n.writer); err != nil && ctx.Err() == nil {
				n.cancel(fmt.Errorf("%w: %w", ErrDataDir, err))
				return
			}
		}
	}
}

// errStopped is the cause of a Stop.
var errStopped = errors.New("stopped")

// tick drives what depends on time. Where nothing is due it sleeps, until something
// is or a call into a keyspace wakes it. What a call brings about is due some time
// later, so that tickEvery after it is soon enough.
func (n *Node) tick(ctx context.Context, extend chan<- struct{}) {
	var measured time.Time // when the replicators last heard of round trips
	timer := time.NewTimer(tickEvery)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-n.closedC:
			n.spreadClosed()
			continue
		case <-n.env.Doze.Woken():
		case <-timer.C:
		}
		n.env.Doze.Wake()
		now := time.Now()
		for _, ks := range n.sorted() {
			ks.Tick(now)
		}
		n.settleHoldings()
		if n.writer != nil && n.clock.ExtendDue(now) {
			select {
			case extend <- struct{}{}:
			default: // it is about to be
			}
		}
		if now.Sub(measured) >= slowEvery {
			measured = now
			n.forward.sweep(now)
			n.noteAlone(now)
			n.mendDamaged(now)
			n.completeCatalog(ctx)
			for _, p := range n.allPeers() {
				for _, ks := range n.sorted() {
					ks.SetRTT(p.id, p.link.RTT())
				}
			}
		}
		next := n.env.Doze.Until(now.Add(tickEvery), measured.Add(slowEvery), func() time.Time { return n.nextDue(now) })
		timer.Reset(time.Until(next))
	}
}

// nextDue is when a tick next has something to do; it may be in the past.
func (n *Node) nextDue(now time.Time) time.Time {
	due := now.Add(slowEvery)
	if n.writer != nil {
		if at, ok := n.clock.NextExtend(now); ok && at.Before(due) {
			due = at
		}
	}
	for _, h := range n.allHeld() {
		if !h.serves.Load() && !h.gone.Load() { // others settle when it ends its joining
			return now
		}
		if at := h.ks.NextDue(now); at.Before(due) {
			due = at
		}
		if due.Before(now.Add(tickEvery)) { // early enough, whatever the others say
			return due
		}
	}
	return due
}

// Stop ends the node without leaving the cluster, so that it can start again,
// and waits until everything is on disk. It may be called twice.
func (n *Node) Stop(ctx context.Context) error {
	n.draining.Store(true)
	n.cancel(errStopped)
	select {
	case <-n.done:
		return n.err
	case <-ctx.Done():
		return fmt.Errorf("stop: %w", ctx.Err())
	}
}

// Done is closed when the node has ended.
func (n *Node) Done() <-chan struct{} { return n.done }

// Err is why the node ended: nil after Stop or Leave. Only valid after Done.
func (n *Node) Err() error { return n.err }

// Name of the node.
func (n *Node) Name() string { return n.cfg.Name }

// Inc is the incarnation under which the node writes now, in hex.
func (n *Node) Inc() string { return n.env.Writing().String() }

// MeshAddr is the mesh address that others use, as host:port.
func (n *Node) MeshAddr() string { return n.mesh.Addr() }

// APIAddr is the API address, as host:port; empty if the API is off.
func (n *Node) APIAddr() string {
	if n.apiLn == nil {
		return ""
	}
	return n.apiLn.Addr().String()
}

func peerID(name string, inc crdt.Inc) gossip.PeerID {
	return gossip.PeerID(name + "/" + inc.String())
}

// inDir is the path of a file in the data directory; empty if nothing is kept on
// disk.
func (n *Node) inDir(file string) string {
	if n.writer == nil {
		return ""
	}
	return filepath.Join(n.cfg.DataDir, file)
}

// supersede closes the incarnation that this node had before, if the directory
// says which that was, and writes down its own.
func (n *Node) supersede() error {
	path := filepath.Join(n.cfg.DataDir, "incarnation")
	old, err := readIncarnation(path)
	if err != nil {
		n.log.Warn("former incarnation not known: what it bound to itself stays hidden until reaped", "err", err)
	}
	if old.Name == n.cfg.Name && old.Inc != 0 && old.Inc != n.env.Inc {
		n.owners.Set(old.Inc, keyspace.Owner{Name: n.cfg.Name, State: crdt.OwnerClosed})
		for _, ks := range n.sorted() {
			ks.CloseInc(time.Now(), old.Inc)
		}
	}
	return writeIncarnation(path, incarnation{Name: n.cfg.Name, Inc: n.env.Inc})
}
