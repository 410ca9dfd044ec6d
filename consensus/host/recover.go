package host

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/meshkv/meshkv/consensus/group"
	"github.com/meshkv/meshkv/consensus/logstore"
	"github.com/meshkv/meshkv/consensus/machine"
	"github.com/meshkv/meshkv/consensus/placement"
	"github.com/meshkv/meshkv/consensus/replica"
)

// A recovery is a group that begins anew with the replica of this server.
type recovery struct {
	Entry Entry              `json:"entry"` // as the catalog has it
	Next  placement.Keyspace `json:"next"`  // as it will be
	// Done: the replica here is the only member. Until then the catalog must not hear of it.
	Done bool `json:"done,omitempty"`
}

// Recovered is what became of a group that was recovered.
type Recovered struct {
	Entry Entry  `json:"entry"`
	Index uint64 `json:"index"` // of the survivor's last log entry: later ones are lost
	Term  uint64 `json:"term"`
}

// Recover begins the group of a keyspace anew with the replica of one server, after the majority
// of its voters was lost for good. What only the others had is lost; tokens and revisions
// are not given again. The others, should they come back, are refused by the new epoch, and delete what
// they have. ErrConflict if a majority is alive, or the survivor has no replica.
//
// The system group is recovered by its survivor itself: there is no catalog to ask.
func (h *Host) Recover(ctx context.Context, name, survivor string) (Recovered, error) {
	e, ok := h.Entry(name)
	if !ok || e.Keyspace.Removed {
		return Recovered{}, fmt.Errorf("%w: strong keyspace %s", ErrNotFound, name)
	}
	if name != System {
		all, err := atCatalog[[]Entry](ctx, h, callEntries, nil)
		if err != nil {
			return Recovered{}, err
		}
		i := slices.IndexFunc(all, func(e Entry) bool { return e.Keyspace.Name == name })
		if i < 0 {
			return Recovered{}, fmt.Errorf("%w: strong keyspace %s", ErrNotFound, name)
		}
		e = all[i]
	}
	next, err := h.planRecovery(e, survivor)
	if err != nil {
		return Recovered{}, err
	}
	r, err := ask[Recovered](ctx, h, survivor, callRecover, recovery{Entry: e, Next: next})
	if err == nil {
		h.Learn(r.Entry)
	}
	return r, err
}

// planRecovery is the entry after a recovery, if one may be made.
func (h *Host) planRecovery(e Entry, survivor string) (placement.Keyspace, error) {
	k := e.Keyspace
	voters, alive := 0, 0
	var self placement.Replica
	for _, m := range k.Members {
		if m.Learner {
			continue
		}
		voters++
		if up, _ := h.cfg.Alive(m.Server); up {
			alive++
		}
		if m.Server == survivor {
			self = m
		}
	}
	switch {
	case self.ID == "":
		return placement.Keyspace{}, fmt.Errorf("%w: %s is no voter of keyspace %s", ErrConflict, survivor, k.Name)
	case 2*alive > voters:
		return placement.Keyspace{}, fmt.Errorf("%w: %d of %d voters of keyspace %s are alive, which is a majority: nothing is to be recovered. Force servers that are gone to leave first, if they are not", ErrConflict, alive, voters, k.Name)
	}
	return placement.Recover(k, self), nil
}

// recoverHere recovers a group with the replica of this server, and writes that into the catalog. It
// may be asked again if it did not come to its end.
func (h *Host) recoverHere(ctx context.Context, r recovery) (Recovered, error) {
	k := r.Entry.Keyspace
	store, next := storeOf(&k), r.Next.Group()
	self := h.identity.server(h.cfg.Zone).Replica()
	if len(r.Next.Initial) != 1 || r.Next.Initial[0].ID != self.ID {
		return Recovered{}, fmt.Errorf("%w: the voter at %s is on another disk than the one that it has: a replica there that did not vote is no survivor", ErrConflict, h.cfg.Name)
	}
	if known, ok := h.Entry(k.Name); ok && known.Keyspace.Gen == k.Gen && known.Keyspace.Epoch >= r.Next.Epoch {
		return Recovered{}, fmt.Errorf("%w: keyspace %s was recovered already", ErrConflict, k.Name)
	}
	if next == k.Group() || r.Next.Gen != k.Gen {
		return Recovered{}, fmt.Errorf("%w: a recovery goes on with the keyspace in another epoch", ErrInvalid)
	}
	if _, err := h.planRecovery(r.Entry, h.cfg.Name); err != nil {
		return Recovered{}, err
	}
	defer h.signal()
	got, err := h.recoverStore(r, store, next)
	if err != nil {
		return Recovered{}, err
	}
	e, err := h.recordRecovery(ctx, r)
	return Recovered{Entry: e, Index: got.Last, Term: got.Term}, err
}

