package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/meshkv/meshkv/consensus/group"
	"github.com/meshkv/meshkv/consensus/placement"
	"github.com/meshkv/meshkv/consensus/replica"
	"github.com/meshkv/meshkv/storage"
)

// follow opens and closes replicas as the entries say.
func (h *Host) follow() {
	retry := time.NewTicker(heedEvery)
	defer retry.Stop()
	for failed := false; ; {
		select {
		case <-h.kick:
		case <-retry.C:
			if !failed {
				continue
			}
		case <-h.ctx.Done():
			return
		}
		failed = false
		for _, e := range h.sortedEntries() {
			if h.ctx.Err() != nil {
				return
			}
			if err := h.heed(e); err != nil {
				if errors.Is(err, storage.ErrFailed) || errors.Is(err, storage.ErrDamaged) {
					h.fail(err)
					return
				}
				failed = true
				h.log.Warn("replica not as the catalog says", "keyspace", e.Keyspace.Name, "err", err)
			}
		}
	}
}

func (h *Host) sortedEntries() []Entry {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := make([]Entry, 0, len(h.entries))
	for _, e := range h.entries {
		all = append(all, e)
	}
	slices.SortFunc(all, func(a, b Entry) int { return strings.Compare(a.Keyspace.Name, b.Keyspace.Name) })
	return all
}

// heed does what an entry asks of this server.
func (h *Host) heed(e Entry) error {
	h.opening.Lock()
	defer h.opening.Unlock()
	h.mu.Lock()
	over := h.closed || h.entries[e.Keyspace.Name].Revision != e.Revision // a newer one is heeded next
	h.mu.Unlock()
	if over {
		return nil
	}
	k := &e.Keyspace
	if k.Name == System {
		if err := h.noteSystem(e); err != nil {
			return err
		}
	}
	current, store := k.Group(), storeOf(k)
	duty := k.Duty(h.identity.server(h.cfg.Zone))
	had := h.identity.stored(store)
	if epochOf(had) > k.Epoch && !k.Removed { // recovered here, which the catalog does not say yet
		return h.finishRecovery(store)
	}
	if err := h.identity.recovered(store); err != nil {
		return err
	}
	if had != "" || duty != placement.Absent {
		if err := h.identity.act(e); err != nil {
			return err
		}
	}
	for _, r := range h.runningOf(k.Name) {
		if r.group != current || duty == placement.Absent {
			if err := h.end(r); err != nil {
				return err
			}
		}
	}
	// What is left of a group that has ended, or that this server is no member of any more.
	if had != "" && (had != current || duty == placement.Absent) {
		if err := h.discard(store, had); err != nil {
			return err
		}
	}
	if err := h.discardOlder(k); err != nil {
		return err
	}
	if duty == placement.Absent || h.runs(current) {
		return nil
	}
	return h.open(e, duty)
}

// discardOlder deletes what there is of former keyspaces of that name, which ended while this server was
// away.
func (h *Host) discardOlder(k *placement.Keyspace) error {
	for store, group := range h.identity.get().Stores {
		name, gen, _ := strings.Cut(store, "#")
		if n, err := strconv.ParseUint(gen, 10, 64); name != k.Name || err != nil || n >= k.Gen {
			continue
		}
		if err := h.discard(store, group); err != nil {
			return err
		}
	}
	return nil
}

// heedEvery is how often what an entry asks is tried again.
const heedEvery = 2 * time.Second

// storeOf is the name under which the log and the snapshots of a keyspace's group are kept. A
// recovered group goes on with those of the survivor.
func storeOf(k *placement.Keyspace) string { return k.Name + "#" + strconv.FormatUint(k.Gen, 10) }

// epochOf is the epoch in the name of a group, 0 for none.
func epochOf(group string) uint64 {
	_, epoch, _ := strings.Cut(group[strings.LastIndexByte(group, '#')+1:], ".")
	epoch, _, _ = strings.Cut(epoch, "-")
	n, _ := strconv.ParseUint(epoch, 10, 64)
	return n
}

func (h *Host) runningOf(name string) (all []*running) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, r := range h.running {
		if r.keyspace == name {
			all = append(all, r)
		}
	}
	return all
}

func (h *Host) runs(group string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.running[group] != nil || h.halted[group]
}

