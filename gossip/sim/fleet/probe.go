package fleet

import (
	"slices"
	"time"

	"github.com/meshkv/meshkv/gossip"
)

// Probe is one op that is watched on its way to the others.
type Probe struct {
	At     int64
	Delays []int64 // in ns, in the order of arrival
}

// Watch watches a put that was just made.
func (f *Fleet) Watch(d dot) *Probe {
	p := &Probe{At: f.now}
	f.probes[d] = p
	return p
}

// Unwatch ends all probes.
func (f *Fleet) Unwatch() { clear(f.probes) }

// reached notes that a cell was taken at n, which is known once the processor is
// through with it. A process that began after the put catches up, which is no
// matter of spreading.
func (f *Fleet) reached(n *node, d dot) {
	if p := f.probes[d]; p != nil && n.since <= p.At {
		p.Delays = append(p.Delays, max(n.busy, f.now)-p.At)
	}
}

// Spread is how long ops took: to every node, and to the last one.
type Spread struct {
	Ops, Nodes         int // nodes that an op should reach
	Share              float64
	P50, P90, P99, Max time.Duration
	Last50, Last99     time.Duration // over the ops that reached all
}

// SpreadOf is the spread of ops that should each reach that many nodes.
func SpreadOf(probes []*Probe, nodes int) Spread {
	s := Spread{Ops: len(probes), Nodes: nodes}
	var all, last []int64
	for _, p := range probes {
		all = append(all, p.Delays...)
		if len(p.Delays) >= nodes {
			last = append(last, slices.Max(p.Delays))
		}
	}
	slices.Sort(all)
	slices.Sort(last)
	s.P50, s.P90, s.P99, s.Max = quantile(all, .5), quantile(all, .9), quantile(all, .99), quantile(all, 1)
	s.Last50, s.Last99 = quantile(last, .5), quantile(last, .99)
	if nodes > 0 && len(probes) > 0 {
		s.Share = float64(len(all)) / float64(nodes*len(probes))
	}
	return s
}

func quantile(sorted []int64, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return time.Duration(sorted[min(int(q*float64(len(sorted))), len(sorted)-1)])
}

// Up is the number of nodes with a process.
func (f *Fleet) Up() (n int) {
	for _, m := range f.nodes {
		if m.rep != nil {
			n++
		}
	}
	return n
}

// Differing is the number of nodes whose replica is not what most hold.
func (f *Fleet) Differing() int {
	type root struct{ data, clock, count uint64 }
	counts := make(map[root]int)
	up, most := 0, 0
	for _, n := range f.nodes {
		if n.rep == nil {
			continue
		}
		up++
		data, clock := n.rep.Root()
		r := root{data.Hash, clock.Hash, data.Count}
		counts[r]++
		most = max(most, counts[r])
	}
	return up - most
}

func (f *Fleet) queued() (ops int) {
	for _, n := range f.nodes {
		if n.rep != nil {
			st := n.rep.Stats()
			ops += st.QueuedOps + st.Sessions
		}
	}
	return ops
}

// Sizes are what nodes hold at a moment.
type Sizes struct {
	Clock                           float64 // entries, mean
	ClockMax, PendingMax, QueuedMax int
	Cells                           float64
	Links                           float64
	Inbox                           int
}

// Sizes measures all nodes.
func (f *Fleet) Sizes() (s Sizes) {
	up := 0
	for _, n := range f.nodes {
		if n.rep == nil {
			continue
		}
		up++
		st := n.rep.Stats()
		s.Clock += float64(st.ClockEntries)
		s.Cells += float64(st.Cells)
		s.Links += float64(st.Links)
		s.ClockMax = max(s.ClockMax, st.ClockEntries)
		s.PendingMax = max(s.PendingMax, st.Pending)
		s.QueuedMax = max(s.QueuedMax, st.QueuedMax)
	}
	s.Inbox = f.InboxMax
	f.InboxMax = 0
	if up > 0 {
		s.Clock /= float64(up)
		s.Cells /= float64(up)
		s.Links /= float64(up)
	}
	return s
}

// Stats is the counts of all processes, ended ones included.
func (f *Fleet) Stats() gossip.Stats {
	s := f.past
	for _, n := range f.nodes {
		if n.rep != nil {
			addStats(&s, n.rep.Stats())
		}
	}
	return s
}

func addStats(s *gossip.Stats, x gossip.Stats) {
	s.OpsIssued += x.OpsIssued
	s.OpsReceived += x.OpsReceived
	s.OpsDuplicate += x.OpsDuplicate
	s.OpsSent += x.OpsSent
	s.OpsGrafted += x.OpsGrafted
	s.OpsCoalesced += x.OpsCoalesced
	s.GraftsSent += x.GraftsSent
	s.SessionsOpened += x.SessionsOpened
	s.SessionsDone += x.SessionsDone
	s.SessionsAborted += x.SessionsAborted
	s.SessionsTimedOut += x.SessionsTimedOut
	s.BusySent += x.BusySent
	s.Overflows += x.Overflows
	s.FuseBlown += x.FuseBlown
	s.CellsProvided += x.CellsProvided
	s.CellsDropped += x.CellsDropped
}
