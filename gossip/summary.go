package gossip

import (
	"encoding/binary"

	"github.com/cespare/xxhash/v2"

	"github.com/meshkv/meshkv/crdt"
)

// clockSum is the sum of the hashes of a clock's entries, kept up to date
// lazily: entries that changed are hashed when the sum is asked for.
type clockSum struct {
	seed   uint64
	total  uint64
	hashes map[crdt.Inc]uint64
	last   crdt.Inc // the entry that changed last, which is not in dirty
	dirty  map[crdt.Inc]struct{}
	buf    []byte
}

func newClockSum(seed uint64) clockSum {
	return clockSum{seed: seed, hashes: make(map[crdt.Inc]uint64), dirty: make(map[crdt.Inc]struct{})}
}

// touch notes that the entry of inc changed.
func (s *clockSum) touch(inc crdt.Inc) {
	if inc == s.last {
		return
	}
	if s.last != 0 {
		s.dirty[s.last] = struct{}{}
	}
	s.last = inc
}

// sum is the sum for c, whose changes were all reported.
func (s *clockSum) sum(c *crdt.Clock) Sum {
	if s.last != 0 {
		s.update(c, s.last)
		s.last = 0
	}
	for inc := range s.dirty { // addition commutes, so the order does not matter
		s.update(c, inc)
	}
	clear(s.dirty)
	return Sum{Hash: s.total, Count: uint64(len(s.hashes))}
}

func (s *clockSum) update(c *crdt.Clock, inc crdt.Inc) {
	h := s.hash(inc, c.Entry(inc))
	s.total += h - s.hashes[inc]
	s.hashes[inc] = h
}

func (s *clockSum) hash(inc crdt.Inc, en crdt.Entry) uint64 {
	b := binary.LittleEndian.AppendUint64(s.buf[:0], s.seed)
	b = binary.LittleEndian.AppendUint64(b, uint64(inc))
	b = binary.LittleEndian.AppendUint64(b, en.Prefix)
	if en.Closed {
		b = append(b, 1)
	}
	for _, iv := range en.Islands {
		b = binary.LittleEndian.AppendUint64(b, iv.Lo)
		b = binary.LittleEndian.AppendUint64(b, iv.Hi)
	}
	s.buf = b
	return xxhash.Sum64(b)
}

func (r *Replicator) sums() sums {
	data, clock := r.Root()
	return sums{data: data, clock: clock}
}

// summaries makes summaries due: every second while the replica changes, every
// 30 s otherwise, and at once where a session is wanted that the peer is to begin.
func (r *Replicator) summaries() {
	if len(r.order) == 0 {
		return
	}
	now, lim := r.nowNs, &r.cfg.Limits
	var current sums
	taken := false
	for _, l := range r.order {
		if l.summaryDue || now-l.sentAt < int64(lim.SummaryEvery) {
			continue
		}
		if !taken {
			current, taken = r.sums(), true
		}
		if now >= l.idleAt || current != l.sentSums || l.unequal > 0 {
			l.summaryDue = true
		}
	}
}

// sendSummary encodes the summary that is due on l.
func (r *Replicator) sendSummary(l *link) {
	s := r.sums()
	appendSummary(r.enc, summary{data: s.data, clock: s.clock, ask: l.ask})
	r.stats.SummariesSent++
	l.summaryDue, l.ask = false, false
	l.sentSums, l.sentAt = s, r.nowNs
	idle := int64(r.cfg.Limits.SummaryIdle)
	l.idleAt = r.nowNs + idle - r.cfg.Rand.Int64N(idle/4+1) // spread over time
}

// summary takes a peer's summary. Unequal to ours at the start of a link, or
// twice running, means a session.
func (r *Replicator) summary(l *link, s summary) {
	r.stats.SummariesReceived++
	first := !l.heard
	l.heard = true
	l.peerEmpty = s.data.Count == 0
	mine := r.sums()
	if l.inSync = mine.data == s.data && mine.clock == s.clock; l.inSync {
		l.unequal, l.calm = 0, 0
		if s.ask && l.session == nil { // equal by now: what it wanted has arrived
			l.summaryDue = true
		}
		if l.need != needAsked {
			l.need, l.behind = needNone, false
		}
		return
	}
	r.stats.SummariesUnequal++
	if l.unequal++; l.session != nil {
		return
	}
	switch {
	case s.ask && l.begin:
		r.require(l, needPeer, 0)
	case first && l.begin:
		r.require(l, needStart, 0)
	case first: // the peer sees the same, and begins
		r.require(l, needStart, r.cfg.Limits.SummaryEvery)
	case l.unequal >= 2 && r.nowNs >= l.calmAt:
		r.require(l, needSummary, 0)
	}
}
