package reconcile

import (
	"slices"

	"github.com/meshkv/meshkv/crdt"
)

// output is one payload that is being written.
type output struct {
	head, end int // of the encoder's bytes: before the first message, and the limit
}

// NextMessage appends the next payload for the peer to buf: at most limit
// bytes, which should be 4 KiB or more, but for a single message that is
// larger. It reports false, and returns buf as it was, if there is nothing to
// send before the next Step. Call Concluded afterwards.
func (s *Session) NextMessage(buf []byte, limit int) ([]byte, bool) {
	if !s.Ready() {
		return buf, false
	}
	s.scanned = 0
	start := len(buf)
	s.enc.Reset(buf)
	s.enc.Uint(s.id)
	o := output{head: s.enc.Len(), end: start + limit - reserveBytes}
	for s.write(&o) {
	}
	s.writeEnds()
	if s.doneDue() && s.room(&o, 1) {
		s.enc.Uint(kindDone)
		s.finished = true
	}
	if s.enc.Len() == o.head {
		if s.scanned < s.limits.scan {
			return s.enc.Bytes()[:start], false
		}
		s.enc.Uint(kindNothing) // so that the caller asks again
	}
	out := s.enc.Bytes()
	s.stats.SentBytes += uint64(len(out) - start)
	s.stats.SentPayloads++
	return out, true
}

// Ready reports whether NextMessage may have something to send.
func (s *Session) Ready() bool {
	switch {
	case s.err != nil, s.finished:
		return false
	case s.greet, len(s.pending) > 0, s.unacked >= s.limits.flight/4, len(s.wants) > 0, s.ends > 0,
		len(s.wanted) > 0 && s.flight < s.limits.flight, len(s.tasks) > 0 && !s.blocked:
		return true
	}
	return s.mayQuery() || s.doneDue()
}

// mayQuery reports whether the initiator has a query to send, and may.
func (s *Session) mayQuery() bool {
	if s.current != nil {
		return true
	}
	n := len(s.queries)
	if n == 0 || s.openN >= s.limits.queries || len(s.tasks) >= s.limits.tasks {
		return false
	}
	// Sums may be replied to with 16 sums of 16. One is always let through.
	return s.openSums == 0 || !isSums(s.queries[n-1].kind) || n+fanout*fanout*s.openSums <= s.limits.stack
}

func isSums(kind uint8) bool { return kind == kindClockSums || kind == kindDataSums }

// doneDue reports whether the initiator has sent and received everything.
func (s *Session) doneDue() bool {
	return s.initiator && !s.finished && s.complete() && len(s.wanted) == 0 && s.offeredN == 0 && len(s.wants) == 0
}

// room reports whether n bytes more fit into the payload, or must.
func (s *Session) room(o *output, n int) bool { return s.enc.Len()+n <= o.end || s.enc.Len() == o.head }

// write writes the next message, if there is one that may go and fits.
func (s *Session) write(o *output) bool {
	switch {
	case s.greet:
		s.writeGreeting()
	case len(s.pending) > 0:
		return s.writePending(o)
	case s.unacked >= s.limits.flight/4:
		if !s.room(o, headerBytes) {
			return false
		}
		s.enc.Uint(kindAck)
		s.enc.Uint(uint64(s.unacked))
		s.unacked = 0
	case len(s.wants) > 0:
		if !s.room(o, headerBytes+len(s.wants[0])) {
			return false
		}
		s.enc.Uint(kindWant)
		s.enc.Bin(s.wants[0])
		s.wants = s.wants[1:]
	case len(s.wanted) > 0 && s.flight < s.limits.flight:
		if !s.writeCell(o, s.wanted[0]) {
			return false
		}
		s.wanted[0] = nil
		s.wanted = s.wanted[1:]
	case s.mayQuery():
		return s.writeQuery(o)
	case len(s.tasks) > 0 && !s.blocked && s.scanned < s.limits.scan:
		return s.writeTask(o)
	default:
		return false
	}
	return true
}

// writeEnds tells how many queries are finished.
func (s *Session) writeEnds() {
	if s.ends == 0 {
		return
	}
	s.enc.Uint(kindEnd)
	s.enc.Uint(s.ends)
	s.ends = 0
}

// writeGreeting opens or accepts the session.
func (s *Session) writeGreeting() {
	s.greet = false
	kind := uint64(kindAccept)
	if s.initiator {
		kind = kindOpen
	}
	clock, data := s.clock.sum(prefix{}), s.snap.Data.Root()
	for _, u := range []uint64{kind, version, clock.Hash, clock.Count, data.Hash, data.Count, uint64(len(s.pending))} {
		s.enc.Uint(u)
	}
}

func (s *Session) writePending(o *output) bool {
	n := min(len(s.pending), spansMax, max((o.end-s.enc.Len()-headerBytes)/32, 1))
	if !s.room(o, headerBytes+32*n) {
		return false
	}
	s.enc.Uint(kindPending)
	s.enc.Dots(s.pending[:n])
	s.pending = s.pending[n:]
	return true
}

// writeCell sends one cell. The caller has checked the window.
func (s *Session) writeCell(o *output, c *crdt.Cell) bool {
	if !s.room(o, cellBytes(c)) {
		return false
	}
	s.enc.Uint(kindCell)
	before := s.enc.Len()
	s.enc.Cell(c)
	n := s.enc.Len() - before
	s.flight += n
	s.stats.SentCells++
	s.stats.SentCellBytes += uint64(n)
	return true
}

