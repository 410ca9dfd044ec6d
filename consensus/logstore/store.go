package logstore

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/meshkv/meshkv/storage"
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
	// kept in memory. Followers that lag by more are served from the files. Default
	// 512 entries and 1 MiB.
	CacheEntries, CacheBytes int

	segmentBytes int64                        // tests make it small
	commit       func(put func() error) error // tests make it fail; put writes and syncs
	datasync     func(*os.File) error         // tests see what is on disk
}

// Stats count since the store was opened.
type Stats struct {
	Commits    uint64 // commits of what callers asked for, of one fsync each
	MovedBytes uint64 // copied out of segments that were removed
	FileBytes  int64  // size of the segments now, without the one that is made ahead
}

// A Store holds the logs and stable values of all groups of a node in one journal.
// Safe for concurrent use.
type Store struct {
	dir  string
	opts Options
	lock *os.File // the directory
	id   uint64   // of the store, in every segment

	queue   chan *request
	turn    chan struct{} // full when nobody commits
	stopped chan struct{} // closed when nobody commits any more
	once    sync.Once     // of Close
	err     error         // of Close
	commits atomic.Uint64
	moved   atomic.Uint64
	reason  atomic.Pointer[error] // why nothing is served any more

	wanted  chan struct{} // to the preparer: a segment will be needed
	fresh   chan made     // from the preparer
	tidy    chan struct{} // to the cleaner: there may be something to do
	helpers sync.WaitGroup

	// Owned by who has the turn.
	known     map[string]*Group
	next      uint32 // number of the next new group
	current   *segment
	requested bool   // of the preparer, and not taken yet
	commit    uint64 // number of the last one
	crowded   bool   // more than one waited for the last commit, or while it was made
	closed    bool   // the last frame says that the store was closed
	room      []byte // for the next frame

	mu       sync.RWMutex      // protects the fields below
	segments []*segment        // with ascending numbers, without gaps; the last one is current
	numbers  map[uint32]*Group // those that are known
}

// Open opens the store in dir, and makes it if there is none, in a parent that must
// exist. It reads and verifies all of it. The error matches storage.ErrLocked if
// another process has the store, storage.ErrDamaged if it failed verification and
// storage.ErrFormat if a newer version wrote it. A replica whose files were lost or
// damaged must not go on under its old identity: it may have voted.
func Open(dir string, o *Options) (*Store, error) {
	s := &Store{
		dir:     dir,
		queue:   make(chan *request, queued),
		turn:    make(chan struct{}, 1),
		stopped: make(chan struct{}),
		wanted:  make(chan struct{}, 1),
		fresh:   make(chan made, 1),
		tidy:    make(chan struct{}, 1),
		known:   make(map[string]*Group),
		numbers: make(map[uint32]*Group),
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
	if s.opts.segmentBytes == 0 {
		s.opts.segmentBytes = defaultSegmentBytes
	}
	if s.opts.commit == nil {
		s.opts.commit = func(put func() error) error { return put() }
	}
	if s.opts.datasync == nil {
		s.opts.datasync = datasync
	}
	if err := s.takeDir(); err != nil {
		return nil, fmt.Errorf("log store: %w", err)
	}
	if err := s.recover(); err != nil {
		return nil, errors.Join(fmt.Errorf("log store: %w", err), s.closeFiles())
	}
	s.turn <- struct{}{}
	s.signal()
	s.helpers.Go(s.prepare)
	s.helpers.Go(s.clean)
	return s, nil
}

// takeDir makes the directory if there is none, and locks it. The lock ends with the
// process, however that ends.
func (s *Store) takeDir() error {
	err := os.Mkdir(s.dir, 0o700)
	if err == nil {
		err = syncDir(filepath.Dir(s.dir))
	} else if errors.Is(err, os.ErrExist) {
		err = nil
	}
	if err != nil {
		return err
	}
	d, err := os.Open(s.dir)
	if err != nil {
		return err
	}
	err = syscall.Flock(int(d.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = fmt.Errorf("%s is %w", s.dir, storage.ErrLocked)
	}
	if err != nil {
		return errors.Join(err, d.Close())
	}
	s.lock = d
	return nil
}

func (s *Store) newGroup(g groupState) *Group {
	return &Group{
		store: s, next: g, held: g.held, stable: g.stable,
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
	c := &adopting{name: name}
	if err := s.submit(c); err != nil {
		return nil, err
	}
	return c.group, nil
}

// Remove removes the group called name, if there is one, with all that it holds.
func (s *Store) Remove(name string) error { return s.submit(&retiring{name: name}) }

// Stats counts what was done since Open.
func (s *Store) Stats() Stats {
	st := Stats{Commits: s.commits.Load(), MovedBytes: s.moved.Load()}
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, seg := range s.segments {
		st.FileBytes += seg.size
	}
	return st
}

// Close waits for the commit that runs, and closes the files. What waits for a later
// one gets storage.ErrClosed and was not stored. It may be called twice.
func (s *Store) Close() error {
	s.once.Do(func() {
		s.end(func() error {
			if s.err = s.finish(); s.err != nil {
				return s.err
			}
			return storage.ErrClosed
		})
		s.helpers.Wait()
		s.err = errors.Join(s.err, s.closeFiles())
	})
	return s.err
}

// closeFiles closes what is open, when no goroutine but readers is left.
func (s *Store) closeFiles() error {
	var errs []error
	select {
	case m := <-s.fresh:
		if m.segment != nil {
			errs = append(errs, m.segment.file.Close())
		}
	default:
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, seg := range s.segments {
		errs = append(errs, seg.file.Close())
	}
	s.segments = nil
	return errors.Join(append(errs, s.lock.Close())...)
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

// segment is the one with that number, or nil. s.mu must be held.
func (s *Store) segment(number uint32) *segment {
	if len(s.segments) == 0 {
		return nil
	}
	i := uint64(number) - uint64(s.segments[0].number)
	if i >= uint64(len(s.segments)) {
		return nil
	}
	return s.segments[i]
}

// release counts entries that are dead.
func (s *Store) release(ps places) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for len(ps) > 0 {
		number, bytes := ps[0].segment, int64(0)
		for len(ps) > 0 && ps[0].segment == number {
			bytes += ps[0].bytes()
			ps = ps[1:]
		}
		s.segment(number).live.Add(-bytes)
	}
}
