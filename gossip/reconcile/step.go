package reconcile

import (
	"github.com/meshkv/meshkv/crdt"
)

// Step takes one payload from the peer. Payloads must come complete and in
// order. Then call TakeProvided, after that Concluded, and NextMessage.
func (s *Session) Step(payload []byte) error {
	if s.err != nil {
		return s.err
	}
	s.stats.ReceivedBytes += uint64(len(payload))
	s.stats.ReceivedPayloads++
	s.err = s.step(payload)
	return s.err
}

func (s *Session) step(payload []byte) error {
	s.dec.Reset(payload)
	id, err := s.dec.Uint()
	if err != nil {
		return err
	}
	if id != s.id {
		return violated("payload of session %d in session %d", id, s.id)
	}
	for s.dec.Len() > 0 {
		kind, err := s.dec.Uint()
		if err != nil {
			return err
		}
		if err := s.message(kind); err != nil {
			return err
		}
	}
	s.advance()
	return nil
}

// advance begins the second phase of the initiator once the first is over.
func (s *Session) advance() {
	if !s.initiator || s.settled || !s.greeted || s.spans > 0 ||
		len(s.queries) > 0 || s.current != nil || s.openN > 0 {
		return
	}
	s.settle()
	s.compareData(prefix{}, s.roots.Data)
}

// message takes one message off the payload.
func (s *Session) message(kind uint64) error {
	if kind == kindAbort {
		return ErrAborted
	}
	if kind == kindNothing {
		return nil
	}
	if opening := kind == kindOpen || kind == kindAccept; opening || !s.greeted {
		if s.greeted || kind != kindOpen && !s.initiator || kind != kindAccept && s.initiator {
			return violated("message %d is out of place", kind)
		}
		return s.greeting()
	}
	if s.finished && !s.initiator {
		return violated("message %d after the end", kind)
	}
	switch kind {
	case kindPending:
		return s.takePending()
	case kindClockSums, kindClockList, kindClockDiff:
		if s.settled {
			return violated("message %d after the clocks", kind)
		}
		return s.clockMessage(uint8(kind))
	case kindEnd:
		return s.takeEnd()
	}
	if !s.settled {
		// The initiator settles by itself, and the responder by the first
		// message of the second phase.
		if s.initiator || s.spans > 0 || s.entries.more {
			return violated("message %d before the clocks are complete", kind)
		}
		s.settle()
	}
	if s.taken && kind != kindWant && kind != kindAck {
		return violated("message %d after the conclusion", kind)
	}
	switch kind {
	case kindDataSums, kindDataList, kindAnswer, kindAsk:
		return s.dataMessage(uint8(kind))
	case kindOffer:
		return s.takeOffer()
	case kindWant:
		return s.takeWant()
	case kindCell:
		return s.takeCell()
	case kindAck:
		n, err := s.dec.Uint()
		if err == nil && n > uint64(s.flight) {
			err = violated("acknowledgement of what was not sent")
		}
		if err == nil {
			s.flight -= int(n)
			s.blocked = false
		}
		return err
	case kindDone:
		if s.initiator || s.openN > 0 || len(s.tasks) > 0 || len(s.wanted) > 0 || s.offeredN > 0 || s.awaited > 0 {
			return violated("early end")
		}
		s.finished = true
		return nil
	}
	return violated("unknown message %d", kind)
}

// greeting takes the peer's roots.
func (s *Session) greeting() error {
	var fields [6]uint64
	for i := range fields {
		u, err := s.dec.Uint()
		if err != nil {
			return err
		}
		fields[i] = u
	}
	if fields[0] != version {
		return violated("version %d, not %d", fields[0], version)
	}
	s.greeted = true
	s.roots = Root{Clock: Sum{fields[1], fields[2]}, Data: Sum{fields[3], fields[4]}}
	s.spans = fields[5]
	if s.spans > pendingMax {
		return violated("%d spans of pending deaths", s.spans)
	}
	return nil
}

