package gossip

import (
	"cmp"
	"slices"
	"time"

	"github.com/meshkv/meshkv/crdt"
	"github.com/meshkv/meshkv/gossip/reconcile"
)

// While others write, two replicas are hardly ever equal: some ops are always on
// their way. So summaries carry a second root, of the ops up to some seconds ago
// by their HLCs. Those have arrived everywhere, or something was lost.
const (
	stratumMs = 250 // of HLC time
	// strataFor is how long a stratum is kept, by the local clock.
	strataFor = int64(8 * time.Second)
	// cutGrace is what an op may take to arrive everywhere, beyond the worst that
	// was lately seen here, of which no more than maxLateMs counts.
	cutGraceMs = 1500
	maxLateMs  = 4000
	lateFor    = int64(10 * time.Second)
	// maxStrata and maxFirsts bound the strata and what is in all of them: the
	// oldest is forgotten.
	maxStrata = 256
	maxFirsts = 1 << 16
)

// stratum is what the ops of stratumMs of HLC time did to the replica.
type stratum struct {
	number int64
	born   int64
	data   reconcile.Sum       // by how much they changed the sum of the cells
	first  map[crdt.Inc]uint64 // their lowest Seq, by incarnation
}

// strata are the ops of the last seconds, ascending by number. The zero value has
// none.
type strata struct {
	all    []*stratum
	firsts int

	// The newest HLC that came, and when; how much older others were, at most, in
	// the running period and in the one before.
	newestMs, newestAt int64
	late, lateBefore   int64
	lateAt             int64
}

// note takes an op with the given dot and HLC, and by how much it changed the sum
// of the cells. leads: the HLC is none that is too far ahead.
func (s *strata) note(nowNs int64, dot crdt.Dot, at crdt.HLC, leads bool, data reconcile.Sum) {
	s.time(nowNs, at.WallMs(), leads)
	st := s.stratum(nowNs, at.WallMs()/stratumMs)
	st.data.Hash += data.Hash
	st.data.Count += data.Count
	if first, ok := st.first[dot.Inc]; !ok || dot.Seq < first {
		st.first[dot.Inc] = dot.Seq
		if !ok {
			s.firsts++
		}
	}
	for len(s.all) > maxStrata || s.firsts > maxFirsts && len(s.all) > 1 {
		s.drop(0)
	}
}

func (s *strata) time(nowNs, ms int64, leads bool) {
	if nowNs-s.lateAt >= lateFor {
		s.late, s.lateBefore, s.lateAt = 0, s.late, nowNs
		s.newestMs = 0 // clocks may have been put back
	}
	if leads && ms >= s.newestMs {
		s.newestMs, s.newestAt = ms, nowNs
	}
	s.late = max(s.late, min(s.newestMs-ms, maxLateMs))
}

// stratum is the one with the given number, made now if there is none.
func (s *strata) stratum(nowNs, number int64) *stratum {
	i := len(s.all)
	for i > 0 && s.all[i-1].number > number { // nearly always one of the last
		i--
	}
	if i > 0 && s.all[i-1].number == number {
		return s.all[i-1]
	}
	s.expire(nowNs)
	i, _ = slices.BinarySearchFunc(s.all, number, func(st *stratum, n int64) int { return cmp.Compare(st.number, n) })
	st := &stratum{number: number, born: nowNs, first: make(map[crdt.Inc]uint64)}
	s.all = slices.Insert(s.all, i, st)
	return st
}

func (s *strata) drop(i int) {
	s.firsts -= len(s.all[i].first)
	s.all = slices.Delete(s.all, i, i+1)
}

// expire forgets what is old.
func (s *strata) expire(nowNs int64) {
	for i := len(s.all) - 1; i >= 0; i-- {
		if nowNs-s.all[i].born >= strataFor {
			s.drop(i)
		}
	}
}

// last is the number of the newest stratum that should be complete everywhere.
func (s *strata) last(nowNs int64) int64 {
	ms := s.newestMs + (nowNs-s.newestAt)/int64(time.Millisecond)
	return (ms-cutGraceMs-max(s.late, s.lateBefore))/stratumMs - 1
}

// cut is the root of a replica as it would be without ops that are younger.
type cut struct {
	last int64 // number of the newest stratum that counts
	root reconcile.Root
}

// noteOps takes note of ops that are new here, which all have the same HLC, and
// with which the sum of the cells has changed from before to what it is now.
func (r *Replicator) noteOps(before reconcile.Sum, ops ...*crdt.Op) {
	now := r.data.Root()
	data := reconcile.Sum{Hash: now.Hash - before.Hash, Count: now.Count - before.Count}
	for _, op := range ops {
		ahead := op.HLC.WallMs() - r.wallNs/int64(time.Millisecond)
		r.strata.note(r.nowNs, op.Dot, op.HLC, ahead <= r.cfg.Limits.MaxClockDrift.Milliseconds(), data)
		data = reconcile.Sum{}
	}
}

// cutAt is the root of this replica without ops of strata above last.
func (r *Replicator) cutAt(last int64) reconcile.Root {
	root := r.root()
	r.strata.expire(r.nowNs)
	firsts := make(map[crdt.Inc]uint64)
	for _, st := range r.strata.all {
		if st.number <= last {
			continue
		}
		root.Data.Hash -= st.data.Hash
		root.Data.Count -= st.data.Count
		for inc, seq := range st.first {
			if first, ok := firsts[inc]; !ok || seq < first {
				firsts[inc] = seq
			}
		}
	}
	for inc, seq := range firsts { // sums commute, so the order does not matter
		e := r.replica.Clock().Entry(inc)
		root.Clock = r.clock.sum.Swap(root.Clock, inc, e, below(e, seq))
	}
	return root
}

// below is what e knows of the seqs under seq.
func below(e crdt.Entry, seq uint64) crdt.Entry {
	e.Prefix = min(e.Prefix, seq-1)
	for i, iv := range e.Islands {
		if iv.Hi < seq {
			continue
		}
		e.Islands = slices.Clone(e.Islands[:i])
		if iv.Lo < seq {
			e.Islands = append(e.Islands, crdt.Interval{Lo: iv.Lo, Hi: seq - 1})
		}
		break
	}
	return e
}

// lastCut is the cut to be told, nil if no op is young enough to be left out.
func (r *Replicator) lastCut() *cut {
	r.strata.expire(r.nowNs)
	if len(r.strata.all) == 0 {
		return nil
	}
	last := max(r.strata.last(r.nowNs), 0)
	return &cut{last: last, root: r.cutAt(last)}
}

// compareCuts reports whether an unequal summary is equal to this replica but for
// ops that may be on their way, in the clock and in the cells.
func (r *Replicator) compareCuts(s summary) (clock, data bool) {
	r.strata.expire(r.nowNs)
	theirs, ours := s.root, reconcile.Root{}
	switch {
	case s.cut != nil:
		theirs, ours = s.cut.root, r.cutAt(s.cut.last)
	case len(r.strata.all) > 0:
		ours = r.cutAt(r.strata.last(r.nowNs))
	default:
		return false, false
	}
	return theirs.Clock == ours.Clock, theirs.Data == ours.Data
}
