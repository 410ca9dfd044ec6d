package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/meshkv/meshkv/consensus/calls"
	"github.com/meshkv/meshkv/consensus/group"
	"github.com/meshkv/meshkv/consensus/machine"
	"github.com/meshkv/meshkv/consensus/placement"
	"github.com/meshkv/meshkv/consensus/replica"
)

const (
	// maxKeyspaces bounds the strong keyspaces of a cluster, removed ones included.
	maxKeyspaces = 4096
	// catalogTries bounds how often a change of the catalog that another one crossed is
	// made again.
	catalogTries = 10
	// memberTimeout bounds how long one server is asked before another one is.
	memberTimeout = 5 * time.Second
)

// A Spec is a strong keyspace that is to be created.
type Spec struct {
	Name   string `json:"name"`
	Voters int    `json:"voters"` // 1, 3 or 5
	Quota  uint64 `json:"quota,omitempty"`
}

// Create creates a keyspace, or finds that there is one as specified, and returns once its
// group has a leader. ErrConflict, ErrNoServer, ErrInvalid or ErrNotReady.
func (h *Host) Create(ctx context.Context, s Spec) (Entry, error) {
	return changeEntry(ctx, h, callCreate, s)
}

// Remove removes a keyspace for good.
func (h *Host) Remove(ctx context.Context, name string) (Entry, error) {
	return changeEntry(ctx, h, callRemove, name)
}

// changeEntry asks the catalog for a change of one entry, and takes note of the outcome.
func changeEntry(ctx context.Context, h *Host, kind calls.Kind, body any) (Entry, error) {
	e, err := atCatalog[Entry](ctx, h, kind, body)
	if err == nil {
		h.Learn(e)
	}
	return e, err
}

// atCatalog asks a member of the system group, this server first if it is one. It goes on asking,
// as long as ctx lets it, while none can be reached.
func atCatalog[T any](ctx context.Context, h *Host, kind calls.Kind, body any) (answer T, err error) {
	open := false // an attempt may have had an effect
	for pause := 20 * time.Millisecond; ; pause = min(2*pause, 500*time.Millisecond) {
		err = ErrNotReady
		for _, node := range h.systemServers() {
			attempt, cancel := context.WithTimeout(ctx, memberTimeout)
			answer, err = ask[T](attempt, h, node, kind, body)
			cancel()
			if err == nil || !again(err) {
				return answer, err
			}
			open = open || unknown(err)
		}
		if perr := h.pause(ctx, pause); perr != nil {
			switch {
			case open && !unknown(err):
				err = fmt.Errorf("%w: %w", group.ErrUnknownOutcome, err)
			case !open && !errors.Is(err, ErrNotReady):
				err = fmt.Errorf("%w: %w", ErrNotReady, err)
			}
			if stuck := h.Stuck(); stuck != nil {
				err = fmt.Errorf("%w: %w", err, stuck)
			}
			return answer, fmt.Errorf("%w: %w", err, perr)
		}
	}
}

// systemServers are the nodes of the system group's members, this one first.
func (h *Host) systemServers() (nodes []string) {
	e, ok := h.Entry(System)
	if !ok {
		return nil
	}
	for _, m := range e.Keyspace.Members {
		if m.Server == h.cfg.Name {
			if _, ok := h.Replica(System); ok {
				nodes = slices.Insert(nodes, 0, m.Server)
			}
			continue
		}
		nodes = append(nodes, m.Server)
	}
	slices.SortStableFunc(nodes, func(a, b string) int { return h.gone(a) - h.gone(b) })
	return nodes
}

// gone is 1 for a node that membership takes for dead, 0 for others.
func (h *Host) gone(node string) int {
	if alive, _ := h.cfg.Alive(node); alive {
		return 0
	}
	return 1
}

// catalog is this server's replica of the system group.
func (h *Host) catalog() (*replica.Replica, error) {
	r, ok := h.Replica(System)
	if !ok {
		return nil, fmt.Errorf("%w: %s is no member of the system group", ErrNotReady, h.cfg.Name)
	}
	return r, nil
}

// readCatalog is the catalog as a majority has it.
func (h *Host) readCatalog(ctx context.Context) (*replica.Replica, *machine.View, error) {
	r, err := h.catalog()
	if err != nil {
		return nil, nil, err
	}
	v, err := r.Read(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrNotReady, err)
	}
	return r, v, nil
}

// revise changes the entry of a keyspace, which change makes out of the present one; existed is
// false if there is none. Where change returns an equal one, nothing is written.
func (h *Host) revise(ctx context.Context, name string, change func(v *machine.View, had Entry, existed bool) (placement.Keyspace, error)) (Entry, error) {
	for range catalogTries {
		r, v, err := h.readCatalog(ctx)
		if err != nil {
			return Entry{}, err
		}
		had, existed, err := h.entryAt(v, name)
		if err != nil {
			return Entry{}, err
		}
		next, err := change(v, had, existed)
		if err != nil {
			return Entry{}, err
		}
		if existed && same(next, had.Keyspace) {
			return had, nil
		}
		e, ok, err := h.write(ctx, r, next, had.Revision)
		if err != nil || ok {
			return e, err
		}
	}
	return Entry{}, fmt.Errorf("%w: keyspace %s is being changed again and again", ErrBusy, name)
}

