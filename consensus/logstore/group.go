package logstore

import (
	"encoding/binary"
	"fmt"
	"slices"
	"sync"

	"github.com/hashicorp/raft"
	"github.com/meshkv/meshkv/storage"
)

// A Group is the log and the stable values of one Raft group. It is a
// raft.LogStore whose indexes have no gaps (IsMonotonic), and a raft.StableStore.
// Safe for concurrent use. Besides those of each method, errors match
// storage.ErrFailed, storage.ErrClosed, storage.ErrDamaged or ErrRemoved; after
// storage.ErrFailed the outcome of a write is unknown.
type Group struct {
	store *Store

	// next is what the group becomes with the commit that is being made, and gone
	// says that it is removed with it. Only the writer touches them; the number and
	// the name never change.
	next groupState
	gone bool

	mu      sync.RWMutex // protects the fields below, what is committed; Store.mu is locked before it
	held    span
	places  places            // of the entries of held
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
	cached := !g.removed && g.newest.get(index, log)
	g.mu.RUnlock()
	if cached {
		return nil
	}
	// A place is good as long as its segment stays, which is while s.mu is locked.
	// An entry that is moved has its new place before the old one goes.
	s := g.store
	s.mu.RLock()
	defer s.mu.RUnlock()
	p, err := g.place(index)
	if err != nil {
		return err
	}
	seg := s.segment(p.segment)
	if seg == nil {
		return storage.ErrClosed
	}
	value := make([]byte, p.length)
	if _, err := seg.file.ReadAt(value, int64(p.offset)); err != nil {
		return fmt.Errorf("read entry %d: %w", index, err)
	}
	if err := decodeEntry(entryID{g.next.number, index}, value, log); err != nil {
		return seg.damage("group %q: entry %d %v", g.next.name, index, err)
	}
	return nil
}

// place is where the entry at index is.
func (g *Group) place(index uint64) (place, error) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	switch {
	case g.removed:
		return place{}, ErrRemoved
	case !g.held.contains(index):
		return place{}, raft.ErrLogNotFound
	}
	return g.places[index-g.held.first], nil
}

// lives reports whether the entry at index is at p.
func (g *Group) lives(index uint64, p place) bool {
	at, err := g.place(index)
	return err == nil && at == p
}

// holds is lives for the writer, before the first change of a commit.
func (g *Group) holds(index uint64, p place) bool {
	return !g.gone && g.next.held.contains(index) && g.places[index-g.next.held.first] == p
}

// StoreLog is StoreLogs of one.
func (g *Group) StoreLog(log *raft.Log) error { return g.StoreLogs([]*raft.Log{log}) }

// StoreLogs appends logs and returns when they are on disk. Their indexes must
// follow each other and the last one there is; what is to be replaced must be
// deleted before. An entry has at most 16 MiB. Else the error matches
// storage.ErrInvalid, and nothing was stored. What is larger than 4 MiB is stored in
// steps, of which a crash or an error may leave the first ones. The bytes of logs
// must not be changed afterwards.
func (g *Group) StoreLogs(logs []*raft.Log) error {
	if len(logs) == 0 {
		return g.store.state()
	}
	for i, log := range logs {
		switch {
		case log.Index == 0 || log.Index != logs[0].Index+uint64(i) || log.Index+1 == 0:
			return fmt.Errorf("%w: entry %d after %d", storage.ErrInvalid, log.Index, logs[max(i, 1)-1].Index)
		case entrySize(log) > maxEntryBytes:
			return fmt.Errorf("%w: entry %d of %d bytes", storage.ErrInvalid, log.Index, entrySize(log))
		}
	}
	for len(logs) > 0 {
		n, size := 0, runHeadBytes
		for n < len(logs) && (n == 0 || size+entrySize(logs[n]) <= maxBatchBytes) {
			size += lengthBytes + entrySize(logs[n])
			n++
		}
		c := &appending{group: g, logs: logs[:n], record: make([]byte, 0, size)}
		c.record = appendRunHead(c.record, recordAppend, g.next.number, logs[0].Index, n)
		for _, log := range c.logs {
			id := entryID{g.next.number, log.Index}
			c.record = binary.LittleEndian.AppendUint32(c.record, uint32(entrySize(log)))
			c.record = appendEntry(c.record, id, log)
		}
		if err := g.store.submit(c); err != nil {
			return err
		}
		logs = logs[n:]
	}
	return nil
}

// DeleteRange deletes the entries from min to max, which must be at an end of the
// log; those that are not there do not count. Else the error matches
// storage.ErrInvalid.
func (g *Group) DeleteRange(min, max uint64) error {
	return g.store.submit(&trimming{group: g, from: min, to: max})
}

// Set stores a value, and returns when it is on disk. A group has at most 16 keys of
// at most 255 bytes, with at most 1 KiB each; else the error matches
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