// recoverStore makes this server's replica the only member of its group, which has another name from
// the first step on: a crash between two leaves nothing that would go on under the old one.
func (h *Host) recoverStore(r recovery, store, next string) (group.Recovered, error) {
	k := r.Entry.Keyspace
	h.opening.Lock()
	defer h.opening.Unlock()
	h.mu.Lock()
	closed := h.closed
	h.mu.Unlock()
	if closed { // its replicas may still be writing
		return group.Recovered{}, fmt.Errorf("%w: %s stops", ErrNotReady, h.cfg.Name)
	}
	had := h.identity.stored(store)
	if had != k.Group() && had != next {
		return group.Recovered{}, fmt.Errorf("%w: %s has no replica of %s", ErrConflict, h.cfg.Name, k.Group())
	}
	for _, run := range h.runningOf(k.Name) {
		h.close(run)
	}
	log, err := h.engine.Group(store)
	if err != nil {
		return group.Recovered{}, err
	}
	if err := begun(log); err != nil {
		return group.Recovered{}, fmt.Errorf("%w: the replica of keyspace %s at %s: %w", ErrConflict, k.Name, h.cfg.Name, err)
	}
	r.Done = false
	if err := h.identity.recovering(store, next, r); err != nil {
		return group.Recovered{}, err
	}
	return h.doRecovery(store, r)
}

// begun is an error for a log of a group in which nothing happened.
func begun(log logstore.Log) error {
	last, err := log.LastIndex()
	if err != nil || last > 0 {
		return err
	}
	term, err := log.GetUint64([]byte("CurrentTerm"))
	if err == nil && term == 0 {
		err = errors.New("it is empty")
	}
	return err
}

// doRecovery makes the replica here the only member of its group. It may be done again. The caller holds
// opening, and the replica is closed.
func (h *Host) doRecovery(store string, r recovery) (group.Recovered, error) {
	k, next := r.Entry.Keyspace, r.Next.Group()
	self := h.identity.server(h.cfg.Zone).Replica()
	log, err := h.engine.Group(store)
	if err != nil {
		return group.Recovered{}, err
	}
	got, err := group.Recover(group.Config{
		ID: self.ID, Dir: h.groupDir(store), Log: log, FSM: replica.NewRecovery(k.Epoch, r.Next.Epoch), Logger: h.log.With("group", next),
	}, group.Server{ID: self.ID, Addr: self.ID})
	if err != nil {
		return got, fmt.Errorf("recover keyspace %s: %w", k.Name, err)
	}
	h.log.Warn("group recovered: what only the lost voters had is gone", "keyspace", k.Name, "group", next, "index", got.Last, "term", got.Term)
	r.Done = true
	return got, h.identity.recovering(store, next, r)
}

// finishRecovery goes on with a recovery of this server of which the catalog does not know yet, and fails as
// long as it does not. The caller holds opening.
func (h *Host) finishRecovery(store string) error {
	r, ok := h.identity.get().Recoveries[store]
	if !ok {
		return fmt.Errorf("the store %s is of a later epoch than the catalog, and of no recovery that is known here", store)
	}
	if !r.Done {
		if _, err := h.doRecovery(store, r); err != nil {
			return err
		}
	}
	h.tellRecovery(store, r)
	return fmt.Errorf("a recovery of this server, %s, is not in the catalog yet", r.Next.Group())
}

// tellRecovery makes a recovery known that the catalog has missed. The caller holds opening.
func (h *Host) tellRecovery(store string, r recovery) {
	if h.telling[store] {
		return
	}
	h.telling[store] = true
	h.work.Go(func() {
		ctx, cancel := context.WithTimeout(h.ctx, stepTimeout)
		defer cancel()
		_, err := h.recordRecovery(ctx, r)
		h.opening.Lock()
		defer h.opening.Unlock()
		delete(h.telling, store)
		if err != nil {
			h.log.Warn("a recovery was not entered into the catalog", "keyspace", r.Next.Name, "err", err)
		}
	})
}

// recordRecovery makes the new epoch known. That of the system group is this server's own to decide: its
// entry is above all that the lost one can have written, and below what the new one will.
func (h *Host) recordRecovery(ctx context.Context, r recovery) (Entry, error) {
	if r.Next.Name == System {
		e := Entry{Revision: r.Next.Epoch * machine.RevisionsPerEpoch, Cluster: h.identity.get().Cluster, Keyspace: r.Next}
		h.Learn(e)
		return e, nil
	}
	return changeEntry(ctx, h, callRecovered, r)
}

// recovered writes the entry of a recovered group into the catalog.
func (h *Host) recovered(ctx context.Context, r recovery) (Entry, error) {
	return h.revise(ctx, r.Next.Name, func(_ *machine.View, had Entry, existed bool) (placement.Keyspace, error) {
		switch {
		case !existed || had.Keyspace.Removed || had.Keyspace.Gen != r.Next.Gen:
			return placement.Keyspace{}, fmt.Errorf("%w: strong keyspace %s", ErrNotFound, r.Next.Name)
		case had.Keyspace.Epoch == r.Next.Epoch && slices.Equal(had.Keyspace.Initial, r.Next.Initial):
			return had.Keyspace, nil // it was asked before
		case had.Keyspace.Epoch+1 != r.Next.Epoch:
			return placement.Keyspace{}, fmt.Errorf("%w: keyspace %s was recovered by another server meanwhile", ErrConflict, r.Next.Name)
		}
		return placement.Recover(had.Keyspace, r.Next.Initial[0]), nil // of what it is now, not when it was asked for
	})
}
