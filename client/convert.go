package client

import (
	"context"
	"errors"
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
	out := Event{Reason: Reason(e.Reason), Cursor: Cursor(e.Cursor)}
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

// remoteError is the error of a code of the contract.
func remoteError(code, message string) error {
	var err error
	switch code {
	case "not_found":
		err = ErrNotFound
	case "bad_request":
		err = ErrBadRequest
	case "too_large":
		err = ErrTooLarge
	case "conflict":
		err = ErrConflict
	case "needs_strong":
		err = ErrNeedsStrong
	case "wrong_type":
		err = ErrWrongType
	case "denied":
		err = ErrDenied
	case "overloaded":
		err = ErrOverloaded
	case "not_caught_up":
		err = ErrNotCaughtUp
	case "joining":
		err = ErrJoining
	case "draining":
		err = ErrDraining
	case "no_quorum":
		err = ErrNoQuorum
	case "unavailable":
		err = ErrUnavailable
	case "timeout":
		err = ErrTimeout
	case "unknown_outcome":
		err = ErrUnknownOutcome
	case "canceled":
		err = context.Canceled
	default:
		err = errors.New(code)
	}
	return &nodeError{message, err}
}
