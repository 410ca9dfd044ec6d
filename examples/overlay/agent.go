package overlay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
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
	Node      Node           // published, and by its name told apart from the others
	Endpoints []Endpoint     // published at the start
	Cluster   client.Cluster // this host's node
	Kernel    Kernel
	// Reconcile is how often the kernel is read back. Default 2s.
	Reconcile time.Duration
	// Logger receives state changes. Default: discard.
	Logger *slog.Logger
}

// A Report is what an Agent has seen and done.
type Report struct {
	Synced     bool      `json:"synced"`     // both keyspaces have been seen whole
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

// An Agent keeps one host's kernel equal to the store. Its methods are safe
// for concurrent use.
type Agent struct {
	cfg AgentConfig
	log *slog.Logger

	mu     sync.Mutex // protects report
	report Report
}

// NewAgent returns an Agent that does nothing before Run.
func NewAgent(cfg AgentConfig) *Agent {
	if cfg.Reconcile <= 0 {
		cfg.Reconcile = 2 * time.Second
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Agent{cfg: cfg, log: cfg.Logger.With("host", cfg.Node.Name)}
}

// Attach publishes an endpoint of this host; its Node field is set.
func (a *Agent) Attach(ctx context.Context, p Endpoint) error {
	p.Node = a.cfg.Node.Name
	key, value, err := p.Encode()
	if err != nil {
		return err
	}
	return a.put(ctx, EndpointsKeyspace, key, value)
}

// Detach withdraws an endpoint.
func (a *Agent) Detach(ctx context.Context, key string) error {
	ks, err := a.cfg.Cluster.Keyspace(ctx, EndpointsKeyspace)
	if err != nil {
		return err
	}
	_, err = ks.Delete(ctx, key, nil)
	return err
}

func (a *Agent) put(ctx context.Context, keyspace, key string, value []byte) error {
	ks, err := a.cfg.Cluster.Keyspace(ctx, keyspace)
	if err != nil {
		return err
	}
	_, err = ks.Put(ctx, key, value, &client.PutOptions{Ephemeral: true})
	return err
}

// Report returns the present state.
func (a *Agent) Report() Report {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.report
}

// Run publishes this host's records and programs the kernel until ctx ends. It
// withdraws nothing: records are owner-bound.
func (a *Agent) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel(nil)

	key, value, err := a.cfg.Node.Encode()
	if err != nil {
		return err
	}
	if err := a.put(ctx, NodesKeyspace, key, value); err != nil {
		return fmt.Errorf("publish host: %w", err)
	}
	for _, p := range a.cfg.Endpoints {
		if err := a.Attach(ctx, p); err != nil {
			return fmt.Errorf("publish endpoint: %w", err)
		}
	}

	events := make(chan sighting, 256) // full: the watch waits, and meshkv keeps or resyncs what it misses
	for _, name := range []string{NodesKeyspace, EndpointsKeyspace} {
		ks, err := a.cfg.Cluster.Keyspace(ctx, name)
		if err != nil {
			return fmt.Errorf("open keyspace: %w", err)
		}
		wg.Go(func() { a.follow(ctx, ks, events) })
	}
	return a.program(ctx, events)
}

// A sighting is one event of one of the two watches.
type sighting struct {
	keyspace string
	restart  bool // a full snapshot follows; event is empty
	event    client.Event
}

// follow sends the events of one keyspace until ctx ends. A watch that fails
// is resumed where it was.
func (a *Agent) follow(ctx context.Context, ks client.Keyspace, events chan<- sighting) {
	const shortest, longest = 50 * time.Millisecond, 2 * time.Second
	var from client.Cursor
	pause := shortest
	for {
		before := from
		err := a.followOnce(ctx, ks, &from, events)
		if ctx.Err() != nil {
			return
		}
		if from != before {
			pause = shortest // it worked for a while
		}
		if errors.Is(err, client.ErrBadRequest) {
			from = "" // the cursor is of a node that is no more
		}
		a.log.Warn("watch failed", "keyspace", ks.Name(), "err", err)
		a.note(func(r *Report) { r.Rewatched++ })
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
			pause = min(2*pause, longest)
		}
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

// program applies events and repairs the kernel. It owns the views.
func (a *Agent) program(ctx context.Context, events <-chan sighting) error {
	nodes, endpoints := NewView(DecodeNode), NewView(DecodeEndpoint)
	var have *Tables // what the kernel is known to hold; nil: not read yet

	apply := func(s sighting) bool {
		switch {
		case s.keyspace == NodesKeyspace && s.restart:
			nodes.Restart()
		case s.keyspace == NodesKeyspace:
			return nodes.Apply(s.event) || s.event.Type == client.EventSynced
		case s.restart:
			endpoints.Restart()
		default:
			return endpoints.Apply(s.event) || s.event.Type == client.EventSynced
		}
		return false
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
		if !changed && !reread || !nodes.Synced() || !endpoints.Synced() {
			continue
		}
		want, refused := Desired(a.cfg.Node.Name, a.cfg.Node.VNI, nodes.Records(), endpoints.Records())
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
			r.Refused, r.Ignored = refused, nodes.Ignored()+endpoints.Ignored()
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

func (a *Agent) note(f func(*Report)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f(&a.report)
}