// open starts the replica of an entry. It begins the group only if the entry says so and
// this server was never in it before.
func (h *Host) open(e Entry, duty placement.Duty) error {
	name, store := e.Keyspace.Group(), storeOf(&e.Keyspace)
	if err := h.identity.store(store, name); err != nil {
		return err
	}
	log, err := h.engine.Group(store)
	if err != nil {
		return fmt.Errorf("open log of group %s: %w", name, err)
	}
	id := h.identity.server(h.cfg.Zone).Replica().ID
	member, err := h.rafts.Member(name, id)
	if err != nil {
		return fmt.Errorf("open transport of group %s: %w", name, err)
	}
	line, err := h.beats.Line(name)
	if err != nil {
		return fmt.Errorf("open heartbeats of group %s: %w", name, errors.Join(err, member.Close()))
	}
	gc := group.Config{
		ID: id, Dir: h.groupDir(store), Log: log, Transport: member, Heartbeats: line, Logger: h.log.With("group", name),
		SnapshotThreshold: snapshotThreshold, TrailingLogs: trailingLogs,
	}
	if duty == placement.Begin && !h.identity.left(name) {
		for _, r := range e.Keyspace.Initial {
			gc.Bootstrap = append(gc.Bootstrap, group.Server{ID: r.ID, Addr: r.ID})
		}
	}
	r, err := replica.Open(replica.Config{
		Group: gc, Name: name, Node: h.cfg.Name, Calls: h.client, Quota: e.Keyspace.Quota, Logger: gc.Logger,
		Epoch: e.Keyspace.Epoch,
		Halted: func(err error) {
			h.log.Error("replica stopped", "group", name, "err", err)
			h.work.Go(func() { h.halt(name) })
		},
	})
	if err != nil {
		return err
	}
	h.mu.Lock()
	closed := h.closed
	if !closed {
		h.running[name] = &running{keyspace: e.Keyspace.Name, group: name, store: store, replica: r}
		h.announce()
	}
	h.mu.Unlock()
	if closed {
		return r.Close(h.ctx)
	}
	h.log.Info("replica opened", "keyspace", e.Keyspace.Name, "group", name, "duty", duty)
	return nil
}

const (
	// snapshotThreshold and trailingLogs are in entries, of which each is a batch of up
	// to 256 KiB.
	snapshotThreshold = 4096
	trailingLogs      = 2048
)

// end closes a replica that is not needed here any more.
func (h *Host) end(r *running) error {
	// First, so that nothing begins the group again however this ends.
	if err := h.identity.leave(r.group); err != nil {
		return err
	}
	h.close(r)
	h.log.Info("replica ended", "keyspace", r.keyspace, "group", r.group)
	return nil
}

func (h *Host) close(r *running) {
	h.forget(r)
	ctx, cancel := context.WithTimeout(h.ctx, closeTimeout)
	defer cancel()
	if err := r.replica.Close(ctx); err != nil {
		h.log.Warn("replica closed with an error", "group", r.group, "err", err)
	}
}

// halt closes a replica that cannot go on; it is not opened again by this process.
func (h *Host) halt(group string) {
	h.opening.Lock()
	defer h.opening.Unlock()
	h.mu.Lock()
	r := h.running[group]
	h.halted[group] = true
	h.mu.Unlock()
	if r != nil {
		h.close(r)
	}
}

// discard deletes what there is of a group whose replica does not run.
func (h *Host) discard(store, group string) error {
	if err := h.identity.leave(group); err != nil {
		return err
	}
	if err := h.engine.Remove(h.ctx, store); err != nil {
		return fmt.Errorf("remove log of group %s: %w", group, err)
	}
	if err := os.RemoveAll(h.groupDir(store)); err != nil {
		return fmt.Errorf("remove snapshots of group %s: %w", group, err)
	}
	h.log.Info("data of a replica deleted", "group", group)
	return h.identity.store(store, "")
}

func (h *Host) forget(r *running) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.running, r.group)
	h.announce()
}

// closeReplicas ends all replicas at the same time: each may wait for a new leader.
func (h *Host) closeReplicas(ctx context.Context) error {
	h.mu.Lock()
	all := h.running
	h.running = make(map[string]*running)
	h.announce()
	h.mu.Unlock()
	var wg sync.WaitGroup
	var mu sync.Mutex // protects err
	var err error
	for _, r := range all {
		wg.Go(func() {
			if cerr := r.replica.Close(ctx); cerr != nil {
				mu.Lock()
				err = errors.Join(err, fmt.Errorf("close replica of %s: %w", r.group, cerr))
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return err
}