// takePending takes some spans of D⁰.
func (s *Session) takePending() error {
	d, err := s.dec.Dots(spansMax)
	if err != nil {
		return err
	}
	if uint64(len(d)) > s.spans {
		return violated("more pending deaths than announced")
	}
	s.spans -= uint64(len(d))
	for _, sp := range d {
		// Conclude walks the dots one by one, so their number counts.
		if s.dots += sp.Hi - sp.Lo + 1; s.dots > pendingMax || sp.Hi-sp.Lo >= pendingMax {
			return violated("too many pending deaths")
		}
		if n := len(s.known.Pending); n > 0 {
			if last := s.known.Pending[n-1]; sp.Inc < last.Inc || sp.Inc == last.Inc && sp.Lo <= last.Hi+1 {
				return violated("pending deaths out of order")
			}
		}
		s.known.Pending = append(s.known.Pending, sp)
	}
	return nil
}

// begin checks that a message about prefix p is a query that may be sent, or
// one of the replies to the oldest query.
func (s *Session) begin(kind uint8, p prefix) error {
	if !s.initiator {
		if s.openN == s.limits.queries {
			return violated("too many queries")
		}
		s.openN++
		return nil
	}
	if s.openN == 0 {
		return violated("reply without query")
	}
	q := &s.open[len(s.open)-s.openN]
	switch {
	case kind == kindAnswer && q.kind == kindDataList,
		kind == kindClockDiff && q.kind == kindClockList,
		kind == kindDataList && q.kind == kindAsk:
		if p != q.prefix || q.seen != 0 {
			return violated("reply to another query")
		}
		q.seen = 1
		return nil
	case q.kind == kindClockSums && (kind == kindClockSums || kind == kindClockList),
		q.kind == kindDataSums && (kind == kindDataSums || kind == kindDataList || kind == kindAsk):
		if p.depth == 0 {
			return violated("reply to another query")
		}
		up, i := p.parent()
		if up != q.prefix || q.seen>>i&1 != 0 {
			return violated("reply to another query")
		}
		q.seen |= 1 << i
		return nil
	}
	return violated("message %d does not answer the query", kind)
}

// end follows everything that a query gives rise to at the responder.
func (s *Session) end() {
	if !s.initiator {
		s.push(task{kind: taskEnd})
	}
}

func (s *Session) takeEnd() error {
	n, err := s.dec.Uint()
	if err != nil {
		return err
	}
	if !s.initiator || n > uint64(s.openN) || s.entries.more {
		return violated("end of a query that was not asked")
	}
	for _, q := range s.open[len(s.open)-s.openN:][:n] {
		if isSums(q.kind) {
			s.openSums--
		}
	}
	s.openN -= int(n)
	return nil
}

// clockMessage takes sums or entries of a prefix of the clock.
func (s *Session) clockMessage(kind uint8) error {
	if s.entries.more && kind != s.entries.kind {
		return violated("entries were cut off")
	}
	p, err := takePrefix(s.dec)
	if err != nil {
		return err
	}
	if kind != kindClockSums {
		return s.takeEntries(kind, p)
	}
	if err := s.begin(kind, p); err != nil {
		return err
	}
	sums, err := s.takeSums(p)
	if err != nil {
		return err
	}
	for i := range sums {
		s.compareClock(p.child(i), sums[i])
	}
	s.end()
	return nil
}

func (s *Session) takeSums(p prefix) (sums [fanout]Sum, err error) {
	if p.depth == maxDepth {
		return sums, violated("sums below the deepest prefix")
	}
	b, err := s.takeBlob(sumsBytes)
	if err != nil {
		return sums, err
	}
	return parseSums(b)
}

// takeBlob takes opaque bytes without copying them: they are valid until the
// end of the step.
func (s *Session) takeBlob(most int) ([]byte, error) {
	n, err := s.dec.Uint()
	if err != nil {
		return nil, err
	}
	if n > uint64(most) {
		return nil, violated("%d bytes, at most %d", n, most)
	}
	return s.dec.Raw(int(n))
}

