package gossip

import (
	"math"
	"time"
)

// NextDue is when Tick next has something to do, if nothing else is called
// before: ticks until then may be left out without any other effect. It may be
// earlier than that, and in the past. False: never, as things stand. Whatever
// Tick comes to do must be foreseen here; a test of package sim compares.
func (r *Replicator) NextDue() (at time.Time, ok bool) {
	due := r.nextScrub()
	if r.ring.ops.Len() > 0 {
		due = min(due, r.ring.at(0).at+int64(r.ring.maxAge)+1)
	}
	if len(r.wants) > 0 {
		due = min(due, r.wants[0].due)
	}
	if len(r.lags.origins) > 0 {
		due = min(due, r.lags.turnAt)
	}
	switch {
	case r.beaconAt != 0:
		due = min(due, r.beaconAt, r.issuedAt+beaconFor)
	case r.issuedAt != 0 && r.nowNs-r.issuedAt < beaconFor:
		due = min(due, r.issuedAt) // to set the time of the first
	}
	due = r.acksDue(due)
	if len(r.order) > 0 {
		root := r.root()
		for _, l := range r.order {
			due = min(due, r.linkDue(l, l.differs() || root != l.sentRoot))
			switch {
			case !l.awake && r.ready(l):
				due = r.nowNs
			case r.cfg.Budget != nil && l.weight > budgetFloor: // it may have to go for what waits elsewhere
				due = r.nowNs
			}
		}
	}
	if due == math.MaxInt64 {
		return time.Time{}, false
	}
	return time.Unix(0, due-r.nowNs+r.wallNs), true
}

// linkDue is when a tick has something to do for l. changed: the peer may not
// know what the replica holds now.
func (r *Replicator) linkDue(l *link, changed bool) int64 {
	nowNs, lim := r.nowNs, &r.cfg.Limits
	due := int64(math.MaxInt64)
	if l.session != nil { // paced, timed out, or brought forward
		due = nowNs
	} else if l.need != needNone && l.met && !l.broken {
		due = max(l.needAt, nowNs)
	}
	if len(l.have) > 0 && !l.haveDue {
		due = min(due, l.haveAt+r.announceEvery(l))
	}
	if !l.summaryDue {
		at := l.sentAt + int64(lim.SummaryEvery)
		if !changed {
			at = max(at, l.idleAt)
		}
		due = min(due, at)
	}
	return due
}
