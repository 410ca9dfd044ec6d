package storage

import (
	"slices"
	"time"

	"github.com/meshkv/meshkv/crdt"
)

// Fixed costs used to account what waits in memory, beyond key, path and value.
const (
	cellCost  = 64
	entryCost = 32
	dotCost   = 16
)

// accumulator gathers changes until the next commit takes them. Append only
// collects; what cancels out is found when the batch is built, by the goroutine
// that commits.
type accumulator struct {
	commit    *commit
	keyspaces map[string]*gathered
	last      *gathered // of the latest change, to spare a map lookup
	bound     crdt.HLC
	bytes     int64
	since     time.Time // of the first change
	empty     bool
	batch     Batch
}

func newAccumulator() *accumulator {
	return &accumulator{keyspaces: make(map[string]*gathered), commit: newCommit(), empty: true}
}

// keyspace is where changes of the named keyspace gather.
func (a *accumulator) keyspace(name string) *gathered {
	if a.last != nil && a.last.name == name {
		return a.last
	}
	g := a.keyspaces[name]
	if g == nil {
		g = &gathered{name: name}
		a.keyspaces[name] = g
	}
	a.last = g
	return g
}

// build is everything gathered, as one batch. It aliases the accumulator.
func (a *accumulator) build() Batch {
	a.batch.HLCBound = a.bound
	a.batch.Keyspaces = a.batch.Keyspaces[:0]
	for _, g := range a.keyspaces {
		if kb, ok := g.build(); ok {
			a.batch.Keyspaces = append(a.batch.Keyspaces, kb)
		}
	}
	return a.batch
}

// reset empties a for the next commit and keeps memory of ordinary size.
func (a *accumulator) reset() {
	clear(a.batch.Keyspaces)
	for name, g := range a.keyspaces {
		if g.idle() || cap(g.added) > maxKept || cap(g.removed) > maxKept || len(g.clockAt) > maxKept {
			delete(a.keyspaces, name)
			continue
		}
		g.reset()
	}
	a.commit, a.last, a.bound, a.bytes, a.empty = newCommit(), nil, 0, 0, true
}

// maxKept is how many changes of one keyspace an emptied accumulator keeps room
// for: what one second at 100,000 changes/s would need in ten commits.
const maxKept = 1 << 14

// gathered is what changed in one keyspace.
type gathered struct {
	name    string
	dropped bool // all from before this batch, and what it gathered until then
	added   []*crdt.Cell
	removed []crdt.Dot
	clock   []ClockEntry
	clockAt map[crdt.Inc]int // index into clock; nil while clock is short
	taken   []uint64         // parallel to clock: the round that took the entry
	round   uint64           // of add
	pending map[crdt.Dot]bool
	doomed  map[crdt.Dot]bool // scratch of cancel: removed dots that may have been added here
	padd    []crdt.Dot
	pdrop   []crdt.Dot
}

func (g *gathered) idle() bool {
	return !g.dropped && len(g.added)+len(g.removed)+len(g.clock)+len(g.pending) == 0
}

// drop forgets what was gathered: the keyspace is gone.
func (g *gathered) drop() {
	g.reset()
	g.dropped = true
}

// add takes in one Changes and returns by how many bytes more wait now, which is
// below zero if an entry of the clock is replaced by a smaller one.
func (g *gathered) add(ch *crdt.Changes, clock *crdt.Clock) int64 {
	var bytes int64
	g.round++
	for _, c := range ch.Added {
		g.added = append(g.added, c)
		bytes += int64(len(c.Key)+len(c.Path)+len(c.Value)) + cellCost
	}
	for _, c := range ch.Removed {
		g.removed = append(g.removed, c.Dot)
		bytes += dotCost
	}
	for _, inc := range ch.Clock {
		bytes += g.takeEntry(inc, clock)
	}
	if len(ch.PendingAdded)+len(ch.PendingDiscarded) > 0 {
		bytes += g.addPending(ch)
	}
	return bytes
}

// shortClock is up to how many entries are searched one by one.
const shortClock = 8

// takeEntry takes the entry of inc, once in each round however often the Changes
// names it, and returns by how much what waits has grown. An entry that an
// earlier round of this batch took is overwritten: only the latest is written.
func (g *gathered) takeEntry(inc crdt.Inc, clock *crdt.Clock) int64 {
	i := g.clockIndex(inc)
	if i < 0 {
		e := ClockEntry{inc, clock.Entry(inc)}
		g.appendEntry(e)
		return entrySize(e.Entry)
	}
	if g.taken[i] == g.round {
		return 0
	}
	g.taken[i] = g.round
	old := entrySize(g.clock[i].Entry)
	g.clock[i].Entry = clock.Entry(inc)
	return entrySize(g.clock[i].Entry) - old
}

