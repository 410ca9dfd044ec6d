package machine

import "errors"

// Errors of commands and reads. A command that ends with one has changed nothing.
var (
	// ErrMalformed: the bytes are no command, or one beyond the limits.
	ErrMalformed = errors.New("malformed command")
	// ErrUnknownVersion: the command or snapshot was written by a later version.
	ErrUnknownVersion = errors.New("unknown version of the encoding")
	// ErrUnknownCommand: the kind of command is of a later version.
	ErrUnknownCommand = errors.New("unknown command")
	// ErrApplied: the index is not above the last one, so this was applied before.
	ErrApplied = errors.New("index applied already")
	// ErrTooLarge: the command is too long, or would read more than it may.
	ErrTooLarge = errors.New("too large")
	// ErrCompacted: the revision is older than the history that is kept.
	ErrCompacted = errors.New("revision was compacted")
	// ErrFutureRevision: the keyspace has not come to the revision yet.
	ErrFutureRevision = errors.New("revision is in the future")
	// ErrDuplicateKey: a transaction would change one key twice.
	ErrDuplicateKey = errors.New("key changed twice in one transaction")
	// ErrKeyNotFound: a Put that keeps the value or lease of a key that is not there.
	ErrKeyNotFound = errors.New("key not found")
	// ErrNoSpace: the quota is used up. Deletes, compaction and reads go on.
	ErrNoSpace = errors.New("quota exceeded")
	// ErrLeaseNotFound: the lease was not granted, was revoked or has expired.
	ErrLeaseNotFound = errors.New("lease not found")
	// ErrLeaseExists: the chosen id is in use.
	ErrLeaseExists = errors.New("lease exists")
	// ErrLocked: the lock is not free and the command does not wait.
	ErrLocked = errors.New("locked by another")
	// ErrLockKind: the lock is in use in another way: with or without places, with
	// another number of places, or by the same claim in another mode.
	ErrLockKind = errors.New("lock is used in another way")
	// ErrNotHeld: the token or claim holds nothing here, or no longer.
	ErrNotHeld = errors.New("not held")
	// ErrTooManyWaiters: the queue of the lock is full.
	ErrTooManyWaiters = errors.New("too many waiters")
	// ErrPoolNotFound: no pool has this name.
	ErrPoolNotFound = errors.New("pool not found")
	// ErrPoolInUse: blocks are allocated that the change would leave outside.
	ErrPoolInUse = errors.New("pool in use")
	// ErrPoolExhausted: no block of that size, or not the one asked for, is free.
	ErrPoolExhausted = errors.New("nothing suitable is free in the pool")
	// ErrRequestForgotten: whether this request was applied before is no longer
	// known, so it was not applied now.
	ErrRequestForgotten = errors.New("request forgotten")
	// ErrSnapshot: the bytes are no snapshot, or a damaged one.
	ErrSnapshot = errors.New("damaged snapshot")
)

// resultErrors are the errors that a recorded result can have, by their code. The
// order is part of the snapshot format: append only.
var resultErrors = [...]error{
	nil, ErrTooLarge, ErrCompacted, ErrFutureRevision, ErrDuplicateKey, ErrKeyNotFound, ErrNoSpace, ErrLeaseNotFound, ErrLeaseExists,
	ErrLocked, ErrLockKind, ErrNotHeld, ErrTooManyWaiters, ErrPoolNotFound, ErrPoolInUse, ErrPoolExhausted,
}
