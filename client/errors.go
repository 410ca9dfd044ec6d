package client

import "errors"

// Errors of every operation, embedded or remote. Match with errors.Is.
var (
	ErrNotFound       = errors.New("not found")
	ErrBadRequest     = errors.New("bad request")
	ErrTooLarge       = errors.New("too large")
	ErrConflict       = errors.New("conflict")
	ErrNeedsStrong    = errors.New("needs a strong keyspace")
	ErrWrongType      = errors.New("key has another type")
	ErrDenied         = errors.New("denied")
	ErrOverloaded     = errors.New("overloaded: try again later")
	ErrNotCaughtUp    = errors.New("not caught up with the token")
	ErrJoining        = errors.New("joining: the first synchronisation is not complete")
	ErrDraining       = errors.New("draining: the node is stopping")
	ErrNoQuorum       = errors.New("no quorum")
	ErrUnavailable    = errors.New("node not reachable")
	ErrTimeout        = errors.New("timeout")
	ErrUnknownOutcome = errors.New("outcome unknown") // the write may or may not have been applied
	ErrClosed         = errors.New("closed")
)
