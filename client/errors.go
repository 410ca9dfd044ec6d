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
	ErrFrozen         = errors.New("keyspace is frozen") // its operators take no writes for now
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

// Errors of strong keyspaces.
var (
	ErrSessionLost    = errors.New("session lost")                    // it has expired, was ended or is not known
	ErrNotHeld        = errors.New("not held")                        // the token holds nothing here, or no longer
	ErrCompacted      = errors.New("revision was compacted")          // older than the history that is kept
	ErrFutureRevision = errors.New("revision is in the future")       // the keyspace has not come to it yet
	ErrFull           = errors.New("keyspace is full")                // its quota or the disk; deletes and reads go on
	ErrPoolExhausted  = errors.New("nothing suitable is free")        // of the pool
	ErrNeedsEventual  = errors.New("not offered by strong keyspaces") // the text says what to use
)
