package logstore

import (
	"fmt"
	"os"

	"github.com/meshkv/meshkv/storage"
)

// moveBytes is how much of a segment one commit takes along: others in it wait
// for that much longer.
const moveBytes = 256 << 10

// made is a segment, or the reason why there is none.
type made struct {
	segment *segment
	err     error
}

// prepare makes segments ahead of their use, one at a time, until the store stops.
func (s *Store) prepare() {
	for {
		select {
		case <-s.stopped:
			return
		case <-s.wanted:
		}
		s.mu.RLock()
		current := s.segments[len(s.segments)-1]
		s.mu.RUnlock()
		seg, err := createSegment(s.dir, s.id, current.number+1, min(segmentGrowth*current.size, s.opts.segmentBytes), s.opts.datasync)
		s.fresh <- made{seg, err} // has a place: the writer asks again when it has taken it
	}
}

// signal wakes the cleaner if there is something to do for it.
func (s *Store) signal() {
	if s.removable() == nil {
		return
	}
	select {
	case s.tidy <- struct{}{}:
	default: // it is awake
	}
}

// removable is the oldest segment if it is to be removed: because all its entries
// are deleted, or because those before the current one have more than twice what
// is live in them, and more than the size of two.
func (s *Store) removable() *segment {
	s.mu.RLock()
	defer s.mu.RUnlock()
	last := len(s.segments) - 1
	if last < 1 || s.segments[last].base.Load() == 0 {
		return nil
	}
	var size, live int64
	for _, seg := range s.segments[:last] {
		size += seg.size
		live += seg.live.Load() + seg.base.Load()
	}
	if s.segments[0].live.Load() == 0 || size > max(2*s.opts.segmentBytes, 2*live) {
		return s.segments[0]
	}
	return nil
}

// clean removes segments until the store stops.
func (s *Store) clean() {
	for {
		select {
		case <-s.stopped:
			return
		case <-s.tidy:
		}
		for seg := s.removable(); seg != nil; seg = s.removable() {
			err := s.remove(seg)
			if err != nil {
				s.end(func() error { return fmt.Errorf("%w: remove a segment: %w", storage.ErrFailed, err) })
				return
			}
		}
	}
}

// remove moves what is live in seg, the oldest segment, and removes it. The next one
// begins with the state of all groups, so nothing else is lost with it.
func (s *Store) remove(seg *segment) error {
	if seg.live.Load() > 0 {
		if err := s.evacuate(seg); err != nil {
			return err
		}
	}
	s.mu.Lock() // waits for those who read it
	s.segments = s.segments[1:]
	err := seg.file.Close()
	s.mu.Unlock()
	if err != nil {
		return err
	}
	if err := os.Remove(seg.path); err != nil {
		return err
	}
	return syncDir(s.dir) // before the next one is removed: no gap must appear
}

// evacuate moves the live entries of seg to the end of the journal.
func (s *Store) evacuate(seg *segment) error {
	image, err := seg.read(nil, seg.used)
	if err != nil {
		return err
	}
	m := &moving{}
	move := func() error {
		select {
		case <-s.turn:
			s.takeTurn(m)
		case <-s.stopped:
			return s.state()
		}
		m = &moving{}
		return s.state()
	}
	for at := int64(segmentHead); at < seg.used; {
		f, ok := parseFrame(image, site{s.id, seg.number, at})
		if !ok {
			return seg.damage("the commit at %d is invalid", at)
		}
		for rest := f.records; len(rest) > 0; {
			offset := at + frameHeadBytes + int64(len(f.records)-len(rest))
			var r record
			if r, rest, err = parseRecord(rest); err != nil {
				return seg.damage("the commit at %d: %v", at, err)
			}
			s.mu.RLock()
			g := s.numbers[r.number]
			s.mu.RUnlock()
			if g == nil {
				continue
			}
			for index, p := range r.entries(seg.number, offset) {
				if !g.lives(index, p) {
					continue
				}
				m.add(movedEntry{group: g, index: index, value: image[p.offset : p.offset+p.length], from: p})
				if m.bytes >= moveBytes {
					if err := move(); err != nil {
						return err
					}
				}
			}
		}
		at = f.end
	}
	// Even if it is empty: when it was answered, what was seen to be deleted is
	// counted.
	if err := move(); err != nil {
		return err
	}
	if left := seg.live.Load(); left != 0 {
		panic(fmt.Sprintf("logstore: %d bytes are live in no place of segment %d", left, seg.number))
	}
	return nil
}
