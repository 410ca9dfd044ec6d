package storage

import (
	"context"
	"errors"
	"fmt"

	"github.com/meshkv/meshkv/crdt"
)

// Errors of stores and writers. Match with errors.Is.
var (
	// ErrLocked: another process, or another Store, has the directory.
	ErrLocked = errors.New("in use by another process")
	// ErrDamaged: what is on disk failed verification. See DamageError.
	ErrDamaged = errors.New("store is damaged")
	// ErrFormat: the files were written in a format that this version does not
	// know. It comes with ErrDamaged; a newer version may still read them.
	ErrFormat = errors.New("unknown format version")
	// ErrFailed: an earlier write or fsync failed, so the outcome of that commit
	// is unknown and the store takes no more. Close it and open it again.
	ErrFailed = errors.New("store failed")
	// ErrNotLoaded: Commit before the first successful Load.
	ErrNotLoaded = errors.New("store is not loaded")
	// ErrClosed: the store or the writer was closed.
	ErrClosed = errors.New("store is closed")
	// ErrInvalid: a batch that could not be read back. Nothing was written.
	ErrInvalid = errors.New("invalid batch")
)

// A DamageError says which file failed verification, and how. It matches
// ErrDamaged.
type DamageError struct {
	File   string // path of the file, or of the directory if a file is missing
	Reason string
	Cause  error // may be nil
}

func (e *DamageError) Error() string {
	return fmt.Sprintf("%v: %s: %s", ErrDamaged, e.File, e.Reason)
}

// Unwrap makes a DamageError match ErrDamaged and its cause.
func (e *DamageError) Unwrap() []error {
	if e.Cause == nil {
		return []error{ErrDamaged}
	}
	return []error{ErrDamaged, e.Cause}
}

// A Batch is one atomic step of the store. Its slices belong to the caller again
// when Commit returns; the cells are immutable and may be kept by the store.
type Batch struct {
	Keyspaces []KeyspaceBatch
	HLCBound  crdt.HLC // raises the persisted bound; 0, or a lower value, leaves it
}

// A KeyspaceBatch is what a batch changes in one keyspace. No dot may be both in
// Put and in Drop, or both in PendingAdd and in PendingDrop. A dot is put at most
// once between two resets of the keyspace, since no dot is issued twice and one
// that was dropped never lives again.
type KeyspaceBatch struct {
	Name string // 1..MaxNameBytes
	// Reset: all that the keyspace held is gone, and the rest of the batch begins
	// it anew. With no rest there is no such keyspace any more.
	Reset       bool
	Put         []*crdt.Cell // new live cells, provisional ones too
	Drop        []crdt.Dot   // cells that are gone; unknown dots are ignored
	Clock       []ClockEntry // new values of changed entries
	PendingAdd  []crdt.Dot
	PendingDrop []crdt.Dot
}

// gone reports whether the batch leaves no keyspace.
func (ks *KeyspaceBatch) gone() bool {
	return ks.Reset && len(ks.Put)+len(ks.Drop)+len(ks.Clock)+len(ks.PendingAdd)+len(ks.PendingDrop) == 0
}

// MaxNameBytes is the longest name of a keyspace.
const MaxNameBytes = 255

// A ClockEntry is the entry of one incarnation. An entry that knows nothing
// takes the incarnation out of the clock.
type ClockEntry struct {
	Inc   crdt.Inc
	Entry crdt.Entry
}

// State is all that a store holds, taken together.
type State struct {
	HLCBound  crdt.HLC
	NodeID    string // random, minted with the directory
	Keyspaces map[string]KeyspaceState
}

// KeyspaceState is one keyspace's part of a State. It belongs to the caller.
type KeyspaceState struct {
	Cells   []*crdt.Cell // in no particular order
	Clock   *crdt.Clock
	Pending crdt.Dots
}

// A Store holds the state of a node. All methods are safe for concurrent use;
// commits take effect one after the other.
type Store interface {
	// Load verifies and returns everything. It must succeed once before Commit
	// is called, and may be called again. The error matches ErrDamaged if
	// verification failed: Close the store, and Discard the directory.
	Load(ctx context.Context) (State, error)
	// Commit makes b durable: it is on disk when Commit returns nil. With
	// ErrInvalid, ErrNotLoaded or ErrClosed, or if ctx was done before it began,
	// nothing was written. After any other error the outcome is unknown and the
	// store takes no more commits (ErrFailed).
	Commit(ctx context.Context, b Batch) error
	// Stats are counts since the store was opened, and sizes now.
	Stats() Stats
	// Close releases everything. It may be called more than once.
	Close() error
}

// Stats describes a store.
type Stats struct {
	Path             string // of the directory; empty in memory
	DataBytes        int64  // of the file of checkpointed cells
	LogBytes         int64  // of the log that a Load would have to replay
	LogSegments      int
	Commits          uint64
	CommittedBytes   uint64  // payload written to the log
	Checkpoints      uint64  // completed
	CheckpointSecs   float64 // spent in them, pauses included
	CheckpointWrites uint64  // cells written and deleted by them
	ThrottledCommits uint64  // that waited because the log was at its bound
}

// checkBatch refuses what could not be read back.
func checkBatch(b *Batch) error {
	for i := range b.Keyspaces {
		ks := &b.Keyspaces[i]
		if len(ks.Name) == 0 || len(ks.Name) > MaxNameBytes {
			return fmt.Errorf("%w: keyspace name of %d bytes", ErrInvalid, len(ks.Name))
		}
		for _, c := range ks.Put {
			if err := checkCell(c); err != nil {
				return fmt.Errorf("%w: %w", ErrInvalid, err)
			}
		}
		for _, e := range ks.Clock {
			// The entry of no incarnation holds the birth horizon (crdt.Clock).
			if en := e.Entry; e.Inc == 0 && (len(en.Islands) > 0 || en.Closed || en.Sealed) {
				return fmt.Errorf("%w: clock entry of no incarnation", ErrInvalid)
			}
		}
		for _, dots := range [][]crdt.Dot{ks.Drop, ks.PendingAdd, ks.PendingDrop} {
			for _, d := range dots {
				if d.Inc == 0 || d.Seq == 0 {
					return fmt.Errorf("%w: zero dot", ErrInvalid)
				}
			}
		}
	}
	return nil
}

func checkCell(c *crdt.Cell) error {
	switch {
	case c == nil:
		return errors.New("nil cell")
	case c.Dot.Inc == 0 || c.Dot.Seq == 0:
		return errors.New("cell without a dot")
	case len(c.Key) == 0 || len(c.Key) > crdt.MaxKeyBytes:
		return fmt.Errorf("cell %v: key of %d bytes", c.Dot, len(c.Key))
	case len(c.Path) > crdt.MaxKeyBytes:
		return fmt.Errorf("cell %v: path of %d bytes", c.Dot, len(c.Path))
	case len(c.Value) > crdt.MaxValueBytes:
		return fmt.Errorf("cell %v: value of %d bytes", c.Dot, len(c.Value))
	case !c.Kind.Valid():
		return fmt.Errorf("cell %v: kind %d", c.Dot, c.Kind)
	case c.Expires < 0:
		return fmt.Errorf("cell %v: expires before 1970", c.Dot)
	}
	return nil
}
