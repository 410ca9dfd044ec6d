package gossip

import (
	"slices"
	"time"

	"github.com/meshkv/meshkv/crdt"
	"github.com/meshkv/meshkv/gossip/reconcile"
)

const (
	// stillFor: two replicas that differ, and of which neither changes for so
	// long, wait for nothing that is under way.
	stillFor = int64(20 * time.Second)
	// unsettledFor: summaries that are never equal and no session that ends, for
	// so long, are an alarm, too.
	unsettledFor = int64(45 * time.Second)
	// maxDifferences bounds the sample of what a session found different.
	maxDifferences = 16
)

// A Reason says why a difference between two replicas is not taken for one that
// goes by itself.
type Reason uint8

// The reasons of an alarm.
const (
	ReasonNone      Reason = iota
	ReasonStill            // neither replica changes, and they differ
	ReasonAgain            // one session after the other finds the same cells different
	ReasonUnsettled        // they differ, and no session ends
)

// String is the reason for people.
func (r Reason) String() string {
	switch r {
	case ReasonStill:
		return "the replicas differ, and nothing changes on either"
	case ReasonAgain:
		return "sessions find the same cells different again and again"
	case ReasonUnsettled:
		return "the replicas differ, and no session comes to its end"
	default:
		return ""
	}
}

// A Difference is a cell that a session found on one side only.
type Difference struct {
	Dot  crdt.Dot
	Key  string // empty: the cell is not here
	Dead bool   // it was here and the peer knows that it was removed; else it came from there
}

// A Divergence is the alarm of one link. It begins at most 60 s after the first
// summaries that differ for a reason other than ops on their way, a session, or
// a replica that is empty. Under steady writes no two summaries need ever be
// equal, so it ends with one that is, or with a session that finds nothing new.
type Divergence struct {
	Peer    PeerID
	Reason  Reason
	Since   time.Time // of the first unequal summary
	Differs []Difference
}

// doubt is what a link remembers of summaries that were not equal.
type doubt struct {
	since        int64 // of the first after an equal one; 0: the last one was equal
	ours, theirs reconcile.Root
	pairAt       int64 // since when both have been these
	settledAt    int64 // when a session last ended with a conclusion
	busyAt       int64 // when one of the two was last too busy for a session
	found        []Difference
	alarm        Reason
}

// summaryEqual ends every doubt.
func (r *Replicator) summaryEqual(l *link) {
	r.agreed = true
	l.doubt = doubt{settledAt: l.doubt.settledAt, busyAt: l.doubt.busyAt}
}

// summaryDiffers takes note of an unequal summary, and raises the alarm if that
// cannot be explained. Only summaries do: where none come, it is the link that
// lags. A replica that was never equal to another is being filled, and so is an
// empty peer, however long they wait for their turn.
func (r *Replicator) summaryDiffers(l *link, theirs reconcile.Root) {
	d := &l.doubt
	if d.since == 0 {
		d.since = r.nowNs
	}
	if ours := r.root(); ours != d.ours || theirs != d.theirs {
		d.ours, d.theirs, d.pairAt = ours, theirs, r.nowNs
		if d.alarm == ReasonStill {
			d.alarm = ReasonNone
		}
	}
	switch {
	case !r.agreed || l.peerEmpty || r.sessionMoves(l):
	case r.nowNs-d.pairAt >= stillFor:
		r.alarm(l, ReasonStill)
	case r.nowNs-max(d.since, d.settledAt) >= unsettledFor:
		r.alarm(l, ReasonUnsettled)
	}
}

// sessionMoves reports whether a session explains why l is not in sync: its own,
// or that of another link which fills this replica.
func (r *Replicator) sessionMoves(l *link) bool {
	idle := int64(r.cfg.Limits.SessionIdle)
	if l.doubt.busyAt != 0 && r.nowNs-l.doubt.busyAt < idle {
		return true
	}
	for _, x := range r.order {
		if s := x.session; s != nil && (x == l || s.empty) && s.received > 0 && r.nowNs-s.activeAt < idle {
			return true
		}
	}
	return false
}

// foundOffered takes note of a cell that the peer has and this replica had not.
func (s *session) foundOffered(c *crdt.Cell) {
	if len(s.differs) < maxDifferences/2 {
		s.differs = append(s.differs, Difference{Dot: c.Dot, Key: c.Key})
	}
}

// foundDead takes note of cells of this replica that the peer knows to be dead.
// The lowest dots are those that are the longest different.
func (r *Replicator) foundDead(s *session, dots []crdt.Dot) {
	slices.SortFunc(dots, crdt.Dot.Compare)
	for _, dot := range dots[:min(len(dots), maxDifferences/2)] {
		x := Difference{Dot: dot, Dead: true}
		if c := r.replica.Cells().ByDot(dot); c != nil {
			x.Key = c.Key
		}
		s.differs = append(s.differs, x)
	}
}

// sessionEnds takes note of what a finished session found. What the fuse held
// back is found by the next one, too, for that reason.
func (r *Replicator) sessionEnds(l *link, s *session) {
	d := &l.doubt
	if s.held {
		return
	}
	again := slices.ContainsFunc(s.differs, func(x Difference) bool {
		return slices.ContainsFunc(d.found, func(y Difference) bool { return x.Dot == y.Dot && x.Dead == y.Dead })
	})
	d.found, d.settledAt = s.differs, r.nowNs
	switch {
	case again:
		r.alarm(l, ReasonAgain)
	case d.alarm != ReasonStill:
		d.alarm = ReasonNone
	}
	r.agreed = true
}

func (r *Replicator) alarm(l *link, why Reason) {
	if l.doubt.alarm == ReasonNone {
		r.stats.DivergenceAlarms++
	}
	l.doubt.alarm = why
	if l.doubt.since == 0 {
		l.doubt.since = r.nowNs
	}
}

// Divergences are the alarms, ascending by peer.
func (r *Replicator) Divergences() (all []Divergence) {
	for _, l := range r.order {
		if d := &l.doubt; d.alarm != ReasonNone {
			all = append(all, Divergence{
				Peer: l.peer, Reason: d.alarm, Since: time.Unix(0, d.since), Differs: slices.Clone(d.found),
			})
		}
	}
	return all
}
