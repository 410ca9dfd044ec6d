package gossip

import (
	"github.com/meshkv/meshkv/crdt"
	"github.com/meshkv/meshkv/gossip/reconcile"
)

// clockSum is the sum of a clock, kept up to date lazily: an entry that changed
// is hashed when the sum is asked for, however often it changed until then.
type clockSum struct {
	sum   *reconcile.ClockSum
	last  crdt.Inc // the entry that changed last, which is not in dirty
	dirty map[crdt.Inc]struct{}
}

func newClockSum(seed uint64, c *crdt.Clock) clockSum {
	return clockSum{sum: reconcile.NewClockSum(seed, c), dirty: make(map[crdt.Inc]struct{})}
}

// touch notes that the entry of inc changed.
func (s *clockSum) touch(inc crdt.Inc) {
	if inc == 0 { // the horizon; as last it would mean none
		s.dirty[inc] = struct{}{}
		return
	}
	if inc == s.last {
		return
	}
	if s.last != 0 {
		s.dirty[s.last] = struct{}{}
	}
	s.last = inc
}

// root is the sum for c, whose changes were all reported.
func (s *clockSum) root(c *crdt.Clock) reconcile.Sum {
	if s.last != 0 {
		s.sum.Update(s.last, c.Entry(s.last))
		s.last = 0
	}
	for inc := range s.dirty { // sums commute, so the order does not matter
		s.sum.Update(inc, c.Entry(inc))
	}
	clear(s.dirty)
	return s.sum.Root()
}

// snapshot is the replica as it is now, for a session or a comparison.
func (r *Replicator) snapshot() reconcile.Snapshot {
	return reconcile.Snapshot{
		Data: r.data.Snapshot(), Clock: r.replica.Clock().Clone(), Pending: r.replica.Pending(),
	}
}

func (r *Replicator) root() reconcile.Root {
	return reconcile.Root{Data: r.data.Root(), Clock: r.clock.root(r.replica.Clock())}
}
