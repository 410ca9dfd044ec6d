package logstore

import (
	"errors"
	"fmt"
	"runtime"

	"github.com/meshkv/meshkv/storage"
	bolt "go.etcd.io/bbolt"
)

const (
	// queued is how many calls may wait for the writer; more wait for a place.
	queued = 1024
	// What one transaction takes at most, beside the change that goes beyond it.
	maxBatchChanges = 1024
	maxBatchBytes   = 4 << 20

	// yields is how often in a row others may run, without asking for anything,
	// before a commit begins. It takes microseconds on a machine that has
	// nothing else to do.
	yields = 3

	// fill is how full a page of entries is left when it is split: logs grow at
	// their ends.
	fill = 0.9
)

// A request is a change on its way; done is closed when err is final.
type request struct {
	change change
	err    error
	done   chan struct{}
}

// submit returns when c is on disk, or with the reason why it is not.
func (s *Store) submit(c change) error {
	r := &request{change: c, done: make(chan struct{})}
	select {
	case <-s.stopped:
		return s.state()
	default:
	}
	select {
	case s.queue <- r:
	case <-s.stopped:
		return s.state()
	}
	select {
	case <-r.done:
		return r.err
	case <-s.stopped:
	}
	select {
	case <-r.done: // answered just before the end
		return r.err
	default:
		return s.state()
	}
}

// write commits what is asked for until the store is closed or a commit fails.
// Whoever is in the queue then learns it by s.stopped.
func (s *Store) write() {
	defer close(s.stopped)
	var batch []*request
	for {
		select {
		case <-s.closing:
			s.stop(storage.ErrClosed)
			return
		case r := <-s.queue:
			batch = s.gather(append(batch[:0], r))
		}
		err := s.commitBatch(batch)
		if err != nil {
			err = fmt.Errorf("%w: %w", storage.ErrFailed, err)
			s.stop(err)
		}
		for i, r := range batch {
			if r.err == nil {
				r.err = err
			}
			close(r.done)
			batch[i] = nil
		}
		if err != nil {
			return
		}
	}
}

// gather adds to batch what waits already, and what comes while others run that
// are ready to: those who were answered a moment ago ask again. Without that, one
// half of the callers would wait for the commit of the other half, in turns.
func (s *Store) gather(batch []*request) []*request {
	bytes := batch[0].change.size()
	for quiet := 0; len(batch) < maxBatchChanges && bytes < maxBatchBytes; {
		select {
		case r := <-s.queue:
			batch = append(batch, r)
			bytes += r.change.size()
			quiet = 0
		default:
			if quiet == yields {
				return batch
			}
			quiet++
			runtime.Gosched()
		}
	}
	return batch
}

// commitBatch makes one transaction of batch. What is refused is not in it. After
// an error the outcome of the others is unknown, and the state in memory is ahead
// of the file, so the store must stop.
func (s *Store) commitBatch(batch []*request) error {
	tx, err := s.db.Begin(true)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	t := &transaction{
		meta: tx.Bucket(bucketMeta), groups: tx.Bucket(bucketGroups), logs: tx.Bucket(bucketLogs), removed: tx.Bucket(bucketRemoved),
		known: s.known, dirty: make(map[*Group]struct{}),
	}
	t.logs.FillPercent = fill
	for _, r := range batch {
		err := r.change.apply(t)
		if no, ok := errors.AsType[refused](err); ok {
			r.err = no.error
			continue
		}
		if err != nil {
			return errors.Join(err, tx.Rollback())
		}
	}
	for g := range t.dirty {
		if err := t.groups.Put([]byte(g.name), appendRecord(nil, g.name, g.next)); err != nil {
			return errors.Join(fmt.Errorf("put group: %w", err), tx.Rollback())
		}
	}
	for _, c := range t.trims {
		c.hide()
	}
	if len(t.dirty) == 0 && !t.wrote {
		err = tx.Rollback()
	} else if err = s.opts.commit(tx); err == nil {
		s.commits.Add(1)
	}
	if err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	for _, r := range batch {
		if r.err == nil {
			r.change.publish()
		}
	}
	return nil
}

// view runs fn on the file as it is committed.
func (s *Store) view(fn func(tx *bolt.Tx) error) error {
	err := guarded(s.path, func() error { return s.db.View(fn) })
	if state := s.state(); err != nil && state != nil {
		return state // closed meanwhile
	}
	return err
}