func entrySize(e crdt.Entry) int64 { return entryCost + int64(len(e.Islands))*dotCost }

// clockIndex is where the entry of inc is in clock, or -1.
func (g *gathered) clockIndex(inc crdt.Inc) int {
	if g.clockAt != nil {
		if i, ok := g.clockAt[inc]; ok {
			return i
		}
		return -1
	}
	for i := len(g.clock) - 1; i >= 0; i-- {
		if g.clock[i].Inc == inc {
			return i
		}
	}
	return -1
}

func (g *gathered) appendEntry(e ClockEntry) {
	g.clock, g.taken = append(g.clock, e), append(g.taken, g.round)
	switch {
	case g.clockAt != nil:
		g.clockAt[e.Inc] = len(g.clock) - 1
	case len(g.clock) > shortClock:
		g.clockAt = make(map[crdt.Inc]int, 4*shortClock)
		for i, have := range g.clock {
			g.clockAt[have.Inc] = i
		}
	}
}

// addPending applies the added dots before the discarded ones: a replica never
// awaits a dot again that it has forgotten within one Changes, since it forgets
// only dots that are in its clock by then.
func (g *gathered) addPending(ch *crdt.Changes) int64 {
	if g.pending == nil {
		g.pending = make(map[crdt.Dot]bool)
	}
	for _, d := range ch.PendingAdded {
		g.pending[d] = true
	}
	for _, d := range ch.PendingDiscarded {
		g.pending[d] = false
	}
	return int64(len(ch.PendingAdded)+len(ch.PendingDiscarded)) * dotCost
}

// build is the net change: a cell that came and went is in neither list.
func (g *gathered) build() (KeyspaceBatch, bool) {
	if g.idle() {
		return KeyspaceBatch{}, false
	}
	g.cancel()
	g.padd, g.pdrop = g.padd[:0], g.pdrop[:0]
	for d, add := range g.pending {
		if add {
			g.padd = append(g.padd, d)
		} else {
			g.pdrop = append(g.pdrop, d)
		}
	}
	return KeyspaceBatch{
		Name: g.name, Reset: g.dropped, Put: g.added, Drop: g.removed, Clock: g.clock, PendingAdd: g.padd, PendingDrop: g.pdrop,
	}, true
}

// cancel takes out the cells that are both added and removed. A dot is added at
// most once in the life of a replica, so its removal always follows. Most
// removed cells are older than everything added: the lowest added sequence of
// their incarnation tells, without a map.
func (g *gathered) cancel() {
	if len(g.added) == 0 || len(g.removed) == 0 {
		return
	}
	low := lowestSeqs(g.added)
	for _, d := range g.removed {
		if seq, ok := low.of(d.Inc); ok && d.Seq >= seq {
			if g.doomed == nil {
				g.doomed = make(map[crdt.Dot]bool)
			}
			g.doomed[d] = false
		}
	}
	if len(g.doomed) == 0 {
		return
	}
	g.added = slices.DeleteFunc(g.added, func(c *crdt.Cell) bool {
		_, doomed := g.doomed[c.Dot]
		if doomed {
			g.doomed[c.Dot] = true // it came and went
		}
		return doomed
	})
	g.removed = slices.DeleteFunc(g.removed, func(d crdt.Dot) bool { return g.doomed[d] })
}

// seqs is one sequence number for each of some incarnations; usually one.
type seqs struct {
	inc  crdt.Inc
	seq  uint64
	more map[crdt.Inc]uint64
}

// lowestSeqs is the lowest sequence number among cells, by incarnation.
func lowestSeqs(cells []*crdt.Cell) seqs {
	s := seqs{inc: cells[0].Dot.Inc, seq: cells[0].Dot.Seq}
	for _, c := range cells {
		d := c.Dot
		if d.Inc == s.inc {
			s.seq = min(s.seq, d.Seq)
			continue
		}
		if s.more == nil {
			s.more = make(map[crdt.Inc]uint64)
		}
		if seq, ok := s.more[d.Inc]; !ok || d.Seq < seq {
			s.more[d.Inc] = d.Seq
		}
	}
	return s
}

func (s seqs) of(inc crdt.Inc) (seq uint64, ok bool) {
	if inc == s.inc {
		return s.seq, true
	}
	seq, ok = s.more[inc]
	return seq, ok
}

func (g *gathered) reset() {
	g.dropped = false
	clear(g.added)
	clear(g.clock)
	clear(g.pending)
	clear(g.doomed)
	g.added, g.removed, g.clock, g.clockAt, g.taken = g.added[:0], g.removed[:0], g.clock[:0], nil, g.taken[:0]
}

// first notes that something was gathered and reports whether it is the first
// thing since the last commit.
func (a *accumulator) first() bool {
	if !a.empty {
		return false
	}
	a.empty, a.since = false, time.Now()
	return true
}
