package host

import (
	"context"
	"errors"
	"fmt"

	"github.com/meshkv/meshkv/consensus/calls"
	"github.com/meshkv/meshkv/consensus/group"
	"github.com/meshkv/meshkv/consensus/placement"
	"github.com/meshkv/meshkv/consensus/replica"
)

// observation asks the leader of a group what it is.
func (h *Host) observation(ctx context.Context, e Entry) (placement.Observation, error) {
	return atLeader[placement.Observation](ctx, h, e, callObserve, e.Keyspace.Group())
}

// answer of a host about one of its groups: whom to ask instead, if it does not lead.
type answer[T any] struct {
	Leader string `json:"leader,omitempty"` // node; the rest does not count
	Value  T      `json:"value"`
}

// atLeader asks the members of a group until one leads it.
func atLeader[T any](ctx context.Context, h *Host, e Entry, kind calls.Kind, body any) (value T, err error) {
	err = fmt.Errorf("%w: keyspace %s has no members", ErrNoQuorum, e.Keyspace.Name)
	asked := make(map[string]bool)
	var nodes []string
	if r, ok := h.Replica(e.Keyspace.Name); ok {
		if l := r.Group().Leader(); l.ID != "" {
			nodes = append(nodes, placement.NodeOf(l.ID))
		}
	}
	for _, m := range e.Keyspace.Members {
		nodes = append(nodes, m.Server)
	}
	for len(nodes) > 0 {
		node := nodes[0]
		nodes = nodes[1:]
		if asked[node] {
			continue
		}
		asked[node] = true
		if alive, _ := h.cfg.Alive(node); !alive {
			continue
		}
		attempt, cancel := context.WithTimeout(ctx, memberTimeout)
		var a answer[T]
		a, err = ask[answer[T]](attempt, h, node, kind, body)
		cancel()
		switch {
		case err == nil && a.Leader == "":
			return a.Value, nil
		case err == nil:
			nodes = append([]string{a.Leader}, nodes...)
			err = fmt.Errorf("%w: keyspace %s: the leader has just changed", ErrNoQuorum, e.Keyspace.Name)
		case ctx.Err() != nil:
			return value, err
		}
	}
	if !errors.Is(err, ErrNoQuorum) {
		err = fmt.Errorf("%w: keyspace %s: %w", ErrNoQuorum, e.Keyspace.Name, err)
	}
	return value, err
}

// led gives the replica of a group here if it leads, and confirms that; otherwise the leader.
func (h *Host) led(ctx context.Context, name string) (r *replica.Replica, leader string, err error) {
	h.mu.Lock()
	run := h.running[name]
	h.mu.Unlock()
	if run == nil {
		return nil, "", fmt.Errorf("%w: %s has no replica of %s", ErrNoQuorum, h.cfg.Name, name)
	}
	if _, err := run.replica.Group().ReadIndex(ctx); err != nil {
		var nl *group.NotLeaderError
		if errors.As(err, &nl) && nl.Leader.ID != "" && placement.NodeOf(nl.Leader.ID) != h.cfg.Name {
			return nil, placement.NodeOf(nl.Leader.ID), nil
		}
		return nil, "", fmt.Errorf("%w: %w", ErrNoQuorum, err)
	}
	return run.replica, "", nil
}

// observe is what a group is, if this server leads it.
func (h *Host) observe(ctx context.Context, name string) (answer[placement.Observation], error) {
	r, leader, err := h.led(ctx, name)
	if err != nil || leader != "" {
		return answer[placement.Observation]{Leader: leader}, err
	}
	return answer[placement.Observation]{Value: observationOf(r.Group())}, nil
}

// A step is one change of a group's members, for its leader.
type step struct {
	Group   string            `json:"group"`
	Do      placement.Step    `json:"do"`
	Replica placement.Replica `json:"replica"`
	Index   uint64            `json:"index"` // of the configuration that it is meant for
}

// take carries out a step, if this server leads the group.
func (h *Host) take(ctx context.Context, s step) (answer[bool], error) {
	r, leader, err := h.led(ctx, s.Group)
	if err != nil || leader != "" {
		return answer[bool]{Leader: leader}, err
	}
	g := r.Group()
	member := group.Server{ID: s.Replica.ID, Addr: s.Replica.ID}
	switch s.Do {
	case placement.AddLearner:
		err = g.AddLearner(ctx, member, s.Index)
	case placement.Promote:
		err = g.Promote(ctx, member.ID, s.Index)
	case placement.Remove:
		err = g.Remove(ctx, member.ID, s.Index)
	case placement.TransferLeader:
		err = g.TransferTo(ctx, member.ID)
	default:
		err = fmt.Errorf("%w: step %s", ErrInvalid, s.Do)
	}
	return answer[bool]{Value: err == nil}, err
}
