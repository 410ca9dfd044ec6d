package group

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/raft"
)

// A Member is a replica of the group: a voter, or a learner, which gets the log and
// does not count for majorities.
type Member struct {
	Server
	Voter bool
}

// A Configuration is the members of a group. One is the next when it is committed.
type Configuration struct {
	Index   uint64 // of its entry in the log; 0: none is known yet
	Members []Member
}

// Member is the one called id.
func (c Configuration) Member(id string) (Member, bool) {
	i := slices.IndexFunc(c.Members, func(m Member) bool { return m.ID == id })
	if i < 0 {
		return Member{}, false
	}
	return c.Members[i], true
}

func newConfiguration(index uint64, servers raft.Configuration) Configuration {
	c := Configuration{Index: index}
	for _, s := range servers.Servers {
		c.Members = append(c.Members, Member{Server{ID: string(s.ID), Addr: string(s.Address)}, s.Suffrage == raft.Voter})
	}
	return c
}

// Configuration is the newest that is known here to be committed. Its Members must
// not be changed.
func (g *Group) Configuration() Configuration { return g.applier.configuration() }

// AddLearner makes s a learner, and returns when that is committed. Like all changes
// of members it is made by the leader, one at a time, and only if the Configuration
// with that index, on which it was decided, is still the present one: otherwise two
// who decide at the same time could undo each other. The error matches
// ErrConfigurationChanged, ErrMember or what Propose returns; it says in the same way
// whether the change may take effect.
func (g *Group) AddLearner(ctx context.Context, s Server, index uint64) error {
	return g.change(ctx, index, func(c Configuration) (func(timeout time.Duration) raft.IndexFuture, error) {
		taken := slices.ContainsFunc(c.Members, func(m Member) bool { return m.ID == s.ID || m.Addr == s.Addr })
		if taken || s.ID == "" || s.Addr == "" {
			return nil, fmt.Errorf("%w: %q at %q cannot be added", ErrMember, s.ID, s.Addr)
		}
		return func(timeout time.Duration) raft.IndexFuture {
			return g.raft.AddNonvoter(raft.ServerID(s.ID), raft.ServerAddress(s.Addr), index, timeout)
		}, nil
	})
}

// Promote makes a learner a voter. One that is far behind delays commits that need
// its vote: see Behind. See AddLearner for index and the error.
func (g *Group) Promote(ctx context.Context, id string, index uint64) error {
	return g.change(ctx, index, func(c Configuration) (func(timeout time.Duration) raft.IndexFuture, error) {
		m, ok := c.Member(id)
		if !ok || m.Voter {
			return nil, fmt.Errorf("%w: %q is no learner", ErrMember, id)
		}
		return func(timeout time.Duration) raft.IndexFuture {
			return g.raft.AddVoter(raft.ServerID(id), raft.ServerAddress(m.Addr), index, timeout)
		}, nil
	})
}

// Remove ends the membership of a replica; whoever holds it closes it. A leader that
// removes itself ceases to lead, and the next one is elected after a timeout: better
// let another lead before, by TransferTo. The last voter cannot be removed. See
// AddLearner for index and the error.
func (g *Group) Remove(ctx context.Context, id string, index uint64) error {
	return g.change(ctx, index, func(c Configuration) (func(timeout time.Duration) raft.IndexFuture, error) {
		if _, ok := c.Member(id); !ok {
			return nil, fmt.Errorf("%w: there is no %q", ErrMember, id)
		}
		if !slices.ContainsFunc(c.Members, func(m Member) bool { return m.Voter && m.ID != id }) {
			return nil, fmt.Errorf("%w: %q is the last voter", ErrMember, id)
		}
		return func(timeout time.Duration) raft.IndexFuture {
			return g.raft.RemoveServer(raft.ServerID(id), index, timeout)
		}, nil
	})
}

// change makes the change that decide returns for the present configuration, if that
// is the one with index.
func (g *Group) change(ctx context.Context, index uint64, decide func(Configuration) (func(timeout time.Duration) raft.IndexFuture, error)) error {
	if err := ctx.Err(); err != nil {
		return notApplied(err)
	}
	if g.raft.State() != raft.Leader {
		return g.notLeader()
	}
	present := g.Configuration()
	if index == 0 || present.Index != index {
		return notApplied(ErrConfigurationChanged)
	}
	start, err := decide(present)
	if err != nil {
		return notApplied(err)
	}
	return g.submit(ctx, 0, func(timeout time.Duration) raft.Future { return changeFuture{start(timeout)} })
}

// changeFuture tells apart a change that Raft refused by the index, for which it has
// no error that can be matched, and one that was appended and failed then.
type changeFuture struct{ raft.IndexFuture }

func (f changeFuture) Error() error {
	err := f.IndexFuture.Error()
	switch {
	case err == nil || f.Index() != 0:
		return err
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress),
		errors.Is(err, raft.ErrEnqueueTimeout), errors.Is(err, raft.ErrRaftShutdown):
		return err
	}
	return ErrConfigurationChanged
}

// TransferTo hands the leadership to the voter called id, and returns when this
// replica does not lead any more; that the other one does is likely, not certain.
// Proposals are refused meanwhile, for an election timeout at most. The error matches
// ErrNotLeader or ErrMember, or is that of ctx, or of Raft; this replica may still
// lead then.
func (g *Group) TransferTo(ctx context.Context, id string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if g.raft.State() != raft.Leader {
		return g.notLeader()
	}
	voters, err := g.voters()
	if err != nil {
		return err
	}
	i := slices.IndexFunc(voters, func(s Server) bool { return s.ID == id && id != g.cfg.ID })
	if i < 0 {
		return fmt.Errorf("%w: %q is no other voter", ErrMember, id)
	}
	if err := g.begin(0); err != nil {
		return err
	}
	_, err = g.await(ctx, 0, func(time.Duration) raft.Future {
		return g.raft.LeadershipTransferToServer(raft.ServerID(id), raft.ServerAddress(voters[i].Addr))
	})
	if errors.Is(err, raft.ErrNotLeader) {
		return g.notLeader()
	}
	return err
}

// Behind is how many entries a member lacks of the log of its leader, this replica,
// as far as its answers tell; not known before the first one, and where this replica
// does not lead.
func (g *Group) Behind(id string) (entries uint64, known bool) {
	term, leads := g.leads()
	if !leads {
		return 0, false
	}
	last := g.raft.LastIndex()
	if id == g.cfg.ID {
		return 0, true
	}
	f, known := g.progress.of(term)[raft.ServerID(id)]
	if !known || f.match == 0 {
		return 0, false
	}
	return last - min(last, f.match), true
}
