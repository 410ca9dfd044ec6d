package overlay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/meshkv/meshkv/client"
)

// A Kernel is the VXLAN device of one host.
type Kernel interface {
	// Tables reads what the device holds.
	Tables() (Tables, error)
	// Apply makes the changes in order and goes on after one that fails.
	Apply(Changes) error
}

// AgentConfig describes one host's agent.
type AgentConfig struct {
	// Node is published, with the lease's Subnet and Token filled in, and by its name
	// told apart from the others.
	Node    Node
	Cluster client.Cluster // this host's node
	Kernel  Kernel
	// Pool is all addresses of the overlay, the same at every host: IPv4, /24 or larger.
	Pool netip.Prefix
	// Voters of the keyspace IPAMKeyspace, the same at every host: 1, 3 or 5.
	Voters int
	// TTL is how long a lease outlives its agent, and for how long an agent keeps its
	// lease while it does not reach a majority of the voters. Default 20s.
	TTL time.Duration
	// Reconcile is how often the kernel is read back. Default 2s.
	Reconcile time.Duration
	// Logger receives state changes. Default: discard.
	Logger *slog.Logger
}

// A Report is what an Agent has seen and done.
type Report struct {
	Lease      Claim     `json:"lease"`      // zero while the host has none
	Leases     uint64    `json:"leases"`     // taken so far
	Dropped    uint64    `json:"dropped"`    // endpoints of this host whose address went to another
	Synced     bool      `json:"synced"`     // all keyspaces have been seen whole
	Nodes      int       `json:"nodes"`      // hosts in sight, with this one
	Endpoints  int       `json:"endpoints"`  // containers in sight
	Forwards   int       `json:"forwards"`   // entries wanted
	Neighbours int       `json:"neighbours"` // entries wanted
	Refused    Refused   `json:"refused"`
	Ignored    int       `json:"ignored"`    // records that could not be decoded
	Programmed uint64    `json:"programmed"` // changes made after events
	Repaired   uint64    `json:"repaired"`   // changes made because the kernel differed
	Failed     uint64    `json:"failed"`     // rounds of changes with an error
	Rewatched  uint64    `json:"rewatched"`  // watches opened again after an error
	Reconciled time.Time `json:"reconciled"` // last time that the kernel was read back
}

// An Agent leases a /24 for one host, announces what runs there, and keeps its kernel
// equal to the store. Its methods are safe for concurrent use.
type Agent struct {
	cfg      AgentConfig
	log      *slog.Logger
	requests chan func(*holder)
	ended    chan struct{} // closed when Run returns

	mu     sync.Mutex // protects the fields below
	report Report
	claims Claims
	fences Fences
}

// NewAgent returns an Agent that does nothing before Run, which is called once.
func NewAgent(cfg AgentConfig) *Agent {
	if cfg.Reconcile <= 0 {
		cfg.Reconcile = 2 * time.Second
	}
	if cfg.TTL <= 0 {
		cfg.TTL = 20 * time.Second
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Agent{
		cfg: cfg, log: cfg.Logger.With("host", cfg.Node.Name), requests: make(chan func(*holder)), ended: make(chan struct{}),
		claims: Claims{}, fences: Fences{},
	}
}

// Report returns the present state.
func (a *Agent) Report() Report {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.report
}

// Claims are the claims in sight, in no order.
func (a *Agent) Claims() []Claim {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Collect(maps.Values(a.claims))
}

// Run leases addresses, announces what runs here and programs the kernel until ctx ends.
// It gives its lease up then, but withdraws nothing: what it announces is owner-bound.
func (a *Agent) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer close(a.ended)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel(nil)

	events := make(chan sighting, 256) // full: the watch waits, and meshkv keeps or resyncs what it misses
	var spaces [2]client.Keyspace
	for i, name := range [...]string{NodesKeyspace, EndpointsKeyspace} {
		ks, err := a.cfg.Cluster.Keyspace(ctx, name)
		if err != nil {
			return fmt.Errorf("open keyspace: %w", err)
		}
		spaces[i] = ks
		wg.Go(func() { a.follow(ctx, ks, events) })
	}
	wg.Go(func() {
		strong, err := a.open(ctx)
		if err != nil {
			cancel(err)
			return
		}
		wg.Go(func() { a.follow(ctx, strong, events) })
		h := holder{
			agent: a, nodes: spaces[0], endpoints: spaces[1], own: map[string]resident{},
			ipam: IPAM{Strong: strong, Pool: a.cfg.Pool, Node: a.cfg.Node.Name, TTL: a.cfg.TTL},
		}
		h.hold(ctx)
	})
	return a.program(ctx, events)
}

// open creates the strong keyspace, or finds it, as soon as there are servers for it.
func (a *Agent) open(ctx context.Context) (client.Strong, error) {
	for wait := newPause(); ; {
		attempt, cancel := context.WithTimeout(ctx, 5*time.Second)
		err := a.cfg.Cluster.CreateKeyspace(attempt, client.KeyspaceSpec{Name: IPAMKeyspace, Mode: "strong", Voters: a.cfg.Voters})
		cancel()
		if err == nil {
			return a.cfg.Cluster.Strong(ctx, IPAMKeyspace)
		}
		a.log.Info("no strong keyspace yet", "err", err)
		if err := wait.next(ctx); err != nil {
			return nil, err
		}
	}
}

