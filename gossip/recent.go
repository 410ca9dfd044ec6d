package gossip

import (
	"time"

	"github.com/meshkv/meshkv/crdt"
)

// A RecentOp is an op of the ring, and when it came or was issued here.
type RecentOp struct {
	Op *crdt.Op
	At time.Time
}

// RecentOps is the recent ops that concern key, newest first: those of that key, and
// those of several keys, which only remove. There are as many as the ring holds, and
// none of before a link was up. It looks at the whole ring.
func (r *Replicator) RecentOps(key string) (ops []RecentOp) {
	for i := r.ring.ops.Len() - 1; i >= 0; i-- {
		if s := r.ring.at(i); s.op.Key == key || s.op.Key == "" {
			ops = append(ops, RecentOp{s.op, r.wallOf(s.at)})
		}
	}
	return ops
}

// RecentSince is when the oldest op of the ring came; zero if it holds none.
func (r *Replicator) RecentSince() time.Time {
	if r.ring.ops.Len() == 0 {
		return time.Time{}
	}
	return r.wallOf(r.ring.at(0).at)
}

// wallOf is what the clock showed at a time of ours, but for what it was put back since.
func (r *Replicator) wallOf(ns int64) time.Time { return time.Unix(0, r.wallNs-(r.nowNs-ns)) }
