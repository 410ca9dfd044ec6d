package gossip

import (
	"math"
	"time"

	"github.com/meshkv/meshkv/gossip/reconcile"
)

// summaries makes summaries due: every second while the replica changes, every
// 30 s otherwise, and at once where a session is wanted that the peer is to begin.
func (r *Replicator) summaries() {
	if len(r.order) == 0 {
		return
	}
	now, lim := r.nowNs, &r.cfg.Limits
	var current reconcile.Root
	taken := false
	for _, l := range r.order {
		if l.summaryDue || now-l.sentAt < int64(lim.SummaryEvery) {
			continue
		}
		if !taken {
			current, taken = r.root(), true
		}
		if now >= l.idleAt || current != l.sentRoot || l.differs() {
			l.summaryDue = true
		}
	}
}

// sendSummary encodes the summary that is due on l.
func (r *Replicator) sendSummary(l *link) {
	s := r.root()
	appendSummary(r.enc, summary{root: s, cut: r.lastCut(), ask: l.ask, wallMs: uint64(r.wallNs / int64(time.Millisecond))})
	r.stats.SummariesSent++
	l.summaryDue, l.ask = false, false
	l.sentRoot, l.sentAt = s, r.nowNs
	l.idleAt = r.idleAfter()
}

// idleAfter is when the next summary is due of a replica that does not change.
func (r *Replicator) idleAfter() int64 {
	idle := int64(r.cfg.Limits.SummaryIdle)
	return r.nowNs + idle - r.cfg.Rand.Int64N(idle/4+1) // spread over time
}

// How many summaries that differ for another reason than ops on their way mean a
// session. Under writes one of them may do so by chance: where an op coalesced
// with one that is older than the cut, or where two removed the same cell.
const (
	unequalQuiet = 2
	unequalBusy  = 3
	unequalCells = 10 // only the cells differ: rarely anything but chance
)

// inStep takes note that the peer of l has nothing that is missing here, nor the
// other way round, but for ops on their way. The calm after sessions lasts
// longer: they would come again and again if each ended it.
func (r *Replicator) inStep(l *link) {
	l.unequal = 0
	if r.nowNs >= l.calmAt+l.calm {
		l.calm = 0
	}
	if l.need == needSummary {
		l.need = needNone
	}
	r.summaryEqual(l)
}

// summary takes a peer's summary. One that differs at the start of a link, or some
// that do in a row, mean a session.
func (r *Replicator) summary(l *link, s summary) {
	r.stats.SummariesReceived++
	first := !l.heard
	l.heard, l.heardAt = true, r.nowNs
	l.heardRoot = r.root()
	if l.checking {
		l.checking, l.needAt = false, min(l.needAt, r.nowNs)
	}
	l.peerCells = int(min(s.root.Data.Count, math.MaxInt32))
	l.peerEmpty = l.peerCells == 0
	l.theirClock(s.wallMs, r.wallNs)
	if l.inSync = l.heardRoot == s.root; l.inSync {
		r.inStep(l)
		if s.ask && l.session == nil { // equal by now: what it wanted has arrived
			l.summaryDue = true
		}
		l.need, l.behind = needNone, false
		if r.root() == l.sentRoot { // the peer knows it, too: one of the two need say so
			l.idleAt = r.idleAfter()
		}
		return
	}
	if s.ask && !l.begin { // it wants to know whether the session that it is about to begin is still needed
		l.summaryDue = true
	}
	enough := unequalQuiet
	if !first {
		clock, data := r.compareCuts(s)
		switch {
		case clock && data:
			r.inStep(l)
		case clock:
			enough = unequalCells
		case s.cut != nil || len(r.strata.all) > 0:
			enough = unequalBusy
		}
		if clock && data && !(s.ask && l.begin) {
			return
		}
	}
	r.stats.SummariesUnequal++
	r.summaryDiffers(l, s.root)
	if l.unequal++; l.session != nil {
		return
	}
	switch {
	case s.ask && l.begin:
		if l.need == needStart {
			l.need = needNone // it need not wait any longer
		}
		r.require(l, needPeer, 0)
	case first && l.peerEmpty && r.replica.Cells().Len() > 0: // it chooses whom it asks
		r.require(l, needStart, sponsorGrace)
	case first && (l.begin || r.fillsFrom(l)):
		r.require(l, needStart, 0)
	case first: // the peer sees the same, and begins
		r.require(l, needStart, r.cfg.Limits.SummaryEvery)
	case l.unequal >= enough && r.nowNs >= l.calmAt:
		r.require(l, needSummary, 0)
	}
}
