package logstore

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/meshkv/meshkv/storage"
	bolt "go.etcd.io/bbolt"
)

// ErrRemoved: the group was removed. A group of that name made anew is another
// one.
var ErrRemoved = errors.New("group was removed")

const (
	maxGroups = 4096

	defaultCacheEntries = 512
	defaultCacheBytes   = 1 << 20
)

// Options of a Store. The zero value is usable.
type Options struct {
	// CacheEntries and CacheBytes bound how much of the end of each group's log is
	// kept in memory. Followers that lag by more are served from the file. Default
	// 512 entries and 1 MiB.
	CacheEntries, CacheBytes int

	commit func(*bolt.Tx) error // tests make it fail
}

// Stats count since the store was opened.
type Stats struct {
	Commits uint64 // transactions, of two fsyncs each
}

// A Store holds the logs and stable values of all groups of a node in one file.
// Safe for concurrent use.
type Store struct {
	path string
	opts Options
	db   *bolt.DB

	queue   chan *request
	closing chan struct{}
	stopped chan struct{} // closed when the writer has ended
	once    sync.Once     // of Close
	err     error         // of Close
	commits atomic.Uint64
	reason  atomic.Pointer[error] // why nothing is served any more

	known map[string]*Group // owned by the writer
}

// Open opens the file at path, in a directory that must exist, and makes it if
// there is none. It reads and verifies all of it. The error matches
// storage.ErrLocked if another process has the file, storage.ErrDamaged if it
// failed verification and storage.ErrFormat if a newer version wrote it. A
// replica whose file was lost or damaged must not go on under its old identity:
// it may have voted.
func Open(path string, o *Options) (*Store, error) {
	s := &Store{
		path:    path,
		queue:   make(chan *request, queued),
		closing: make(chan struct{}),
		stopped: make(chan struct{}),
		known:   make(map[string]*Group),
	}
	if o != nil {
		s.opts = *o
	}
	if s.opts.CacheEntries <= 0 {
		s.opts.CacheEntries = defaultCacheEntries
	}
	if s.opts.CacheBytes <= 0 {
		s.opts.CacheBytes = defaultCacheBytes
	}
	if s.opts.commit == nil {
		s.opts.commit = (*bolt.Tx).Commit
	}
	if err := create(path); err != nil {
		return nil, fmt.Errorf("make log store: %w", err)
	}
	found, err := verify(path)
	if err != nil {
		return nil, fmt.Errorf("log store: %w", err)
	}
	if s.db, err = openVerified(path, found); err != nil {
		return nil, fmt.Errorf("log store: %w", err)
	}
	for name, r := range found.groups {
		s.known[name] = s.newGroup(name, r)
	}
	go s.write() // until Close, which waits for it
	for _, number := range found.removed {
		if err := s.sweep(context.Background(), number); err != nil {
			return nil, errors.Join(fmt.Errorf("log store: %w", err), s.Close())
		}
	}
	return s, nil
}

func (s *Store) newGroup(name string, r record) *Group {
	return &Group{
		store: s, name: name, next: r, held: r.held, stable: r.stable,
		newest: newest{entries: s.opts.CacheEntries, maxBytes: s.opts.CacheBytes},
	}
}

// Group is the group called name, of 1 to 255 bytes; it is made, durably, if there
// is none. The same group is returned until it is removed. A store has at most
// 4,096; beyond these bounds the error matches storage.ErrInvalid.
func (s *Store) Group(name string) (*Group, error) {
	if name == "" || len(name) > maxNameBytes {
		return nil, fmt.Errorf("%w: group name of %d bytes", storage.ErrInvalid, len(name))
	}
	c := &adopting{store: s, name: name}
	if err := s.submit(c); err != nil {
		return nil, err
	}
	return c.group, nil
}

// Remove removes the group called name, if there is one, with all that it holds.
// It is gone with the first step, whatever happens to the others: if ctx ends
// between two of them, the rest is deleted when the file is opened again. The
// file does not shrink; its space is used again.
func (s *Store) Remove(ctx context.Context, name string) error {
	c := &retiring{name: name}
	if err := s.submit(c); err != nil || c.group == nil {
		return err
	}
	return s.sweep(ctx, c.group.next.number)
}

// sweep deletes the entries of a removed group, in steps.
func (s *Store) sweep(ctx context.Context, number uint32) error {
	for more := true; more; {
		if err := ctx.Err(); err != nil {
			return err
		}
		c := &sweeping{number: number}
		if err := s.submit(c); err != nil {
			return err
		}
		more = c.more
	}
	return nil
}

// Stats counts what was done since Open.
func (s *Store) Stats() Stats { return Stats{Commits: s.commits.Load()} }

// Close waits for the commit that runs, and closes the file. What waits for a later
// one gets storage.ErrClosed and was not stored. It may be called twice.
func (s *Store) Close() error {
	s.once.Do(func() {
		close(s.closing)
		<-s.stopped
		s.stop(storage.ErrClosed)
		s.err = s.db.Close()
	})
	return s.err
}

// stop notes the first reason why nothing is served any more.
func (s *Store) stop(err error) { s.reason.CompareAndSwap(nil, &err) }

// state is why nothing is served any more, or nil.
func (s *Store) state() error {
	if p := s.reason.Load(); p != nil {
		return *p
	}
	return nil
}

// damage is the error for what failed verification while it was read.
func (s *Store) damage(reason string) error {
	return &storage.DamageError{File: s.path, Reason: reason}
}
