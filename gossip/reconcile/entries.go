package reconcile

import "github.com/meshkv/meshkv/crdt"

// entriesIn is a list of entries, or a diff, that arrives in several messages.
type entriesIn struct {
	kind   uint8
	more   bool // messages are to follow
	prefix prefix
	peer   []crdt.Inc // of a list: its incarnations so far, in order
	last   crdt.Inc   // whose pieces are being put together, if begun: it may be 0
	begun  bool
	entry  crdt.Entry
}

// takeEntries takes a part of a list or diff of the entries under p. What the
// peer listed there replaces what is known here; what it did not list, it does
// not have. A diff answers a list, and holds what is not the same.
func (s *Session) takeEntries(kind uint8, p prefix) error {
	in := &s.entries
	more, err := s.dec.Bool()
	if err != nil {
		return err
	}
	if !in.more {
		if err := s.begin(kind, p); err != nil {
			return err
		}
		*in = entriesIn{kind: kind, prefix: p}
		if err := s.forgetEntries(kind, p); err != nil {
			return err
		}
	} else if in.prefix != p {
		return violated("entries were cut off")
	}
	in.more = more
	n, err := s.dec.ArrayLen(clockMax)
	if err != nil {
		return err
	}
	if s.pieces += n; s.pieces > clockMax {
		return violated("a clock of too many entries")
	}
	for range n {
		if err := s.takePiece(); err != nil {
			return err
		}
	}
	if more {
		return nil
	}
	if kind == kindClockList {
		s.diffEntries(in)
	}
	*in = entriesIn{}
	s.end()
	return nil
}

// forgetEntries takes out of the peer's clock, which began as a copy of the own
// one, what it turned out not to have: everything until a list is read, and the
// entries that a diff masks.
func (s *Session) forgetEntries(kind uint8, p prefix) error {
	own := s.clock.under(p)
	if kind == kindClockList {
		for _, it := range own {
			s.known.Clock.Set(it.inc, crdt.Entry{})
		}
		return nil
	}
	absent, err := takeMask(s.dec, len(own))
	if err != nil {
		return err
	}
	if !absent.fits(len(own)) {
		return violated("diff of another length")
	}
	for i, it := range own {
		if absent.has(i) {
			s.known.Clock.Set(it.inc, crdt.Entry{})
		}
	}
	return nil
}

// takePiece takes an entry, or more islands of the one before.
func (s *Session) takePiece() error {
	in := &s.entries
	inc, e, err := s.dec.Entry()
	if err != nil {
		return err
	}
	if !in.prefix.contains(incPlace(s.seed, inc)) {
		return violated("entry elsewhere")
	}
	switch {
	case !in.begun || inc != in.last:
		in.begun, in.last, in.entry = true, inc, e
		if in.kind == kindClockList {
			in.peer = append(in.peer, inc)
		}
	case e.Prefix != 0 || len(e.Islands) == 0 || e.Islands[0].Lo-1 <= in.entry.Max():
		return violated("pieces of an entry out of order")
	default:
		in.entry.Islands = append(in.entry.Islands, e.Islands...)
	}
	s.known.Clock.Set(inc, in.entry)
	return nil
}

// diffEntries answers a list.
func (s *Session) diffEntries(in *entriesIn) {
	t := task{kind: kindClockDiff, prefix: in.prefix, absent: newMask(len(in.peer)), begun: true}
	empty := true
	for i, inc := range in.peer {
		if isEmpty(s.snap.Clock.Entry(inc)) {
			t.absent.set(i)
			empty = false
		}
	}
	for _, it := range s.clock.under(in.prefix) {
		if !it.entry.Equal(s.known.Clock.Entry(it.inc)) {
			t.rest = appendPieces(t.rest, it.inc, it.entry, s.limits.islands)
			empty = false
		}
	}
	if !empty {
		s.push(t)
	}
}

func isEmpty(e crdt.Entry) bool {
	return e.Prefix == 0 && len(e.Islands) == 0 && !e.Closed && !e.Sealed
}