func same(a, b placement.Keyspace) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && string(x) == string(y)
}

// write writes an entry if the one there is still that of a revision, and tells of it.
func (h *Host) write(ctx context.Context, r *replica.Replica, k placement.Keyspace, revision uint64) (Entry, bool, error) {
	txn, err := put(keyspacesPrefix+k.Name, k, revision)
	if err != nil {
		return Entry{}, false, err
	}
	d, err := r.Do(ctx, txn, machine.Request{})
	if err == nil {
		err = d.Err
	}
	if err != nil {
		if errors.Is(err, group.ErrNotApplied) {
			err = fmt.Errorf("%w: %w", ErrNotReady, err)
		}
		return Entry{}, false, err
	}
	if !d.Txn.Succeeded {
		return Entry{}, false, nil
	}
	e := Entry{Revision: uint64(d.Revision), Cluster: h.identity.get().Cluster, Keyspace: k}
	h.Learn(e)
	return e, true, nil
}

func (h *Host) create(ctx context.Context, s Spec) (Entry, error) {
	if s.Voters == 0 {
		s.Voters = 3
	}
	e, err := h.revise(ctx, s.Name, func(v *machine.View, had Entry, existed bool) (placement.Keyspace, error) {
		if existed && !had.Keyspace.Removed {
			return had.Keyspace, nil
		}
		all, err := h.entriesOf(v)
		if err != nil {
			return placement.Keyspace{}, err
		}
		if len(all) >= maxKeyspaces && !existed {
			return placement.Keyspace{}, fmt.Errorf("%w: there are %d strong keyspaces, at most that many", ErrConflict, len(all))
		}
		servers, err := h.candidates(v)
		if err != nil {
			return placement.Keyspace{}, err
		}
		// What only a lost system group knew, or nodes still hold, is not begun again.
		known, _ := h.Entry(s.Name)
		k := placement.Keyspace{Name: s.Name, Gen: max(had.Keyspace.Gen, known.Keyspace.Gen) + 1, Voters: s.Voters, Quota: s.Quota}
		if k.Gen > 1 { // tokens and revisions of the former one are not given again
			k.Epoch = max(had.Keyspace.Epoch, known.Keyspace.Epoch) + 1
		}
		k, err = placement.Place(k, servers)
		switch {
		case errors.Is(err, placement.ErrVoters):
			err = fmt.Errorf("%w: %w", ErrInvalid, err)
		case errors.Is(err, placement.ErrNoServer):
			err = fmt.Errorf("%w: start a node with --server", ErrNoServer)
		}
		return k, err
	})
	if err != nil {
		return Entry{}, err
	}
	return e, h.awaitLeader(ctx, e)
}

// candidates are the servers that are alive. While one of the system group has not registered, as
// after the first start, nobody knows whether it is one: ErrNotReady.
func (h *Host) candidates(v *machine.View) ([]placement.Server, error) {
	servers, err := serversOf(v)
	if err != nil {
		return nil, err
	}
	registered := make(map[string]bool)
	for _, s := range servers {
		registered[s.Name] = true
	}
	e, _ := h.Entry(System)
	for _, m := range e.Keyspace.Members {
		if alive, _ := h.cfg.Alive(m.Server); alive && !registered[m.Server] {
			return nil, fmt.Errorf("%w: server %s has not registered yet", ErrNotReady, m.Server)
		}
	}
	return slices.DeleteFunc(servers, func(s placement.Server) bool {
		alive, _ := h.cfg.Alive(s.Name)
		return !alive
	}), nil
}

// awaitLeader returns once the group of an entry has a leader.
func (h *Host) awaitLeader(ctx context.Context, e Entry) error {
	// Its members learn of it through the leader of the system group; being told at once is faster.
	h.spread(ctx, e)
	pause := 5 * time.Millisecond
	for {
		attempt, cancel := context.WithTimeout(ctx, memberTimeout)
		_, err := h.observation(attempt, e)
		cancel()
		if err == nil {
			return nil
		}
		if h.pause(ctx, pause) != nil {
			return fmt.Errorf("%w: keyspace %s exists, but its group has no leader yet: %w", ErrNoQuorum, e.Keyspace.Name, err)
		}
		pause = min(2*pause, 200*time.Millisecond)
	}
}

func (h *Host) removeKeyspace(ctx context.Context, name string) (Entry, error) {
	if name == System {
		return Entry{}, fmt.Errorf("%w: the system group cannot be removed", ErrInvalid)
	}
	e, err := h.revise(ctx, name, func(_ *machine.View, had Entry, existed bool) (placement.Keyspace, error) {
		if !existed || had.Keyspace.Removed {
			return placement.Keyspace{}, fmt.Errorf("%w: keyspace %s", ErrNotFound, name)
		}
		k := had.Keyspace
		k.Removed, k.Change = true, nil
		return k, nil
	})
	if err == nil {
		h.spread(ctx, e)
	}
	return e, err
}

