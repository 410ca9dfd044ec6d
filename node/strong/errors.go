package strong

import (
	"context"
	"errors"
	"fmt"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/consensus/group"
	"github.com/meshkv/meshkv/consensus/machine"
	"github.com/meshkv/meshkv/consensus/replica"
)

// refusals say what the errors of the machine are to users.
var refusals = []struct{ is, as error }{
	{machine.ErrTooLarge, client.ErrTooLarge},
	{machine.ErrCompacted, client.ErrCompacted},
	{machine.ErrFutureRevision, client.ErrFutureRevision},
	{machine.ErrDuplicateKey, client.ErrBadRequest},
	{machine.ErrMalformed, client.ErrBadRequest},
	{machine.ErrKeyNotFound, client.ErrNotFound},
	{machine.ErrNoSpace, client.ErrFull},
	{machine.ErrLeaseNotFound, client.ErrSessionLost},
	{machine.ErrLeaseExists, client.ErrConflict},
	{machine.ErrLocked, client.ErrConflict},
	{machine.ErrLockKind, client.ErrConflict},
	{machine.ErrNotHeld, client.ErrNotHeld},
	{machine.ErrTooManyWaiters, client.ErrOverloaded},
	{machine.ErrPoolNotFound, client.ErrNotFound},
	{machine.ErrPoolInUse, client.ErrConflict},
	{machine.ErrPoolExhausted, client.ErrPoolExhausted},
	{machine.ErrRequestForgotten, client.ErrUnknownOutcome},
}

// failure is err as users see it.
func failure(err error) error {
	if err == nil {
		return nil
	}
	for _, r := range refusals {
		if errors.Is(err, r.is) && !errors.Is(err, group.ErrUnknownOutcome) {
			return fmt.Errorf("%w: %w", r.as, err)
		}
	}
	switch {
	case errors.Is(err, group.ErrUnknownOutcome):
		return fmt.Errorf("%w: %w", client.ErrUnknownOutcome, err)
	case errors.Is(err, group.ErrOverloaded):
		return fmt.Errorf("%w: %w", client.ErrOverloaded, err)
	case errors.Is(err, replica.ErrNoLeader):
		return fmt.Errorf("%w: %w", client.ErrNoQuorum, err)
	case errors.Is(err, group.ErrClosed), errors.Is(err, replica.ErrWatchClosed):
		return fmt.Errorf("%w: the keyspace is no longer served here: %w", client.ErrUnavailable, err)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return fmt.Errorf("%w: %w", client.ErrTimeout, err)
	}
	return err
}
