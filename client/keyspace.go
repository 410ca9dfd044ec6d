package client

import (
	"context"
	"iter"
	"time"
)

// A Keyspace is one named key-value space. The same interface is served by an
// embedded node and by a remote client. Safe for concurrent use.
//
// Keys are 1 to 1,024 opaque bytes; prefixes are literal bytes. Errors can be
// matched with errors.Is against the sentinels of this package.
type Keyspace interface {
	// Name of the keyspace.
	Name() string

	// Put stores value under key. On an eventual keyspace it is served by the
	// node alone, without waiting for any other. The value may be modified
	// after Put returns.
	Put(ctx context.Context, key string, value []byte, o *PutOptions) (Version, error)

	// Get returns the newest value of key, or ErrNotFound. Entry.Value is
	// shared and must not be modified.
	Get(ctx context.Context, key string, o *GetOptions) (Entry, error)

	// Delete removes every value of key that the serving node holds. Deleting
	// a key that does not exist is no error and reports Deleted = false.
	Delete(ctx context.Context, key string, o *DeleteOptions) (Deletion, error)

	// List yields the entries under prefix in byte order of the key. It ends
	// after the first error.
	List(ctx context.Context, prefix string, o *ListOptions) iter.Seq2[Entry, error]

	// Update carries out all changes or none, on the data types of an eventual keyspace.
	// They are one op: visible together at the serving node, and wherever they arrive by
	// broadcast; where a node reconciles after a gap, they may come in parts. ErrWrongType
	// if a key has another type, ErrRights, ErrUpdateSize. The Version is that of the op.
	// Paths and values may be modified after Update returns.
	Update(ctx context.Context, changes []Change, o *UpdateOptions) (Version, error)

	// View returns all of key but its elements, whatever its type, or ErrNotFound. Of o,
	// After is used. A set, map or log without elements is no key.
	View(ctx context.Context, key string, o *GetOptions) (View, error)

	// Elements yields the elements of a set in byte order, the fields of a map in that of
	// their paths, or the entries of a log, oldest first. It takes them page by page:
	// what changes meanwhile may or may not be seen. It ends after the first error:
	// ErrNotFound, or ErrWrongType if the key has no elements.
	Elements(ctx context.Context, key string, o *ElementsOptions) iter.Seq2[Element, error]

	// Watch yields the state under prefix and then its changes. The caller
	// must Close the watch.
	Watch(ctx context.Context, prefix string, o *WatchOptions) (Watch, error)

	// Info describes the keyspace as the serving node sees it.
	Info(ctx context.Context) (KeyspaceInfo, error)

	// Digest summarises the contents; equal digests mean equal contents.
	Digest(ctx context.Context) (Digest, error)
}

// A Watch is one stream of events. Next and Close may be called from different
// goroutines; Next itself from one at a time.
type Watch interface {
	// Next blocks until there is an event, ctx ends, or the watch fails or is
	// closed (ErrClosed).
	Next(ctx context.Context) (Event, error)
	// Close releases the watch. It may be called twice.
	Close() error
}

// PutOptions modify a Put. Nil and zero values are usable.
type PutOptions struct {
	// TTL hides the entry that long after the Put. 0: it does not expire.
	TTL time.Duration
	// Ephemeral binds the entry to the life of the node that executes the Put:
	// it is hidden while that node has failed, and for ever once it left or
	// started anew.
	Ephemeral bool
	// Durable waits until the entry is on the serving node's disk, and on that of
	// each member that Acks counts.
	Durable bool
	// Acks waits until so many members have the entry: eventual keyspaces only.
	Acks AckPolicy
	// IfAbsent and IfVersion make the Put conditional: strong keyspaces only.
	IfAbsent  bool
	IfVersion Version
	// Session ends the entry when it ends: strong keyspaces only.
	Session SessionID
}

// GetOptions modify a Get. Nil and zero values are usable.
type GetOptions struct {
	// Linearizable asks for the newest committed value: strong keyspaces only,
	// where it is the default.
	Linearizable bool
	// Local asks for the value that the serving node holds, without asking any
	// other: the default of eventual keyspaces.
	Local bool
	// Revision reads the value of that revision: strong keyspaces only. 0: now.
	Revision uint64
	// After waits until the serving node has seen the writes named by the
	// token, and returns ErrNotCaughtUp if ctx ends first.
	After Token
	// Siblings also returns the concurrent values.
	Siblings bool
}

// DeleteOptions modify a Delete. Nil and zero values are usable.
type DeleteOptions struct {
	// Durable and Acks are as in PutOptions.
	Durable bool
	Acks    AckPolicy
	// IfVersion makes the Delete conditional: strong keyspaces only.
	IfVersion Version
}

// ListOptions modify a List. Nil and zero values are usable.
type ListOptions struct {
	// Limit bounds the number of entries. 0: no bound.
	Limit int
	// After skips every key up to and including this one.
	After string
	// KeysOnly leaves out the values.
	KeysOnly bool
	// Local and Revision are as in GetOptions.
	Local    bool
	Revision uint64
}

// WatchOptions modify a Watch. Nil and zero values are usable.
type WatchOptions struct {
	// From resumes after the event that carried this cursor. Where the serving
	// node cannot resume exactly, the first event is a resync and a full
	// snapshot follows.
	From Cursor
	// UpdatesOnly skips the snapshot.
	UpdatesOnly bool
	// Exact makes the watch of a strong keyspace fail with ErrCompacted, instead of a
	// resync, where the history since From is kept no longer.
	Exact bool
	// Only leaves out all events of other kinds, those of the snapshot included, but never
	// synced and resync. 0: none is left out.
	Only EventSet
	// NotMine leaves out the changes that Puts and Deletes at the serving node made, whoever
	// asked for them there; the snapshot is whole, and so is what stands for changes that
	// were missed. Eventual keyspaces only: ErrNeedsEventual, at the first entry at the latest.
	NotMine bool

	// untracked makes a remote watch keep no entries: after changes that were missed it
	// gives a resync and a snapshot, which a Map compares itself.
	untracked bool
}
