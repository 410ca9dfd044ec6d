package logstore

import (
	"cmp"
	"errors"
	"fmt"
	"iter"
	"maps"
	"runtime"
	"slices"

	"github.com/meshkv/meshkv/storage"
)

const (
	// queued is how many calls may wait for a commit; more wait for a place.
	queued = 1024
	// What one commit takes at most, beside the change that goes beyond it.
	maxBatchChanges = 1024
	maxBatchBytes   = 4 << 20

	// yields is how often in a row others may run, without asking for anything,
	// before a commit begins, if there are others. It takes microseconds on a
	// machine that has nothing else to do.
	yields = 3
)

// A request is a change on its way; done is closed when err is final.
type request struct {
	change change
	err    error
	done   chan struct{}
}

// submit returns when c is on disk, or with the reason why it is not. There is no
// goroutine that writes: a caller who finds that nobody has the turn takes it, and
// commits what all callers wait for. One who is alone waits for the disk, and for
// no other goroutine.
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
	for {
		select {
		case <-r.done:
			return r.err
		case <-s.turn:
			s.takeTurn(nil)
		case <-s.stopped:
			select {
			case <-r.done: // answered just before the end
				return r.err
			default:
				return s.state()
			}
		}
	}
}

// takeTurn commits moved entries, if any, and what is asked for. Whoever calls it
// has the turn, and gives it back, unless the commit failed: then the turn is gone,
// and those who wait learn it by s.stopped.
func (s *Store) takeTurn(m *moving) {
	err := fmt.Errorf("%w: panic during a commit", storage.ErrFailed) // if so, the caller may catch it
	defer func() {
		if err == nil {
			s.turn <- struct{}{} // has a place: there is one turn
			return
		}
		s.stop(err)
		close(s.stopped)
	}()
	var batch []*request
	if m != nil {
		batch = append(batch, &request{change: m, done: make(chan struct{})}) // in front
	}
	if batch = s.gather(batch); len(batch) == 0 { // what waited was answered
		err = nil
		return
	}
	failed := s.commitBatch(batch)
	if failed != nil {
		failed = fmt.Errorf("%w: %w", storage.ErrFailed, failed)
		s.stop(failed) // before anybody is answered
	}
	for _, r := range batch {
		if r.err == nil {
			r.err = failed
		}
		close(r.done)
	}
	if err = failed; err == nil {
		s.crowded = len(batch) > 1 || len(s.queue) > 0
		s.signal()
	}
}

// end takes the turn for ever, calls last, and stops the store with its error. If it
// has ended already, last is not called.
func (s *Store) end(last func() error) {
	select {
	case <-s.turn:
		s.stop(last())
		close(s.stopped)
	case <-s.stopped:
	}
}

// gather adds to batch what waits already, and what comes while others run that
// are ready to: those who were answered a moment ago ask again. Without that, one
// half of the callers would wait for the commit of the other half, in turns. One
// who was alone does not wait: on a busy machine that took as long as the disk.
func (s *Store) gather(batch []*request) []*request {
	var bytes int64
	for quiet := 0; len(batch) < maxBatchChanges && bytes < maxBatchBytes; {
		select {
		case r := <-s.queue:
			batch = append(batch, r)
			bytes += r.change.size()
			quiet = 0
		default:
			if quiet == yields || !s.crowded {
				return batch
			}
			quiet++
			runtime.Gosched()
		}
	}
	return batch
}

