package storage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"
)

// disk is the Store of a directory.
type disk struct {
	dir  string
	opts Options
	log  *slog.Logger
	lock *os.File

	kick   chan struct{} // of capacity 1: the log is long enough for a checkpoint
	cancel context.CancelFunc
	done   sync.WaitGroup // the goroutine that makes checkpoints

	// fileMu is held by whoever reads or writes all of the bbolt file: a
	// checkpoint, or a Load. It is taken before mu.
	fileMu sync.Mutex

	mu     sync.Mutex // protects the fields below
	db     *bolt.DB   // nil before the first Load
	oplog  *oplog     // nil before the first Load
	dirty  *dirty
	shrunk chan struct{} // closed, and replaced, when segments were released
	failed error
	// jammed: damage of both meta pages left a transaction of db open, for which
	// closing it would wait for ever. Its file stays open while the process lives.
	jammed   bool
	closed   bool
	dataSize int64
	last     time.Time // of the last commit
	stats    Stats
}

const (
	defaultCheckpointBytes = 64 << 20
	defaultCheckpointIdle  = 10 * time.Second

	defaultMaxLogBytes = 1 << 30
)

// Open takes the directory, which is made if need be, for this process. The files
// are read by Load. The error matches ErrLocked if another process has it.
func Open(dir string, o *Options) (Store, error) {
	s := &disk{dir: dir, kick: make(chan struct{}, 1), shrunk: make(chan struct{})}
	if o != nil {
		s.opts = *o
	}
	if s.opts.CheckpointBytes <= 0 {
		s.opts.CheckpointBytes = defaultCheckpointBytes
	}
	if s.opts.MaxLogBytes <= 0 {
		s.opts.MaxLogBytes = defaultMaxLogBytes
	}
	if s.opts.CheckpointIdle == 0 {
		s.opts.CheckpointIdle = defaultCheckpointIdle
	}
	if s.opts.Files == nil {
		s.opts.Files = osFiles{}
	}
	s.log = s.opts.Logger
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if err := makeDir(dir, s.opts.Files); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	var err error
	if s.lock, err = lockDir(dir); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	return s, nil
}

// makeDir makes dir and what is missing above it. Each new directory is durable
// before something is made in it: else a power loss could take away a whole store
// whose commits were acknowledged.
func makeDir(dir string, files Files) error {
	var missing []string // deepest first
	for d := filepath.Clean(dir); ; d = filepath.Dir(d) {
		if _, err := os.Stat(d); err == nil || !errors.Is(err, os.ErrNotExist) || d == filepath.Dir(d) {
			break // what is wrong with it, if anything, Mkdir says
		}
		missing = append(missing, d)
	}
	for _, d := range slices.Backward(missing) {
		if err := os.Mkdir(d, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
		if err := files.SyncDir(filepath.Dir(d)); err != nil {
			return err
		}
	}
	return os.MkdirAll(dir, 0o700) // an error if it is there and no directory
}

// Load implements Store.
func (s *disk) Load(ctx context.Context) (State, error) {
	s.fileMu.Lock()
	defer s.fileMu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return State{}, ErrClosed
	case s.failed != nil:
		return State{}, s.failed
	case s.db != nil:
		st, _, err := s.read(ctx, s.db)
		return st, err
	}
	return s.recover(ctx)
}

// read is the state of db and the log. The pages come first: what they hold can be
// walked only when they are known to form trees.
func (s *disk) read(ctx context.Context, db *bolt.DB) (State, replayed, error) {
	if err := checkPages(ctx, db); err != nil {
		return State{}, replayed{}, err
	}
	var p position
	err := guarded(db.Path(), func() error {
		return db.View(func(tx *bolt.Tx) (err error) {
			p, err = readPosition(tx)
			return err
		})
	})
	if err != nil {
		return State{}, replayed{}, err
	}
	r, err := replay(ctx, s.dir, s.opts.Files, p.nodeID, p.next)
	if err != nil {
		return State{}, r, err
	}
	st, _, err := readCells(ctx, db, r.set)
	return st, r, err
}

// recover brings the directory up, whatever the last process left of it.
func (s *disk) recover(ctx context.Context) (State, error) {
	if err := s.establish(); err != nil {
		return State{}, fmt.Errorf("new data directory %s: %w", s.dir, err)
	}
	verify, err := openCellFile(s.dir, true)
	if err != nil {
		return State{}, err
	}
	st, r, err := s.read(ctx, verify)
	if err := errors.Join(err, verify.Close()); err != nil {
		return State{}, err
	}
	log, err := s.reopenLog(st.NodeID, r)
	if err != nil {
		return State{}, fmt.Errorf("reopen log: %w", err)
	}
	db, err := openCellFile(s.dir, false)
	if err != nil {
		return State{}, errors.Join(err, log.close())
	}
	s.oplog, s.db, s.dirty = log, db, r.set
	s.dirty.replaying = false // what is left is in no part of the file
	s.dirty.hlcBound = st.HLCBound
	s.last = time.Now()
	s.measure()
	var cells int
	for _, ks := range st.Keyspaces {
		cells += len(ks.Cells)
	}
	s.log.Debug("store loaded", "dir", s.dir, "cells", cells, "log_bytes", log.size(), "torn_tail", r.last.torn)

	runCtx, cancel := context.WithCancel(context.WithoutCancel(ctx)) // until Close
	s.cancel = cancel
	s.done.Go(func() { s.checkpoints(runCtx) })
	s.maybeKick()
	return st, nil
}

