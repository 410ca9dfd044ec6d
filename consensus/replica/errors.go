package replica

import (
	"errors"
	"fmt"

	"github.com/meshkv/meshkv/consensus/calls"
	"github.com/meshkv/meshkv/consensus/group"
	"github.com/meshkv/meshkv/consensus/machine"
)

// ErrNoLeader: no leader answered in the time of the call. It was not applied.
var ErrNoLeader = errors.New("no leader with a majority answered")

// Codes of refusals that members give each other. Part of the protocol: append only.
const (
	refusedNotLeader uint8 = iota + 1 // the detail is the id of the leader, if known
	refusedOverloaded
	refusedUnknown
	refusedSession
	refusedOther
	refusedNotApplied
)

// Absent is the refusal of a node that has no replica of the group: another may lead it.
func Absent() *calls.Refusal { return &calls.Refusal{Code: refusedNotLeader} }

// refusal is err on its way to another member.
func refusal(err error) *calls.Refusal {
	var nl *group.NotLeaderError
	switch {
	case errors.Is(err, group.ErrUnknownOutcome): // before all others: why it is not known may be one of them
		return &calls.Refusal{Code: refusedUnknown, Detail: err.Error()}
	case errors.As(err, &nl):
		return &calls.Refusal{Code: refusedNotLeader, Detail: nodeOf(nl.Leader.Addr)}
	case errors.Is(err, group.ErrOverloaded):
		return &calls.Refusal{Code: refusedOverloaded, Detail: err.Error()}
	case errors.Is(err, group.ErrClosed):
		return &calls.Refusal{Code: refusedNotLeader}
	case errors.Is(err, machine.ErrLeaseNotFound):
		return &calls.Refusal{Code: refusedSession, Detail: err.Error()}
	case errors.Is(err, group.ErrNotApplied):
		return &calls.Refusal{Code: refusedNotApplied, Detail: err.Error()}
	}
	return &calls.Refusal{Code: refusedOther, Detail: err.Error()}
}

// refused is what another member's refusal means here.
func refused(r *calls.Refusal) error {
	switch r.Code {
	case refusedNotLeader:
		return &group.NotLeaderError{Leader: group.Server{Addr: r.Detail}}
	case refusedOverloaded:
		return fmt.Errorf("%w: %w: %s", group.ErrNotApplied, group.ErrOverloaded, r.Detail)
	case refusedNotApplied:
		return fmt.Errorf("%w: %s", group.ErrNotApplied, r.Detail)
	case refusedSession:
		return machine.ErrLeaseNotFound
	}
	return fmt.Errorf("%w: %s", group.ErrUnknownOutcome, r.Detail)
}
