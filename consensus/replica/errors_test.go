package replica

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/meshkv/meshkv/consensus/group"
	"github.com/meshkv/meshkv/consensus/machine"
)

// What an error means is the same on both sides of a call; in no case becomes one that may have had an
// effect one that had none.
func TestRefusals(t *testing.T) {
	all := []error{group.ErrNotApplied, group.ErrNotLeader, group.ErrUnknownOutcome, group.ErrOverloaded, machine.ErrLeaseNotFound}
	for _, tt := range []struct {
		err  error
		want []error
	}{
		{&group.NotLeaderError{Leader: group.Server{ID: "n1/d", Addr: "n1/d"}}, []error{group.ErrNotApplied, group.ErrNotLeader}},
		{errors.Join(group.ErrNotApplied, group.ErrOverloaded), []error{group.ErrNotApplied, group.ErrOverloaded}},
		{errors.Join(group.ErrNotApplied, group.ErrClosed), []error{group.ErrNotApplied, group.ErrNotLeader}},
		{errors.Join(group.ErrNotApplied, context.DeadlineExceeded), []error{group.ErrNotApplied}},
		{errors.Join(group.ErrUnknownOutcome, group.ErrClosed), []error{group.ErrUnknownOutcome}},
		{errors.Join(group.ErrUnknownOutcome, context.DeadlineExceeded), []error{group.ErrUnknownOutcome}},
		{machine.ErrLeaseNotFound, []error{machine.ErrLeaseNotFound}},
		{errors.New("anything"), []error{group.ErrUnknownOutcome}},
	} {
		got := refused(refusal(tt.err))
		for _, e := range all {
			if errors.Is(got, e) != slices.Contains(tt.want, e) {
				t.Errorf("%v arrives as %v, want %v", tt.err, got, tt.want)
			}
		}
	}
	var nl *group.NotLeaderError
	if err := refused(refusal(&group.NotLeaderError{Leader: group.Server{Addr: "n1/d"}})); !errors.As(err, &nl) || nodeOf(nl.Leader.Addr) != "n1" {
		t.Errorf("the leader arrives as %v", err)
	}
}
