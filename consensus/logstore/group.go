package logstore

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"

	"github.com/hashicorp/raft"
	"github.com/meshkv/meshkv/storage"
	bolt "go.etcd.io/bbolt"
)

// trimStep is how many entries one transaction deletes: a long log does not keep
// other groups waiting.
const trimStep = 1024

// A Group is the log and the stable values of one Raft group. It is a
// raft.LogStore whose indexes have no gaps (IsMonotonic), and a raft.StableStore.
// Safe for concurrent use. Besides those of each method, errors match
// storage.ErrFailed, storage.ErrClosed, storage.ErrDamaged or ErrRemoved; after
// storage.ErrFailed the outcome of a write is unknown.
type Group struct {
	store *Store
	name  string

	// next is what the group becomes with the transaction that is being made, and
	// gone says that it is removed with it. Only the writer touches them.
	next record
	gone bool

	mu      sync.RWMutex // protects the fields below, what is committed
	held    span
	stable  map[string][]byte // replaced, never changed
	newest  newest
	removed bool
}

// Group implements what Raft asks of its stores.
var (
	_ raft.LogStore          = (*Group)(nil)
	_ raft.MonotonicLogStore = (*Group)(nil)
	_ raft.StableStore       = (*Group)(nil)
)

// IsMonotonic tells Raft that a log here has no gaps.
func (g *Group) IsMonotonic() bool { return true }

// FirstIndex is the index of the oldest entry, or 0. It reads no file.
func (g *Group) FirstIndex() (uint64, error) {
	held, err := g.span()
	return held.first, err
}

// LastIndex is the index of the newest entry, or 0. It reads no file.
func (g *Group) LastIndex() (uint64, error) {
	held, err := g.span()
	return held.last, err
}

func (g *Group) span() (span, error) {
	if err := g.store.state(); err != nil {
		return span{}, err
	}
	g.mu.RLock()
	defer g.mu.RUnlock()
	if g.removed {
		return span{}, ErrRemoved
	}
	return g.held, nil
}

// GetLog sets log to the entry at index, or returns raft.ErrLogNotFound. The bytes
// of log must not be changed.
func (g *Group) GetLog(index uint64, log *raft.Log) error {
	if err := g.store.state(); err != nil {
		return err
	}
	g.mu.RLock()
	removed, held, cached := g.removed, g.held.contains(index), g.newest.get(index, log)
	g.mu.RUnlock()
	switch {
	case removed:
		return ErrRemoved
	case cached:
		return nil
	case !held:
		return raft.ErrLogNotFound
	}
	id := entryID{g.next.number, index} // the number never changes
	var value []byte
	err := g.store.view(func(tx *bolt.Tx) error {
		value = slices.Clone(tx.Bucket(bucketLogs).Get(id.appendKey(nil)))
		return nil
	})
	if err != nil {
		return err
	}
	if value == nil {
		if held, err := g.span(); err != nil || !held.contains(index) { // deleted meanwhile
			return cmp.Or(err, raft.ErrLogNotFound)
		}
		return g.store.damage(fmt.Sprintf("group %q: entry %d is missing", g.name, index))
	}
	if err := decodeEntry(id, value, log); err != nil {
		return g.store.damage(fmt.Sprintf("group %q: entry %d %v", g.name, index, err))
	}
	return nil
}

// StoreLog is StoreLogs of one.
func (g *Group) StoreLog(log *raft.Log) error { return g.StoreLogs([]*raft.Log{log}) }

// StoreLogs appends logs and returns when they are on disk. Their indexes must
// follow each other and the last one there is; what is to be replaced must be
// deleted before. An entry has at most 16 MiB. Else the error matches
// storage.ErrInvalid, and nothing was stored. The bytes of logs must not be
// changed afterwards.
func (g *Group) StoreLogs(logs []*raft.Log) error {
	if len(logs) == 0 {
		return g.store.state()
	}
	c := &appending{group: g, logs: logs, keys: make([]byte, 0, len(logs)*entryKeyBytes)}
	var size int
	for i, log := range logs {
		switch {
		case log.Index == 0 || log.Index != logs[0].Index+uint64(i) || log.Index+1 == 0:
			return fmt.Errorf("%w: entry %d after %d", storage.ErrInvalid, log.Index, logs[max(i, 1)-1].Index)
		case entrySize(log) > maxEntryBytes:
			return fmt.Errorf("%w: entry %d of %d bytes", storage.ErrInvalid, log.Index, entrySize(log))
		}
		size += entrySize(log)
	}
	// Encoded here, so that the groups do it in parallel.
	c.values = make([]byte, 0, size)
	for _, log := range logs {
		at := len(c.keys)
		c.keys = entryID{g.next.number, log.Index}.appendKey(c.keys)
		c.values = appendEntry(c.values, c.keys[at:], log)
	}
	return g.store.submit(c)
}

// DeleteRange deletes the entries from min to max, which must be at an end of the
// log; those that are not there do not count. Else the error matches
// storage.ErrInvalid. It works in steps, away from the end: if it is cut short,
// fewer entries are deleted, and what is left has no hole.
func (g *Group) DeleteRange(min, max uint64) error {
	for {
		c := &trimming{group: g, from: min, to: max}
		if err := g.store.submit(c); err != nil {
			return err
		}
		if !c.more {
			return nil
		}
	}
}

// Set stores a value, and returns when it is on disk. A group has at most 64 keys of
// at most 255 bytes, with at most 64 KiB each; else the error matches
// storage.ErrInvalid.
func (g *Group) Set(key, value []byte) error {
	if len(key) > maxStableKey || len(value) > maxStableValue {
		return fmt.Errorf("%w: stable key of %d bytes with %d", storage.ErrInvalid, len(key), len(value))
	}
	return g.store.submit(&setting{group: g, key: string(key), value: slices.Clone(value)})
}

// Get is the value of key, or empty if there is none. It reads no file.
func (g *Group) Get(key []byte) ([]byte, error) {
	if err := g.store.state(); err != nil {
		return nil, err
	}
	g.mu.RLock()
	defer g.mu.RUnlock()
	if g.removed {
		return nil, ErrRemoved
	}
	return slices.Clone(g.stable[string(key)]), nil
}

// SetUint64 is Set of a number.
func (g *Group) SetUint64(key []byte, value uint64) error {
	return g.Set(key, binary.BigEndian.AppendUint64(nil, value))
}

// GetUint64 is the number of key, or 0 if there is none. The error matches
// storage.ErrInvalid if Set stored something else.
func (g *Group) GetUint64(key []byte) (uint64, error) {
	value, err := g.Get(key)
	switch {
	case err != nil || len(value) == 0:
		return 0, err
	case len(value) != 8:
		return 0, fmt.Errorf("%w: %d bytes are no number", storage.ErrInvalid, len(value))
	}
	return binary.BigEndian.Uint64(value), nil
}
