package gossip

import (
	"time"

	"github.com/meshkv/meshkv/crdt"
)

// fuseMemory is how long a verdict counts.
const fuseMemory = 10 * time.Minute

// maxVerdicts bounds the verdicts kept: the oldest is forgotten.
const maxVerdicts = 4

// verdict is what the session with one peer would have dropped.
type verdict struct {
	peer  PeerID
	dots  crdt.Dots
	count int
	at    int64
}

// fuse holds back sessions that would drop a large part of the keyspace, until
// a second verdict agrees: a peer that lost its cells and kept its clock must
// not take everybody's with it. See docs/adr/0004-when-the-fuse-holds.md.
type fuse struct {
	verdicts []verdict
	openTill int64 // the operator lets everything pass until then
}

// held is the number of drops in the largest verdict that waits.
func (f *fuse) held(nowNs int64) (n int) {
	for _, v := range f.verdicts {
		if nowNs-v.at < int64(fuseMemory) {
			n = max(n, v.count)
		}
	}
	return n
}

// OpenFuse lets sessions drop any number of cells for the time given: the
// operator's override.
func (r *Replicator) OpenFuse(now time.Time, d time.Duration) {
	r.begin(now)
	r.fuse.openTill = r.nowNs + int64(d)
	for _, v := range r.fuse.verdicts {
		if l := r.links[v.peer]; l != nil {
			r.require(l, needAsked, 0)
		}
	}
	r.startSessions()
}

// allows decides whether the session with peer, whose clock is theirs, may drop
// the dots, which are live here.
//
// A removal is a write with a dot of its own, so drops that are no more than the
// dots that the peer's clock teaches are ordinary: a peer that lost cells lost
// them without a dot. Of other drops, those do not count that an earlier verdict
// of another peer names, nor, where no other peer has a verdict to give, those
// of a verdict of the same peer that is at least FuseRetry old.
func (r *Replicator) allows(peer PeerID, theirs *crdt.Clock, dots crdt.Dots) bool {
	lim := &r.cfg.Limits
	limit := max(lim.FuseDrops, r.replica.Cells().Len()*lim.FusePercent/100)
	count := size(dots)
	if count <= limit || count <= r.taught(theirs, dots) {
		return true
	}
	r.forgetVerdicts()
	if r.nowNs < r.fuse.openTill {
		r.stats.FuseReleased++
		r.fuse.verdicts = nil
		return true
	}
	since := r.nowNs
	for _, v := range r.fuse.verdicts {
		if v.peer == peer {
			since = min(since, v.at)
		}
	}
	alone := r.nowNs-since >= int64(lim.FuseRetry) && r.noOtherVerdict(peer, since)
	rest := dots
	for _, v := range r.fuse.verdicts {
		if v.peer != peer || alone {
			rest = minus(rest, v.dots)
		}
	}
	if size(rest) <= limit {
		r.stats.FuseReleased++
		r.fuse.verdicts = nil
		return true
	}
	r.stats.FuseBlown++
	kept := r.fuse.verdicts[:0]
	for _, v := range r.fuse.verdicts {
		if v.peer != peer {
			kept = append(kept, v)
		}
	}
	if len(kept) >= maxVerdicts {
		kept = kept[1:]
	}
	// The first time is kept, so that a verdict that is repeated grows old.
	r.fuse.verdicts = append(kept, verdict{peer: peer, dots: dots, count: count, at: since})
	return false
}

// taught is the number of dots in theirs that are new here. Those of the drops
// are not counted: a provisional cell is no proof that it was removed.
func (r *Replicator) taught(theirs *crdt.Clock, drops crdt.Dots) int {
	ours := r.replica.Clock()
	var news crdt.Dots
	for _, inc := range theirs.Incs() {
		news = append(news, ours.Missing(theirs.Entry(inc).Dots(inc))...)
	}
	return size(minus(news, drops))
}

// noOtherVerdict reports whether no peer but the one given can say more about a
// verdict that is as old as since: every other link is in sync, or had a session
// since then that was concluded.
func (r *Replicator) noOtherVerdict(peer PeerID, since int64) bool {
	for _, l := range r.order {
		if l.peer != peer && !l.inSync && l.concludedAt <= since {
			return false
		}
	}
	return true
}

func (r *Replicator) forgetVerdicts() {
	kept := r.fuse.verdicts[:0]
	for _, v := range r.fuse.verdicts {
		if r.nowNs-v.at < int64(fuseMemory) {
			kept = append(kept, v)
		}
	}
	r.fuse.verdicts = kept
}