// A sighting is one event of one of the watches.
type sighting struct {
	keyspace string
	restart  bool // a full snapshot follows; event is empty
	event    client.Event
}

// follow sends the events of one keyspace until ctx ends. A watch that fails
// is resumed where it was.
func (a *Agent) follow(ctx context.Context, ks client.Keyspace, events chan<- sighting) {
	var from client.Cursor
	for wait := newPause(); ; {
		before := from
		err := a.followOnce(ctx, ks, &from, events)
		if ctx.Err() != nil {
			return
		}
		if from != before {
			wait = newPause() // it worked for a while
		}
		if errors.Is(err, client.ErrBadRequest) {
			from = "" // the cursor is of a node that is no more
		}
		a.log.Warn("watch failed", "keyspace", ks.Name(), "err", err)
		a.note(func(r *Report) { r.Rewatched++ })
		if wait.next(ctx) != nil {
			return
		}
	}
}

// A pause is the time until something is tried again: longer each time.
type pause time.Duration

func newPause() *pause { p := pause(50 * time.Millisecond); return &p }

// next waits. The end of ctx is the only error.
func (p *pause) next(ctx context.Context) error {
	t := time.NewTimer(time.Duration(*p))
	defer t.Stop()
	*p = min(2**p, pause(2*time.Second))
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

func (a *Agent) followOnce(ctx context.Context, ks client.Keyspace, from *client.Cursor, events chan<- sighting) error {
	w, err := ks.Watch(ctx, "", &client.WatchOptions{From: *from})
	if err != nil {
		return err
	}
	defer w.Close()
	send := func(s sighting) error {
		s.keyspace = ks.Name()
		select {
		case events <- s:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if *from == "" {
		if err := send(sighting{restart: true}); err != nil {
			return err
		}
	}
	for {
		ev, err := w.Next(ctx)
		if err != nil {
			return err
		}
		if err := send(sighting{event: ev}); err != nil {
			return err
		}
		// A cursor inside a snapshot resumes after it, so only one beyond the
		// snapshot is a place to resume at.
		if ev.Type == client.EventResync {
			*from = ""
		} else if *from != "" || ev.Type == client.EventSynced {
			*from = ev.Cursor
		}
	}
}

// A shown is a View of whatever records.
type shown interface {
	Restart()
	Apply(client.Event) bool
	Synced() bool
	Ignored() int
}

// program applies events and repairs the kernel. It owns the views.
func (a *Agent) program(ctx context.Context, events <-chan sighting) error {
	nodes, endpoints, claims := NewView(DecodeNode), NewView(DecodeEndpoint), NewView(DecodeClaim)
	views := map[string]shown{NodesKeyspace: nodes, EndpointsKeyspace: endpoints, IPAMKeyspace: claims}
	var have *Tables // what the kernel is known to hold; nil: not read yet

	apply := func(s sighting) bool {
		v := views[s.keyspace]
		if s.restart {
			v.Restart()
			return false
		}
		return v.Apply(s.event) || s.event.Type == client.EventSynced
	}

	tick := time.NewTicker(a.cfg.Reconcile)
	defer tick.Stop()
	for {
		changed, reread := false, false
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
			reread = true
		case s := <-events:
			changed = apply(s)
			// One decision for all that is waiting: it is over all records.
			for range len(events) {
				changed = apply(<-events) || changed
			}
		}
		if !changed && !reread || !nodes.Synced() || !endpoints.Synced() || !claims.Synced() {
			continue
		}
		want, refused := a.decide(Records{nodes.Records(), endpoints.Records(), claims.Records()})
		first := have == nil
		if first || reread {
			t, err := a.cfg.Kernel.Tables()
			if err != nil {
				a.log.Error("kernel tables unreadable", "err", err)
				a.note(func(r *Report) { r.Failed++ })
				continue
			}
			have = &t
		}
		diff := Diff(want, *have)
		var err error
		if diff.Len() > 0 {
			err = a.cfg.Kernel.Apply(diff)
			a.log.Info("kernel programmed", "set", len(diff.SetForward)+len(diff.SetNeighbour),
				"dropped", len(diff.DropForward)+len(diff.DropNeighbour), "repair", reread, "err", err)
		}
		have = &want
		if err != nil {
			have = nil // read it again before the next change
		}
		a.note(func(r *Report) {
			r.Synced, r.Nodes, r.Endpoints = true, len(nodes.shown), len(endpoints.shown)
			r.Forwards, r.Neighbours = len(want.Forwards), len(want.Neighbours)
			r.Refused, r.Ignored = refused, nodes.Ignored()+endpoints.Ignored()+claims.Ignored()
			if reread {
				r.Repaired += uint64(diff.Len())
				r.Reconciled = time.Now()
			} else {
				r.Programmed += uint64(diff.Len())
			}
			if err != nil {
				r.Failed++
			}
		})
	}
}

// decide notes what is in sight and says what the kernel should hold.
func (a *Agent) decide(r Records) (Tables, Refused) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.claims = NewClaims(r.Claims)
	for _, c := range r.Claims {
		if a.cfg.Pool.Contains(c.Prefix.Addr()) { // so there is a bound to the fences
			a.fences.Raise(c)
		}
	}
	return Desired(a.cfg.Node.Name, a.cfg.Node.VNI, r, a.fences)
}

func (a *Agent) note(f func(*Report)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f(&a.report)
}