// A voterChange adds a voter or removes one.
type voterChange struct {
	Keyspace string `json:"keyspace"`
	Server   string `json:"server"`
	Remove   bool   `json:"remove,omitempty"`
}

// AddVoter makes a server a voter of a keyspace; RemoveVoter takes its vote. They wait for a change that is
// under way. Theirs goes on after they have returned; see AwaitVoter.
func (h *Host) AddVoter(ctx context.Context, keyspace, server string) (Entry, error) {
	return h.orderVoter(ctx, voterChange{Keyspace: keyspace, Server: server})
}

// RemoveVoter is described at AddVoter.
func (h *Host) RemoveVoter(ctx context.Context, keyspace, server string) (Entry, error) {
	return h.orderVoter(ctx, voterChange{Keyspace: keyspace, Server: server, Remove: true})
}

func (h *Host) orderVoter(ctx context.Context, c voterChange) (Entry, error) {
	for {
		e, err := changeEntry(ctx, h, callVoter, c)
		if !errors.Is(err, ErrBusy) {
			return e, err
		}
		if h.pause(ctx, settledEvery) != nil {
			return e, err
		}
	}
}

func (h *Host) changeVoter(ctx context.Context, c voterChange) (Entry, error) {
	return h.revise(ctx, c.Keyspace, func(v *machine.View, had Entry, existed bool) (placement.Keyspace, error) {
		if !existed || had.Keyspace.Removed {
			return placement.Keyspace{}, fmt.Errorf("%w: keyspace %s", ErrNotFound, c.Keyspace)
		}
		servers, err := serversOf(v)
		if err != nil {
			return placement.Keyspace{}, err
		}
		apply := placement.AddVoter
		if c.Remove {
			apply = placement.RemoveVoter
		}
		k, err := apply(had.Keyspace, c.Server, servers)
		switch {
		case errors.Is(err, placement.ErrUnknownServer):
			err = fmt.Errorf("%w: %w", ErrNotFound, err)
		case errors.Is(err, placement.ErrBusy):
			err = fmt.Errorf("%w: %w", ErrBusy, err)
		case err != nil:
			err = fmt.Errorf("%w: %w", ErrConflict, err)
		}
		return k, err
	})
}

// Drain moves all replicas away from a server; see AwaitDrained.
func (h *Host) Drain(ctx context.Context, server string) error {
	_, err := atCatalog[any](ctx, h, callDrain, server)
	return err
}

func (h *Host) drain(ctx context.Context, name string) error {
	return h.reviseServer(ctx, name, func(had placement.Server, existed bool) (placement.Server, error) {
		if !existed {
			return had, fmt.Errorf("%w: server %s", ErrNotFound, name)
		}
		had.Draining = true
		return had, nil
	})
}

// register enters a server into the catalog. One that comes with another disk replaces the one
// before; its replicas are replaced by the controller.
func (h *Host) register(ctx context.Context, s placement.Server) error {
	return h.reviseServer(ctx, s.Name, func(had placement.Server, existed bool) (placement.Server, error) {
		if existed && had.Disk == s.Disk {
			s.Draining = had.Draining
		}
		return s, nil
	})
}

func (h *Host) reviseServer(ctx context.Context, name string, change func(had placement.Server, existed bool) (placement.Server, error)) error {
	for range catalogTries {
		r, v, err := h.readCatalog(ctx)
		if err != nil {
			return err
		}
		var had placement.Server
		var revision uint64
		m := v.Get(serversPrefix + name)
		if m != nil {
			revision = uint64(m.Mod)
			if err := json.Unmarshal(m.Value, &had); err != nil {
				return fmt.Errorf("catalog key %s: %w", m.Key, err)
			}
		}
		next, err := change(had, m != nil)
		if err != nil {
			return err
		}
		if m != nil && next == had {
			return nil
		}
		txn, err := put(serversPrefix+name, next, revision)
		if err != nil {
			return err
		}
		d, err := r.Do(ctx, txn, machine.Request{})
		if err == nil {
			err = d.Err
		}
		if err != nil {
			return fmt.Errorf("%w: %w", ErrNotReady, err)
		}
		if d.Txn.Succeeded {
			return nil
		}
	}
	return fmt.Errorf("%w: server %s is being changed again and again", ErrBusy, name)
}

// spread tells the servers of an entry of it, as far as they can be reached at once.
func (h *Host) spread(ctx context.Context, e Entry) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	members := slices.Clone(e.Keyspace.Members)
	if e.Keyspace.Change != nil {
		members = append(members, e.Keyspace.Change.Add...)
	}
	for _, m := range members {
		if m.Server != h.cfg.Name {
			ask[any](ctx, h, m.Server, callLearn, e) // those that miss it learn by gossip
		}
	}
}
