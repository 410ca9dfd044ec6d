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
// not take everybody's with it.
type fuse struct {
	verdicts []verdict
	openTill int64 // the operator lets everything pass until then
}

// held is the number of drops in the largest verdict that waits.
func (f *fuse) held() (n int) {
	for _, v := range f.verdicts {
		n = max(n, v.count)
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

// allows decides whether the session with peer may drop the dots, which are
// live here. Dots that an earlier verdict of another peer names do not count,
// nor, where no other peer is linked, those of a verdict of the same peer that
// is at least FuseRetry old.
func (r *Replicator) allows(peer PeerID, dots crdt.Dots) bool {
	lim := &r.cfg.Limits
	limit := max(lim.FuseDrops, r.replica.Cells().Len()*lim.FusePercent/100)
	count := size(dots)
	if count <= limit {
		return true
	}
	r.forgetVerdicts()
	if r.nowNs < r.fuse.openTill {
		r.stats.FuseReleased++
		r.fuse.verdicts = nil
		return true
	}
	rest := dots
	since := r.nowNs
	for _, v := range r.fuse.verdicts {
		old := r.nowNs-v.at >= int64(lim.FuseRetry)
		if v.peer == peer {
			since = min(since, v.at)
		}
		if v.peer != peer || len(r.order) == 1 && old {
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

func (r *Replicator) forgetVerdicts() {
	kept := r.fuse.verdicts[:0]
	for _, v := range r.fuse.verdicts {
		if r.nowNs-v.at < int64(fuseMemory) {
			kept = append(kept, v)
		}
	}
	r.fuse.verdicts = kept
}
