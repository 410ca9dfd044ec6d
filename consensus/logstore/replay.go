package logstore

import (
	"bytes"
	"cmp"
	crand "crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/raft"
	"github.com/meshkv/meshkv/storage"
)

// A replay is a journal that is being read.
type replay struct {
	store  *Store
	bytes  uint64 // of all segments, which bounds how many entries there can be
	groups map[uint32]*Group
	names  map[string]uint32
	next   uint32 // number of the next new group
	commit uint64 // number of the last frame, 0 if there was none
	sealed bool   // by the last frame
	closed bool   // likewise
}

// recover reads and verifies all segments, and brings the store into the state that
// they tell. What a crash left of the last commit is cut off.
func (s *Store) recover() error {
	numbers, err := s.list()
	if err != nil {
		return err
	}
	if len(numbers) == 0 {
		return s.begin()
	}
	r := &replay{store: s, groups: make(map[uint32]*Group), names: make(map[string]uint32)}
	for i, number := range numbers {
		if i > 0 && number != numbers[i-1]+1 {
			return s.missing(numbers[i-1] + 1)
		}
		seg, id, err := openSegment(s.dir, number)
		if err != nil {
			return err
		}
		s.segments = append(s.segments, seg)
		if i == 0 {
			s.id = id
		}
		if id != s.id {
			return seg.damage("it is of another store")
		}
		r.bytes += uint64(seg.size)
	}
	var image []byte
	for i, seg := range slices.Clone(s.segments) {
		if image, err = seg.read(image, seg.size); err != nil {
			return err
		}
		if i > 0 && !r.sealed { // it was made ahead
			if i < len(numbers)-1 || r.commit == 0 || zeros(image[segmentHead:]) != seg.size-segmentHead {
				return seg.damage("it is used, and the one before does not go on in it")
			}
			s.segments = s.segments[:i]
			s.fresh <- made{segment: seg}
			s.requested = true
			break
		}
		if err := r.segment(seg, image); err != nil {
			return err
		}
	}
	if r.sealed {
		return s.missing(numbers[len(numbers)-1] + 1)
	}
	if err := r.finish(); err != nil {
		return err
	}
	return s.secure()
}

// list is the numbers of the segments, ascending. What was never finished is removed.
func (s *Store) list() (numbers []uint32, err error) {
	files, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		if strings.HasSuffix(f.Name(), segmentSuffix+tempSuffix) {
			if err := os.Remove(filepath.Join(s.dir, f.Name())); err != nil {
				return nil, err
			}
		}
		hex, ok := strings.CutSuffix(f.Name(), segmentSuffix)
		if n, err := strconv.ParseUint(hex, 16, 32); ok && err == nil {
			numbers = append(numbers, uint32(n))
		}
	}
	slices.Sort(numbers)
	return numbers, nil
}

func (s *Store) missing(number uint32) error {
	return &storage.DamageError{File: segmentPath(s.dir, number), Reason: "it is missing"}
}

// begin makes an empty store.
func (s *Store) begin() error {
	var id [8]byte
	_, _ = crand.Read(id[:]) // never fails
	s.id, s.next = binary.LittleEndian.Uint64(id[:]), 1
	seg, err := createSegment(s.dir, s.id, 1, min(firstSegmentBytes, s.opts.segmentBytes), s.opts.datasync)
	if err != nil {
		return err
	}
	s.current, s.segments = seg, []*segment{seg}
	return nil
}

// secure brings to disk what was read. The last frame may have been read from the
// memory of the system: it is there after a crash of the process alone, and after
// an fsync that failed, when the system may take it for written. So it is written
// again. Behind it there must be zeros.
func (s *Store) secure() error {
	for _, seg := range s.segments[max(0, len(s.segments)-2):] { // the last frame may be the seal of the one before
		frame := make([]byte, seg.used-seg.frame)
		if _, err := seg.file.ReadAt(frame, seg.frame); err != nil {
			return err
		}
		if _, err := seg.file.WriteAt(frame, seg.frame); err != nil {
			return err
		}
		if seg.torn {
			if err := seg.clear(); err != nil {
				return err
			}
		}
		if err := s.opts.datasync(seg.file); err != nil {
			return err
		}
	}
	return syncDir(s.dir)
}

// segment reads the frames of seg.
func (r *replay) segment(seg *segment, image []byte) error {
	r.sealed = false
	oldest := r.commit == 0
	for !r.sealed {
		at := site{r.store.id, seg.number, seg.used}
		f, ok := parseFrame(image, at)
		switch {
		case !ok && oldest && seg.unused() && seg.number > 1:
			return seg.damage("it has no valid commit") // the one before was removed when this one had
		case !ok && !torn(image, at, r.commit+1):
			return seg.damage("the commit at %d is invalid", seg.used)
		case !ok:
			seg.torn = zeros(image[seg.used:]) < seg.size-seg.used
			return nil
		case f.commit != r.commit+1 && !(oldest && seg.unused() && f.commit > 0):
			return seg.damage("commit %d after %d", f.commit, r.commit)
		}
		if err := r.frame(seg, f, oldest); err != nil {
			return seg.damage("the commit at %d: %v", seg.used, err)
		}
		r.commit = f.commit
		seg.frame, seg.used = seg.used, f.end
	}
	return nil
}