// writeQuery sends the initiator's next query, or goes on with one.
func (s *Session) writeQuery(o *output) bool {
	if s.current == nil {
		last := len(s.queries) - 1
		t := s.queries[last]
		s.queries[last] = task{}
		s.queries = s.queries[:last]
		s.current = &t
	}
	began := s.current.sent
	done, wrote := s.writeAbout(o, s.current)
	if wrote && !began {
		if len(s.open) > 2*s.limits.queries {
			s.open = append(s.open[:0], s.open[len(s.open)-s.openN:]...)
		}
		s.open = append(s.open, query{kind: s.current.kind, prefix: s.current.prefix})
		s.openN++
		if isSums(s.current.kind) {
			s.openSums++
		}
	}
	if done {
		s.current = nil
	}
	return wrote
}

// writeTask goes on with the first task.
func (s *Session) writeTask(o *output) bool {
	t := &s.tasks[0]
	switch t.kind {
	case taskEnd:
		s.openN--
		s.ends++
	case taskSettle:
		if !s.writeSettle(o, t.settling) {
			return false
		}
		if a, some := s.answer(t.prefix, t.settling); some {
			if s.initiator {
				s.push(a)
				break
			}
			*t = a
			return true
		}
	default:
		done, wrote := s.writeAbout(o, t)
		if !done {
			return wrote
		}
	}
	s.tasks[0] = task{}
	s.tasks = s.tasks[1:]
	return true
}

// writeAbout writes the message about a prefix that t is, or a part of it.
func (s *Session) writeAbout(o *output, t *task) (done, wrote bool) {
	switch t.kind {
	case kindClockSums, kindDataSums:
		if !s.room(o, headerBytes+sumsBytes) {
			return false, false
		}
		var sums [fanout]Sum
		if t.kind == kindClockSums {
			sums = s.clock.children(t.prefix)
		} else {
			sums = s.snap.Data.children(t.prefix)
		}
		s.about(t)
		s.blob(appendSums(s.scratch[:0], &sums))
	case kindDataList:
		cells := s.listing(t.prefix)
		if !s.room(o, headerBytes+dotBytes*len(cells)) {
			return false, false
		}
		s.about(t)
		s.writeDots(cells)
	case kindAnswer:
		if !s.room(o, headerBytes+2*len(t.absent)) {
			return false, false
		}
		s.about(t)
		s.enc.Bin(t.absent)
		s.enc.Bin(t.want)
	case kindAsk:
		if !s.room(o, headerBytes) {
			return false, false
		}
		s.about(t)
	case kindClockList, kindClockDiff:
		return s.writeEntries(o, t)
	}
	return true, true
}

// about begins a message about a prefix.
func (s *Session) about(t *task) {
	t.sent = true
	s.writeEnds() // replies belong to the oldest query that has not ended
	s.enc.Uint(uint64(t.kind))
	putPrefix(s.enc, t.prefix)
}

// blob writes opaque bytes that were appended to scratch.
func (s *Session) blob(b []byte) {
	s.enc.Uint(uint64(len(b)))
	s.enc.Raw(b)
	s.scratch = b
}

func (s *Session) writeDots(cells []*crdt.Cell) {
	dots := make([]crdt.Dot, len(cells))
	for i, c := range cells {
		dots[i] = c.Dot
	}
	s.blob(appendDots(s.scratch[:0], dots))
}

// writeEntries writes as many pieces of a clock list or diff as fit.
func (s *Session) writeEntries(o *output, t *task) (done, wrote bool) {
	if t.kind == kindClockList && !t.begun {
		t.begun = true
		for _, it := range s.clock.under(t.prefix) {
			t.rest = appendPieces(t.rest, it.inc, it.entry, s.limits.islands)
		}
	}
	size, n := headerBytes, 0
	if !t.sent {
		size += len(t.absent) + 8
	}
	for ; n < len(t.rest); n++ {
		more := pieceBytes(t.rest[n])
		if n > 0 && s.enc.Len()+size+more > o.end {
			break
		}
		size += more
	}
	if !s.room(o, size) {
		return false, false
	}
	first := !t.sent
	s.about(t)
	s.enc.Bool(n < len(t.rest))
	if first && t.kind == kindClockDiff {
		s.enc.Bin(t.absent)
	}
	s.enc.ArrayLen(n)
	for _, p := range t.rest[:n] {
		s.enc.Entry(p.inc, p.entry)
	}
	t.rest = t.rest[n:]
	return len(t.rest) == 0, true
}

// writeSettle decides on the own cells under a prefix one by one, and offers
// those that the peer does not know. It reports false if it has to pause.
func (s *Session) writeSettle(o *output, t *settling) (done bool) {
	for {
		c := t.held
		t.held = nil
		if c == nil {
			if s.scanned >= s.limits.scan {
				return false
			}
			if c = t.walk.next(); c == nil {
				break
			}
			s.scanned++
			if i, ok := slices.BinarySearchFunc(t.peer, c.Dot, crdt.Dot.Compare); ok {
				t.found.set(i)
				continue
			}
			if s.known.Has(c.Dot) {
				s.drop(c.Dot)
				continue
			}
			if !t.values {
				t.offers = append(t.offers, c)
				continue
			}
		}
		if s.flight >= s.limits.flight {
			s.blocked = true
		}
		if s.blocked || !s.writeCell(o, c) {
			t.held = c
			return false
		}
	}
	if len(t.offers) == 0 {
		return true
	}
	if s.offeredN+len(t.offers) > s.limits.offered && s.offeredN > 0 {
		s.blocked = true
		return false
	}
	if !s.room(o, headerBytes+dotBytes*len(t.offers)) {
		return false
	}
	slices.SortFunc(t.offers, byDot)
	s.enc.Uint(kindOffer)
	s.writeDots(t.offers)
	s.offered = append(s.offered, t.offers)
	s.offeredN += len(t.offers)
	s.stats.Offered += uint64(len(t.offers))
	t.offers = nil
	return true
}
