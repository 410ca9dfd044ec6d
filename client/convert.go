package client

import (
	"context"
	"errors"
	"math"
	"time"

	"github.com/meshkv/meshkv/client/wire"
)

func versionOf(v wire.Version) Version { return Version{Inc: v.Inc, Seq: v.Seq} }

func timeOf(nanos int64) time.Time {
	if nanos == 0 {
		return time.Time{}
	}
	return time.Unix(0, nanos)
}

// entryOf shares e's values.
func entryOf(e *wire.Entry) Entry {
	out := Entry{
		Key:       e.Key,
		Type:      Type(e.Type),
		Value:     e.Value,
		Version:   versionOf(e.Version),
		Origin:    e.Origin,
		Modified:  timeOf(e.Modified),
		Expires:   timeOf(e.Expires),
		Ephemeral: e.Ephemeral,
	}
	for _, s := range e.Siblings {
		out.Siblings = append(out.Siblings, Sibling{Value: s.Value, Version: versionOf(s.Version), Origin: s.Origin, Modified: timeOf(s.Modified)})
	}
	return out
}

// eventOf copies e's values.
func eventOf(e *wire.Event) Event {
	out := Event{Reason: Reason(e.Reason), Cursor: Cursor(e.Cursor), More: e.More, Mine: e.Mine}
	switch e.Type {
	case wire.EventPut:
		out.Type = EventPut
	case wire.EventDelete:
		out.Type = EventDelete
	case wire.EventSynced:
		out.Type = EventSynced
	case wire.EventResync:
		out.Type = EventResync
	default:
		out.Type = EventHeartbeat // of no meaning to this version
	}
	ownEntry(&e.Entry)
	out.Entry = entryOf(&e.Entry)
	if e.Prev != nil {
		ownEntry(e.Prev)
		prev := entryOf(e.Prev)
		out.Prev = &prev
	}
	return out
}

// A nodeError is an error that a node answered: its text and the sentinel of
// its code.
type nodeError struct {
	message string
	err     error
}

func (e *nodeError) Error() string { return e.message }
func (e *nodeError) Unwrap() error { return e.err }

// remoteError is the error of a reply, by its code of the contract.
func remoteError(r *wire.Reply) error {
	if r.Code == "write_concern" {
		return &nodeError{r.Message, &WriteConcernError{Acked: int(min(r.Acked, math.MaxInt32)), Want: int(min(r.Want, math.MaxInt32))}}
	}
	err, ok := errorOf[r.Code]
	if !ok {
		err = errors.New(r.Code)
	}
	return &nodeError{r.Message, err}
}

// errorOf are the sentinels by their codes. Never modified.
var errorOf = map[string]error{
	"not_found":       ErrNotFound,
	"bad_request":     ErrBadRequest,
	"too_large":       ErrTooLarge,
	"conflict":        ErrConflict,
	"rights":          ErrRights,
	"needs_strong":    ErrNeedsStrong,
	"needs_eventual":  ErrNeedsEventual,
	"wrong_type":      ErrWrongType,
	"denied":          ErrDenied,
	"frozen":          ErrFrozen,
	"overloaded":      ErrOverloaded,
	"not_caught_up":   ErrNotCaughtUp,
	"joining":         ErrJoining,
	"draining":        ErrDraining,
	"no_quorum":       ErrNoQuorum,
	"unavailable":     ErrUnavailable,
	"timeout":         ErrTimeout,
	"unknown_outcome": ErrUnknownOutcome,
	"canceled":        context.Canceled,
	"session_lost":    ErrSessionLost,
	"not_held":        ErrNotHeld,
	"compacted":       ErrCompacted,
	"future_revision": ErrFutureRevision,
	"full":            ErrFull,
	"exhausted":       ErrPoolExhausted,
}
