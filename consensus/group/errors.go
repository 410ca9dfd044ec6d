package group

import (
	"errors"
	"fmt"

	"github.com/hashicorp/raft"
)

// Errors reported by groups. Match with errors.Is.
var (
	// ErrNotApplied: the command was not applied, and will not be. It may be
	// proposed again.
	ErrNotApplied = errors.New("not applied")
	// ErrUnknownOutcome: the command may or may not take effect, now or later.
	ErrUnknownOutcome = errors.New("outcome unknown")
	// ErrNotLeader: this node does not lead the group, or does no longer, or could
	// not prove it to a majority. It comes with ErrNotApplied; see NotLeaderError.
	ErrNotLeader = errors.New("not the leader")
	// ErrOverloaded: too much is in flight. It comes with ErrNotApplied.
	ErrOverloaded = errors.New("overloaded")
	// ErrConfigurationChanged: the change was decided on another configuration than
	// the present one. It comes with ErrNotApplied; look again and decide anew.
	ErrConfigurationChanged = errors.New("the configuration has changed")
	// ErrMember: the change makes no sense in that configuration: there is no such
	// member, or there is one already. It comes with ErrNotApplied.
	ErrMember = errors.New("no such change of members")
	// ErrClosed: the group was closed before the call. It comes with ErrNotApplied.
	ErrClosed = errors.New("group is closed")
)

// A NotLeaderError says who leads the group, as far as this node knows. It matches
// ErrNotLeader and ErrNotApplied.
type NotLeaderError struct {
	Leader Server // zero if unknown
}

func (e *NotLeaderError) Error() string {
	if e.Leader.ID == "" {
		return fmt.Sprintf("%v: no leader is known", ErrNotLeader)
	}
	return fmt.Sprintf("%v: that is %s at %s", ErrNotLeader, e.Leader.ID, e.Leader.Addr)
}

// Unwrap makes a NotLeaderError match its sentinels.
func (e *NotLeaderError) Unwrap() []error { return []error{ErrNotLeader, ErrNotApplied} }

func notApplied(why error) error { return fmt.Errorf("%w: %w", ErrNotApplied, why) }

func unknown(why error) error { return fmt.Errorf("%w: %w", ErrUnknownOutcome, why) }

func (g *Group) notLeader() error {
	addr, id := g.raft.LeaderWithID()
	if id == raft.ServerID(g.cfg.ID) { // it is about to change
		return &NotLeaderError{}
	}
	return &NotLeaderError{Leader: Server{ID: string(id), Addr: string(addr)}}
}

// outcome sorts what Raft says of an entry. Only what was refused before it was
// appended is known not to be applied: an entry of a leader that lost its place
// may still be committed by the next.
func (g *Group) outcome(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return g.notLeader()
	case errors.Is(err, ErrConfigurationChanged):
		return notApplied(err)
	case errors.Is(err, raft.ErrEnqueueTimeout):
		return notApplied(ErrOverloaded)
	}
	return unknown(err)
}
