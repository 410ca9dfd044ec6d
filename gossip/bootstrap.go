package gossip

import (
	"cmp"
	"math/bits"
	"time"
)

// sponsorWait is how long an empty replica waits for the first summaries of links
// that have just come up, to have a choice.
const sponsorWait = int64(50 * time.Millisecond)

// sponsorGrace is how long an empty peer is left to ask another sponsor, before it
// is filled without having asked.
const sponsorGrace = 3 * time.Second

// filling reports whether a session fills this replica, which was empty.
func (r *Replicator) filling() bool {
	for _, l := range r.order {
		if s := l.session; s != nil && s.empty && !s.judged {
			return true
		}
	}
	return false
}

// SetNear tells whether the peer is in the zone of this node: an empty replica is
// filled from there, if it can be.
func (r *Replicator) SetNear(peer PeerID, near bool) {
	if l := r.links[peer]; l != nil {
		l.near = near
	}
}

// fillsFrom reports whether this replica is empty and the peer of l is not, as far
// as it said.
func (r *Replicator) fillsFrom(l *link) bool {
	return r.replica.Cells().Len() == 0 && l.heard && !l.peerEmpty
}

// sponsor is the link from which this replica, which is empty, is filled next: to
// a peer of the same zone, else the nearest one, else any by lot. One that is busy
// or silent waits for its next turn, and another one comes. wait: it is too early
// to choose, or one was chosen.
func (r *Replicator) sponsor() (best *link, wait bool) {
	if r.filling() || r.nowNs < r.askedTill {
		return nil, true
	}
	for _, l := range r.order {
		switch {
		case !l.heard && !l.broken && r.nowNs-l.since < sponsorWait:
			return nil, true
		case !r.fillsFrom(l) || !r.mayStart(l):
		case best == nil || l.closerThan(best):
			best = l
		}
	}
	return best, false
}

// filled asks the peers of the links other than l whether they hold anything else
// than what this replica was just filled with, before a session does.
func (r *Replicator) filled(l *link) {
	for _, x := range r.order {
		if x == l || x.need != needStart {
			continue
		}
		x.needAt = r.nowNs + int64(r.cfg.Limits.SummaryEvery)
		x.ask, x.summaryDue = true, true
		r.wake(x)
	}
}

// closerThan orders sponsors. Round trips of about the same length are equal, so
// that those who join at the same time do not all choose the same sponsor; the
// token of the link is the lot.
func (l *link) closerThan(other *link) bool {
	if l.near != other.near {
		return l.near
	}
	return cmp.Or(cmp.Compare(l.distance(), other.distance()), cmp.Compare(l.mine, other.mine)) < 0
}

// distance is the magnitude of the round trip; one that is not known is the
// longest.
func (l *link) distance() int {
	if l.rtt <= 0 {
		return 64
	}
	return bits.Len64(uint64(l.rtt / (100 * time.Microsecond)))
}

// A Bootstrap is how far an empty replica has been filled.
type Bootstrap struct {
	Running     bool
	Peer        PeerID // the sponsor; empty while none is chosen
	Total, Done int    // cells that the sponsor has, and those that have come
}

// Bootstrap is the progress of the session that fills this replica. It is running
// from the moment at which a peer is known to have something.
func (r *Replicator) Bootstrap() Bootstrap {
	empty := r.replica.Cells().Len() == 0
	b := Bootstrap{}
	for _, l := range r.order {
		if s := l.session; s != nil && s.empty && !s.judged {
			return Bootstrap{Running: true, Peer: l.peer, Total: int(s.core.PeerCells()), Done: int(s.core.Stats().ReceivedCells)}
		}
		if empty && l.heard && !l.peerEmpty {
			b.Running, b.Total = true, max(b.Total, l.peerCells)
		}
	}
	return b
}