// establish makes the files of a new directory: the log first, so that a file of
// cells without any log is known to be damage.
func (s *disk) establish() error {
	isNew, err := fresh(s.dir, s.opts.Files)
	if err != nil || !isNew {
		return err
	}
	log := &oplog{dir: s.dir, nodeID: newNodeID(), files: s.opts.Files, next: 1}
	if err := log.begin(); err != nil {
		return err
	}
	if err := log.close(); err != nil {
		return err
	}
	return createCellFile(s.dir, log.nodeID, log.next)
}

// reopenLog continues the log behind what was replayed, without the record that
// was never finished.
func (s *disk) reopenLog(nodeID string, r replayed) (*oplog, error) {
	if r.blank != "" {
		if err := s.opts.Files.Remove(r.blank); err != nil {
			return nil, err
		}
	}
	log := &oplog{dir: s.dir, nodeID: nodeID, files: s.opts.Files, next: r.last.next, segments: r.segments}
	f, err := s.opts.Files.Open(r.segments[len(r.segments)-1].path)
	if err != nil {
		return nil, err
	}
	log.file = f
	size, err := f.Size()
	if err == nil && size > r.last.end {
		err = f.Truncate(r.last.end)
	}
	// Synced in any case: the last process may have died before it could, and
	// what was read from memory would then be served without being on disk.
	if err = errors.Join(err, f.Sync(), s.opts.Files.SyncDir(s.dir)); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return log, nil
}

// Commit implements Store.
func (s *disk) Commit(ctx context.Context, b Batch) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := checkBatch(&b); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.room(ctx); err != nil {
		return err
	}
	n, err := s.oplog.append(&b)
	if errors.Is(err, ErrInvalid) {
		return err
	}
	if err != nil {
		return s.fail(fmt.Errorf("write log: %w", err))
	}
	s.dirty.apply(&b)
	s.stats.Commits++
	s.stats.CommittedBytes += uint64(n)
	s.last = time.Now()
	s.maybeKick()
	return nil
}

// room waits while the log is at its bound. It is called, and returns, with mu
// held.
func (s *disk) room(ctx context.Context) error {
	for waited := false; ; waited = true {
		switch {
		case s.closed:
			return ErrClosed
		case s.failed != nil:
			return s.failed
		case s.oplog == nil:
			return ErrNotLoaded
		case s.oplog.size() < s.opts.MaxLogBytes:
			return nil
		}
		if !waited {
			s.stats.ThrottledCommits++
		}
		shrunk := s.shrunk
		s.maybeKick()
		s.mu.Unlock()
		var err error
		select {
		case <-shrunk:
		case <-ctx.Done():
			err = ctx.Err()
		}
		s.mu.Lock()
		if err != nil {
			return err
		}
	}
}

// fail notes the first failure: the outcome of a write is unknown, and nothing
// that a file says can be trusted before it is read again from the start.
func (s *disk) fail(err error) error {
	if s.failed == nil {
		s.failed = fmt.Errorf("%w: %w", ErrFailed, err)
		close(s.shrunk)
		s.shrunk = make(chan struct{})
	}
	return s.failed
}

// threshold is the size of the log at which a checkpoint starts. A checkpoint of
// few changes rewrites few pages, one of very many rewrites all: the cost of each
// change falls as the log grows with the file.
func (s *disk) threshold() int64 {
	return max(min(s.opts.CheckpointBytes, s.opts.MaxLogBytes/2), min(s.dataSize, s.opts.MaxLogBytes/2))
}

func (s *disk) maybeKick() {
	if s.oplog.size() >= s.threshold() {
		signal(s.kick)
	}
}

// measure takes the size of the bbolt file.
func (s *disk) measure() {
	if info, err := os.Stat(s.db.Path()); err == nil {
		s.dataSize = info.Size()
	}
}

// Stats implements Store.
func (s *disk) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.stats
	st.Path, st.DataBytes = s.dir, s.dataSize
	if s.oplog != nil {
		st.LogBytes, st.LogSegments = s.oplog.size(), len(s.oplog.segments)
	}
	return st
}

// Close implements Store. A checkpoint that runs is cut short.
func (s *disk) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	close(s.shrunk)
	s.shrunk = make(chan struct{})
	cancel := s.cancel
	s.mu.Unlock()

	if cancel != nil {
		cancel()
	}
	s.done.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	if s.oplog != nil {
		err = s.oplog.close()
	}
	if s.db != nil && !s.jammed {
		err = errors.Join(err, s.db.Close())
	}
	return errors.Join(err, s.lock.Close())
}

// Discard moves the files of a store that is not open into a new directory
// damaged-<n> within dir, and returns its path. The next Open begins an empty
// store with a new node id.
func Discard(dir string) (movedTo string, err error) {
	lock, err := lockDir(dir)
	if err != nil {
		return "", fmt.Errorf("discard: %w", err)
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	for n := 1; ; n++ {
		movedTo = filepath.Join(dir, fmt.Sprintf("damaged-%d", n))
		if err = os.Mkdir(movedTo, 0o700); err == nil {
			break
		}
		if !errors.Is(err, os.ErrExist) {
			return "", fmt.Errorf("discard: %w", err)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", fmt.Errorf("discard: %w", err)
	}
	// The cells go first: a log alone is no store, and one that begins with its
	// first record is refused as well.
	for _, name := range append([]string{cellFileName}, names(entries)...) {
		if name != cellFileName && name != newCellFileName &&
			!(strings.HasPrefix(name, segmentPrefix) && strings.HasSuffix(name, segmentSuffix)) {
			continue
		}
		err := os.Rename(filepath.Join(dir, name), filepath.Join(movedTo, name))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return "", fmt.Errorf("discard: %w", err)
		}
	}
	if err := errors.Join(syncDir(movedTo), syncDir(dir)); err != nil {
		return "", fmt.Errorf("discard: %w", err)
	}
	return movedTo, nil
}

func names(entries []os.DirEntry) []string {
	out := make([]string, 0, len(entries))
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}
