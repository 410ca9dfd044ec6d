package host

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/meshkv/meshkv/consensus/placement"
)

// A Description is what is known of a strong keyspace.
type Description struct {
	Entry  Entry  `json:"entry"`
	Leader string `json:"leader"` // node; empty: not known
	// What the replica that answered has: the leader's, or this server's if nobody leads.
	Term      uint64 `json:"term"`
	Applied   uint64 `json:"applied"` // log index
	Commit    uint64 `json:"commit"`
	Revision  uint64 `json:"revision"`
	Compacted uint64 `json:"compacted"`
	Keys      int    `json:"keys"`
	Bytes     uint64 `json:"bytes"`
	Quota     uint64 `json:"quota"`
}

// Describe is what there is to know of a keyspace. Without a majority it is what this server
// knows. ErrNotFound if there is no such keyspace.
func (h *Host) Describe(ctx context.Context, name string) (Description, error) {
	e, ok := h.Entry(name)
	if !ok || e.Keyspace.Removed {
		return Description{}, fmt.Errorf("%w: strong keyspace %s", ErrNotFound, name)
	}
	attempt, cancel := context.WithTimeout(ctx, memberTimeout)
	defer cancel()
	d, err := atLeader[Description](attempt, h, e, callDescribe, e.Keyspace.Group())
	if err == nil {
		d.Entry = e
		return d, nil
	}
	d, _ = h.describeHere(e.Keyspace.Group())
	d.Entry = e
	return d, nil
}

// describe is a group as its leader sees it, if this server leads it.
func (h *Host) describe(ctx context.Context, name string) (answer[Description], error) {
	_, leader, err := h.led(ctx, name)
	if err != nil || leader != "" {
		return answer[Description]{Leader: leader}, err
	}
	d, err := h.describeHere(name)
	return answer[Description]{Value: d}, err
}

// describeHere is a group as the replica here sees it.
func (h *Host) describeHere(name string) (Description, error) {
	h.mu.Lock()
	run := h.running[name]
	h.mu.Unlock()
	if run == nil {
		return Description{}, fmt.Errorf("%w: %s has no replica of %s", ErrNoQuorum, h.cfg.Name, name)
	}
	g, err := run.replica.Group().Status()
	if err != nil {
		return Description{}, err
	}
	s := run.replica.View().Status()
	return Description{
		Leader: placement.NodeOf(g.Leader.ID), Term: g.Term, Applied: g.Applied, Commit: g.Commit, Revision: uint64(s.Revision), Compacted: uint64(s.Compacted),
		Keys: s.Keys, Bytes: s.Bytes, Quota: s.Quota,
	}, nil
}

// settledEvery is how often it is looked whether a change is complete.
const settledEvery = 100 * time.Millisecond

// AwaitVoter waits until a server is a voter of a keyspace, or no member any more.
func (h *Host) AwaitVoter(ctx context.Context, keyspace, server string, voter bool) error {
	return h.awaitEntries(ctx, func(all []Entry) bool {
		return slices.ContainsFunc(all, func(e Entry) bool {
			return e.Keyspace.Name == keyspace && e.Keyspace.Change == nil && slices.ContainsFunc(e.Keyspace.Members, func(m placement.Replica) bool {
				return m.Server == server && !m.Learner
			}) == voter
		})
	})
}

// AwaitDrained waits until a server has no replica any more.
func (h *Host) AwaitDrained(ctx context.Context, server string) error {
	return h.awaitEntries(ctx, func(all []Entry) bool {
		return !slices.ContainsFunc(all, func(e Entry) bool {
			return !e.Keyspace.Removed && slices.ContainsFunc(e.Keyspace.Members, func(m placement.Replica) bool { return m.Server == server })
		})
	})
}

// awaitEntries waits until the entries of the catalog are so, asking a member of the system group.
func (h *Host) awaitEntries(ctx context.Context, ok func([]Entry) bool) error {
	for {
		all, err := atCatalog[[]Entry](ctx, h, callEntries, nil)
		if err == nil && ok(all) {
			return nil
		}
		if err := h.pause(ctx, settledEvery); err != nil {
			return err
		}
	}
}

// entriesHere are the entries of the catalog, as a majority has them.
func (h *Host) entriesHere(ctx context.Context) ([]Entry, error) {
	_, v, err := h.readCatalog(ctx)
	if err != nil {
		return nil, err
	}
	return h.entriesOf(v)
}