// dataMessage takes what the peer tells of a prefix of the live cells.
func (s *Session) dataMessage(kind uint8) error {
	p, err := takePrefix(s.dec)
	if err != nil {
		return err
	}
	if err := s.begin(kind, p); err != nil {
		return err
	}
	switch kind {
	case kindDataSums:
		sums, err := s.takeSums(p)
		if err != nil {
			return err
		}
		for i := range sums {
			s.compareData(p.child(i), sums[i])
		}
	case kindAsk:
		if s.listable(p) {
			s.push(task{kind: kindDataList, prefix: p})
			break
		}
		return violated("asked for a long list")
	case kindDataList:
		peer, err := s.takeDots(listMax(p))
		if err != nil {
			return err
		}
		s.settlePrefix(p, peer)
	case kindAnswer:
		if err := s.takeAnswer(p); err != nil {
			return err
		}
	}
	s.end()
	return nil
}

// listMax is how many dots a list of p may hold.
func listMax(p prefix) int {
	if p.depth == maxDepth {
		return deepListMax
	}
	return dataListMax
}

// listable reports whether the own cells under p are few enough to be listed.
func (s *Session) listable(p prefix) bool { return s.snap.Data.sum(p).Count <= uint64(listMax(p)) }

func (s *Session) takeDots(most int) ([]crdt.Dot, error) {
	b, err := s.takeBlob(most * dotBytes)
	if err != nil {
		return nil, err
	}
	return parseDots(b, most)
}

// takeAnswer takes which of the dots listed here the peer's S⁰ has not, and
// which cells it wants. The others among those are dead if it knew them.
func (s *Session) takeAnswer(p prefix) error {
	if !s.listable(p) {
		return violated("answer to no list")
	}
	cells := s.listing(p)
	absent, err := takeMask(s.dec, listMax(p))
	if err != nil {
		return err
	}
	want, err := takeMask(s.dec, listMax(p))
	if err != nil {
		return err
	}
	if !absent.fits(len(cells)) || !want.fits(len(cells)) {
		return violated("answer of another length")
	}
	for i, c := range cells {
		switch dead := s.known.Has(c.Dot); {
		case want.has(i) && (dead || !absent.has(i)):
			return violated("a known cell is wanted")
		case want.has(i):
			s.wanted = append(s.wanted, c)
		case absent.has(i) && dead:
			s.drop(c.Dot)
		}
	}
	return nil
}

// takeOffer takes the dots of cells that the peer has and that are not in C⁰
// here, and answers which are still lacking.
func (s *Session) takeOffer() error {
	dots, err := s.takeDots(offerMax)
	if err != nil {
		return err
	}
	if len(s.wants) == s.limits.offered {
		return violated("too many offers")
	}
	want := newMask(len(dots))
	for i, d := range dots {
		if !s.snap.has(d) && s.list(d) {
			want.set(i)
			s.await(d)
		}
	}
	s.wants = append(s.wants, want)
	return nil
}

// takeWant takes the answer to the oldest offer.
func (s *Session) takeWant() error {
	want, err := takeMask(s.dec, offerMax)
	if err != nil {
		return err
	}
	if len(s.offered) == 0 || !want.fits(len(s.offered[0])) {
		return violated("answer to no offer")
	}
	for i, c := range s.offered[0] {
		if want.has(i) {
			s.wanted = append(s.wanted, c)
		}
	}
	s.offeredN -= len(s.offered[0])
	s.offered[0] = nil
	s.offered = s.offered[1:]
	s.blocked = false
	return nil
}

// takeCell takes one cell, wanted or not.
func (s *Session) takeCell() error {
	before := s.dec.Len()
	c, err := s.dec.Cell()
	if err != nil {
		return err
	}
	n := before - s.dec.Len()
	s.unacked += n
	s.stats.ReceivedCells++
	s.stats.ReceivedCellBytes += uint64(n)
	if awaited, ok := s.listed[c.Dot]; ok {
		if awaited {
			s.awaited--
			s.listed[c.Dot] = false
		}
	} else if s.snap.has(c.Dot) || !s.list(c.Dot) {
		return nil // known here, or here already
	} else {
		s.listed[c.Dot] = false
	}
	s.provided = append(s.provided, c)
	return nil
}