// commitBatch makes one frame of batch. What is refused is not in it. After an
// error the outcome of the others is unknown, and the state in memory is ahead of
// the file, so the store must stop.
func (s *Store) commitBatch(batch []*request) error {
	bytes := int64(frameHeadBytes)
	for _, r := range batch {
		bytes += r.change.size()
	}
	state, err := s.makeRoom(bytes)
	if err != nil {
		return err
	}
	t := &transaction{store: s, segment: s.current.number, offset: s.current.used}
	t.frame = append(append(s.room[:0], make([]byte, frameHeadBytes)...), state...)
	before := len(t.frame)
	for _, r := range batch {
		r.err = r.change.apply(t)
	}
	if len(t.frame) > before {
		if err := s.put(t.frame); err != nil {
			return fmt.Errorf("commit: %w", err)
		}
		if len(state) > 0 {
			s.current.base.Store(int64(len(state)))
		}
		s.closed = false
		s.commits.Add(1)
		if s.current.used > s.current.size/2 {
			s.request()
		}
	}
	for _, r := range batch {
		if r.err == nil {
			r.change.publish(t)
		}
	}
	if s.room = t.frame; cap(s.room) > 2*maxBatchBytes {
		s.room = nil
	}
	return nil
}

// put makes a frame of b, which has room for the head, and returns when it is on
// disk behind the others of the current segment.
func (s *Store) put(b []byte) error {
	seg := s.current
	s.commit++
	b = finishFrame(b, site{s.id, seg.number, seg.used}, s.commit)
	err := s.opts.commit(func() error {
		if _, err := seg.file.WriteAt(b, seg.used); err != nil {
			return err
		}
		return s.opts.datasync(seg.file)
	})
	if err != nil {
		return err
	}
	seg.used += int64(len(b))
	return nil
}

// request has the preparer make the segment after the current one.
func (s *Store) request() {
	if !s.requested {
		s.requested = true
		s.wanted <- struct{}{} // has a place: it is empty as long as nothing was requested
	}
}

// makeRoom sees that the current segment has room for a frame of n bytes. If it is
// the first frame there, state is what it must begin with.
func (s *Store) makeRoom(n int64) (state []byte, err error) {
	if !s.current.unused() {
		if s.current.fits(n) {
			return nil, nil
		}
		s.request()
		m := <-s.fresh // bounded by the time it takes to fill a segment with zeros
		s.requested = false
		if m.err != nil {
			return nil, fmt.Errorf("make a segment: %w", m.err)
		}
		if err := s.put(appendRecord(make([]byte, frameHeadBytes), record{kind: recordSeal, number: m.segment.number})); err != nil {
			return nil, errors.Join(fmt.Errorf("seal: %w", err), m.segment.file.Close())
		}
		s.use(m.segment)
	}
	state = appendRecord(nil, stateRecord(s.next, maps.Values(s.known)))
	if n += int64(len(state)); !s.current.fits(n) {
		small := s.current
		size := segmentHead + align(n, frameAlign) + sealBytes
		large, err := createSegment(s.dir, s.id, small.number, size, s.opts.datasync)
		if err != nil {
			return nil, fmt.Errorf("make a large segment: %w", err)
		}
		s.use(large)
		if err := small.file.Close(); err != nil {
			return nil, err
		}
	}
	return state, nil
}

// use makes seg the current segment: behind the others, or in the place of an unused
// one.
func (s *Store) use(seg *segment) {
	s.current = seg
	s.mu.Lock()
	defer s.mu.Unlock()
	if last := len(s.segments) - 1; s.segments[last].number == seg.number {
		s.segments[last] = seg
	} else {
		s.segments = append(s.segments, seg)
	}
}

// stateRecord is the groups as they are, and the number of the next one.
func stateRecord(next uint32, groups iter.Seq[*Group]) record {
	r := record{kind: recordState, number: next}
	for g := range groups {
		r.groups = append(r.groups, g.next)
	}
	slices.SortFunc(r.groups, func(a, b groupState) int { return cmp.Compare(a.number, b.number) })
	return r
}

// finish notes that the store was closed. Of the last frame it cannot always be said
// whether it was torn, or damaged when it was on disk; of the one before it can.
func (s *Store) finish() error {
	if s.closed || s.current.unused() {
		return nil
	}
	if err := s.put(appendRecord(make([]byte, frameHeadBytes), record{kind: recordClose})); err != nil {
		return fmt.Errorf("%w: close: %w", storage.ErrFailed, err)
	}
	return nil
}