// frame takes in the records of f, which is at the end of seg.
func (r *replay) frame(seg *segment, f frame, oldest bool) error {
	r.closed = false
	for rest := f.records; len(rest) > 0; {
		at := len(f.records) - len(rest)
		rec, behind, err := parseRecord(rest)
		if err != nil {
			return err
		}
		if begins := seg.unused() && at == 0; begins != (rec.kind == recordState) {
			return errors.New("a state is not where it belongs")
		}
		switch rec.kind {
		case recordState:
			seg.base.Store(int64(len(rest) - len(behind)))
			err = r.state(rec, oldest)
		case recordSeal:
			if r.sealed = true; at != 0 || len(behind) > 0 || rec.number != seg.number+1 {
				err = fmt.Errorf("seal for segment %d", rec.number)
			}
		case recordClose:
			if r.closed = true; at != 0 || len(behind) > 0 {
				err = errors.New("a closed store goes on")
			}
		case recordAdopt:
			err = r.adopt(rec)
		default:
			g := r.groups[rec.number]
			if g == nil {
				return fmt.Errorf("group %d is unknown", rec.number)
			}
			if rec.kind == recordRetire {
				delete(r.groups, rec.number)
				delete(r.names, g.next.name)
			} else {
				err = g.replay(rec, seg.number, seg.used+frameHeadBytes+int64(at))
			}
		}
		if err != nil {
			return err
		}
		rest = behind
	}
	return nil
}

// state begins with the groups of rec, or verifies that they are what was read.
func (r *replay) state(rec record, oldest bool) error {
	if !oldest {
		want := appendRecord(nil, stateRecord(r.next, maps.Values(r.groups)))
		if !bytes.Equal(want, appendRecord(nil, rec)) {
			return errors.New("the groups are not those of the segment before")
		}
		return nil
	}
	r.next = rec.number
	room := r.bytes / (lengthBytes + entryHeadBytes)
	for _, g := range rec.groups {
		n := g.held.count()
		if _, twice := r.names[g.name]; twice || g.name == "" || n > room {
			return fmt.Errorf("group %d", g.number)
		}
		room -= n
		r.add(g)
		r.groups[g.number].places = make(places, n) // to be found
	}
	return nil
}

func (r *replay) add(g groupState) {
	r.groups[g.number] = r.store.newGroup(g)
	r.names[g.name] = g.number
}

func (r *replay) adopt(rec record) error {
	_, known := r.names[rec.name]
	if known || rec.name == "" || rec.number != r.next || len(r.groups) == maxGroups {
		return fmt.Errorf("group %d is not new", rec.number)
	}
	r.next++
	r.add(groupState{number: rec.number, name: rec.name, stable: map[string][]byte{}})
	return nil
}

// replay takes in a record of the group, which is at the given offset of a segment.
func (g *Group) replay(rec record, segment uint32, offset int64) error {
	held := &g.next.held
	switch rec.kind {
	case recordSet:
		g.next.stable[rec.key] = rec.value
		if len(g.next.stable) > maxStableKeys {
			return errors.New("too many stable values")
		}
		return nil
	case recordSpan:
		if !rec.held.within(*held) || rec.held != (span{}) && rec.held.first != held.first && rec.held.last != held.last {
			return fmt.Errorf("entries %d to %d of %d to %d", rec.held.first, rec.held.last, held.first, held.last)
		}
		g.places, _ = g.places.cut(*held, rec.held)
		*held = rec.held
		return nil
	}
	end := rec.first + uint64(len(rec.values)) - 1
	switch {
	case rec.kind == recordMove && !(span{rec.first, end}).within(*held):
		return fmt.Errorf("entries %d to %d are moved out of %d to %d", rec.first, end, held.first, held.last)
	case rec.kind == recordAppend && held.last != 0 && rec.first != held.last+1:
		return fmt.Errorf("entry %d after %d", rec.first, held.last)
	case rec.kind == recordAppend:
		held.first, held.last = cmp.Or(held.first, rec.first), end
		g.places = slices.Grow(g.places, len(rec.values))[:held.count()]
	}
	var log raft.Log
	for index, p := range rec.entries(segment, offset) {
		if err := decodeEntry(entryID{g.next.number, index}, rec.values[index-rec.first], &log); err != nil {
			return fmt.Errorf("entry %d %w", index, err)
		}
		g.places[index-held.first] = p
	}
	return nil
}

// finish makes the store what was read.
func (r *replay) finish() error {
	s := r.store
	for number, g := range r.groups {
		for i, p := range g.places {
			if p == (place{}) {
				return &storage.DamageError{File: s.dir,
					Reason: fmt.Sprintf("group %q: entry %d is missing", g.next.name, g.next.held.first+uint64(i))}
			}
			s.segment(p.segment).live.Add(p.bytes())
		}
		g.held, g.stable = g.next.held, maps.Clone(g.next.stable)
		s.known[g.next.name], s.numbers[number] = g, g
	}
	if r.next == 0 { // nothing was ever committed
		r.next = 1
	}
	s.next, s.commit, s.closed = r.next, r.commit, r.closed
	s.current = s.segments[len(s.segments)-1]
	return nil
}
