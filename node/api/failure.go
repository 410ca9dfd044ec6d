package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/meshkv/meshkv/client"
)

// failure is an index into failures.
type failure int

// failures are the errors of the contract: the code and status of each
// sentinel. The first that matches counts, so an unknown outcome is never
// reported as a mere timeout. The last stands for everything else.
var failures = [...]struct {
	err    error
	code   string
	status int
}{
	{nil, "ok", http.StatusOK},
	{client.ErrUnknownOutcome, "unknown_outcome", http.StatusGatewayTimeout},
	{client.ErrWriteConcern, "write_concern", http.StatusServiceUnavailable},
	{client.ErrNotFound, "not_found", http.StatusNotFound},
	{client.ErrTooLarge, "too_large", http.StatusRequestEntityTooLarge},
	{client.ErrBadRequest, "bad_request", http.StatusBadRequest},
	{client.ErrRights, "rights", http.StatusConflict},
	{client.ErrConflict, "conflict", http.StatusConflict},
	{client.ErrSessionLost, "session_lost", http.StatusConflict},
	{client.ErrNotHeld, "not_held", http.StatusConflict},
	{client.ErrPoolExhausted, "exhausted", http.StatusConflict},
	{client.ErrCompacted, "compacted", http.StatusGone},
	{client.ErrFutureRevision, "future_revision", http.StatusBadRequest},
	{client.ErrFull, "full", http.StatusInsufficientStorage},
	{client.ErrNeedsEventual, "needs_eventual", http.StatusPreconditionFailed},
	{client.ErrNeedsStrong, "needs_strong", http.StatusPreconditionFailed},
	{client.ErrWrongType, "wrong_type", http.StatusPreconditionFailed},
	{client.ErrDenied, "denied", http.StatusForbidden},
	{client.ErrFrozen, "frozen", http.StatusConflict},
	{client.ErrOverloaded, "overloaded", http.StatusTooManyRequests},
	{client.ErrNotCaughtUp, "not_caught_up", http.StatusServiceUnavailable},
	{client.ErrJoining, "joining", http.StatusServiceUnavailable},
	{client.ErrDraining, "draining", http.StatusServiceUnavailable},
	{client.ErrNoQuorum, "no_quorum", http.StatusServiceUnavailable},
	{client.ErrUnavailable, "unavailable", http.StatusServiceUnavailable},
	{client.ErrClosed, "draining", http.StatusServiceUnavailable}, // a backend that closed is a node that stops
	{client.ErrTimeout, "timeout", http.StatusGatewayTimeout},
	{context.DeadlineExceeded, "timeout", http.StatusGatewayTimeout},
	{context.Canceled, "canceled", 499}, // the client went away: nobody reads this
	{nil, "internal", http.StatusInternalServerError},
}

const codes = failure(len(failures))

func failureOf(err error) failure {
	if err == nil {
		return 0
	}
	for i := failure(1); i < codes-1; i++ {
		if errors.Is(err, failures[i].err) {
			return i
		}
	}
	return codes - 1
}

// concernOf is the error of a write that too few members acknowledged, or nil.
func concernOf(err error) *client.WriteConcernError {
	var c *client.WriteConcernError
	if errors.As(err, &c) {
		return c
	}
	return nil
}

// writeFailure is the error of a write that ended with err. One that ran out of
// time may still take effect, unless it is said that it had no quorum in that time.
func writeFailure(err error) error {
	if err == nil || errors.Is(err, client.ErrUnknownOutcome) || errors.Is(err, client.ErrNoQuorum) {
		return err
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) || errors.Is(err, client.ErrTimeout) {
		return fmt.Errorf("%w: %w", client.ErrUnknownOutcome, err)
	}
	return err
}

var (
	errTooManyWatches  = fmt.Errorf("%w: the node serves as many watches as it may", client.ErrOverloaded)
	errTooManyInflight = fmt.Errorf("%w: the node has as many request bytes in flight as it may", client.ErrOverloaded)
)
