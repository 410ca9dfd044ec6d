package gossip

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/meshkv/meshkv/crdt"
	"github.com/meshkv/meshkv/gossip/reconcile"
)

// A mirror is a keyspace in which one incarnation writes that no process has, its
// origin (Config.Origin): its ops are made elsewhere, in one order, by each of some
// nodes, the feeders, that all make the same ones. A feeder pushes them as those that it
// mints, so the trees of the origin have as many roots as there are feeders: each
// node keeps the link that brings an op first and prunes the others, and a feeder, which
// has them all by itself, prunes whoever pushes to it. No feeder is special, and none
// needs to know who leads.
//
// Of the ops of a key the one with the highest seq says what the key is, so an older
// state of a key is never shown after a newer one, also where ops overtake others
// that were lost on another way: see ordered.

// Bounds of a mirror.
const (
	// maxDeleted bounds the keys of which it is remembered, while older ops are
	// missing, that they were deleted. Of those beyond, an older value may come up
	// until the missing ops have come.
	maxDeleted = 1 << 16
	// maxWaiting bounds the positions that were announced and are not reached: every
	// other one is forgotten, and the state counts as older than it is.
	maxWaiting = 64
	// maxArrived bounds the cells that may come to live while a state is fed.
	maxArrived = 1 << 20
	// fedLately is how long ago a feeder was fed that is about to be fed again.
	fedLately = originAlive
)

// Errors of mirrors. Nothing was changed when one is returned.
var (
	// ErrForeign: an op or cell is not of the mirror's origin, or there is no origin.
	ErrForeign = errors.New("not of the origin of this mirror")
	// ErrFeed: the state that is fed was not begun, or too much came meanwhile. Begin again.
	ErrFeed = errors.New("the feeding of a state is to begin again")
)

// A Position is what there was at an origin at one time.
type Position struct {
	Seq      uint64 // of its last op
	Revision uint64 // as the feeder counts
	At       crdt.HLC
}

// newer reports whether p says more than q.
func (p Position) newer(q Position) bool {
	return cmp.Or(cmp.Compare(p.Seq, q.Seq), cmp.Compare(p.At, q.At)) > 0
}

// mirror is what a replicator of a mirror knows besides. The zero value: it is none.
type mirror struct {
	origin crdt.Inc // 0: the keyspace is none
	feeds  bool
	fedAt  int64

	deleted map[string]uint64 // by key, the seq of a deletion above what is missing
	state   *feed             // that is being fed, or nil

	newest  Position   // that was announced
	waiting []Position // announced and not reached, ascending by Seq
	reached Position   // the newest that was
}

// of reports whether all of it is the origin's.
func (m *mirror) of(op *crdt.Op) bool {
	foreign := func(sp crdt.Span) bool { return sp.Inc != m.origin }
	return op.Dot.Inc == m.origin && len(op.More) == 0 && !slices.ContainsFunc(op.Covers, foreign) && !slices.ContainsFunc(op.Removes, foreign)
}

// Feed takes ops of the origin, which are pushed as those that are minted here. Those
// that are known are ignored. The error is ErrForeign, before anything is taken, or nil.
func (r *Replicator) Feed(now time.Time, ops []*crdt.Op) error {
	for _, op := range ops {
		if r.mirror.origin == 0 || !r.mirror.of(op) {
			return fmt.Errorf("feed: %w", ErrForeign)
		}
	}
	r.begin(now)
	r.mirror.feeds, r.mirror.fedAt = true, r.nowNs
	for _, op := range ops {
		before := r.data.Root()
		if !r.applyInOrder(op) {
			continue
		}
		r.stats.OpsFed++
		r.settle()
		r.noteOps(before, op)
		if len(r.order) > 0 {
			r.spread(nil, op)
		}
	}
	return nil
}

// StopFeeding says that no more will be fed here: the ops come from others now.
func (r *Replicator) StopFeeding() {
	r.mirror.feeds, r.mirror.fedAt, r.mirror.state = false, 0, nil
	r.hurryWants()
}

// mints reports whether the ops of inc begin their way here.
func (r *Replicator) mints(inc crdt.Inc) bool {
	return inc == r.replica.Inc() || r.mirror.feeds && inc == r.mirror.origin
}

// selfServed reports whether the ops of inc come here without any peer: for as long as
// the feeding goes on.
func (r *Replicator) selfServed(inc crdt.Inc) bool {
	return r.mirror.feeds && inc == r.mirror.origin && r.nowNs-r.mirror.fedAt < fedLately
}

// applyInOrder applies an op of the origin such that an older state of its key does not
// show up again.
func (r *Replicator) applyInOrder(op *crdt.Op) (fresh bool) {
	if !r.replica.Apply(r.ordered(op)) {
		return false
	}
	m := &r.mirror
	switch e := r.replica.Clock().Entry(m.origin); {
	case len(e.Islands) == 0: // nothing older will come
		clear(m.deleted)
	case op.Cell == nil && op.Dot.Seq > e.Prefix:
		m.noteDeleted(op, e.Prefix, &r.stats)
	}
	return true
}

func (m *mirror) noteDeleted(op *crdt.Op, prefix uint64, stats *Stats) {
	if len(m.deleted) >= maxDeleted {
		for key, seq := range m.deleted {
			if seq <= prefix {
				delete(m.deleted, key)
			}
		}
	}
	if _, ok := m.deleted[op.Key]; !ok && len(m.deleted) >= maxDeleted {
		stats.DropDeleted++
		return
	}
	if m.deleted == nil {
		m.deleted = make(map[string]uint64)
	}
	m.deleted[op.Key] = max(m.deleted[op.Key], op.Dot.Seq)
}

// ordered is op as it is to be applied here. An op that is not the next one may have
// overtaken others, say 5 (put) and 7 (delete) of its key, where 3 lives:
//
//	apply 9 (put)    shows 9
//	apply 10 (delete, removes 9)   would show 3 again: it removes 3, too
//	apply 5 (put, removes 3)       would show 5: it brings nothing
//	apply 7 (delete, removes 5)
//
// Both say only what the missing ops will say, so replicas that have the same ops have
// the same cells, as soon as none is missing.
func (r *Replicator) ordered(op *crdt.Op) *crdt.Op {
	m, clock := &r.mirror, r.replica.Clock()
	e := clock.Entry(m.origin)
	if len(op.Covers) == 0 && len(e.Islands) == 0 && op.Dot.Seq == e.Prefix+1 || clock.Contains(op.Dot) {
		return op
	}
	var stale []crdt.Dot
	for _, c := range r.replica.Cells().ByKey(op.Key) {
		if c.Dot.Seq < op.Dot.Seq && !op.Removes.Contains(c.Dot) {
			stale = append(stale, c.Dot)
		}
	}
	late := op.Cell != nil && m.late(op.Cell)
	if len(stale) == 0 && !late {
		return op
	}
	changed := *op
	changed.Removes = op.Removes.Union(crdt.DotsOf(stale...))
	if late {
		changed.Cell = nil
	}
	return &changed
}

// late reports whether the key of c was deleted after c was put.
func (m *mirror) late(c *crdt.Cell) bool { return m.deleted[c.Key] > c.Dot.Seq }

// refuses reports whether an op that came from a peer has no place here.
func (r *Replicator) refuses(op *crdt.Op) bool {
	if r.mirror.origin == 0 || r.mirror.of(op) {
		return false
	}
	r.stats.DropForeign++
	return true
}

// refusesCell is the same for a cell that was offered. One of a key that was deleted
// since is refused, too: it counts as dropped when its session ends.
func (r *Replicator) refusesCell(c *crdt.Cell) bool {
	if r.mirror.origin == 0 {
		return false
	}
	if c.Dot.Inc != r.mirror.origin {
		r.stats.DropForeign++
		return true
	}
	return r.mirror.late(c)
}

// A feed is a state of the origin on its way into the replica.
type feed struct {
	arrived []*crdt.Cell // came to live since it began
	over    bool         // more than maxArrived did
}

// A Before is the replica when the feeding of a state began: what is to be compared with
// that state. It does not change, and any goroutine may read it.
type Before struct {
	known crdt.Entry
	cells *reconcile.Trie
}

// Knows reports whether the seq was known, or was then.
func (b Before) Knows(seq uint64) bool { return b.known.Contains(seq) }

// Dead are the live cells of then that the state does not hold, of those up to seq.
func (b Before) Dead(seq uint64, holds func(*crdt.Cell) bool) (dead []crdt.Dot) {
	for c := range b.cells.All {
		if c.Dot.Seq <= seq && !holds(c) {
			dead = append(dead, c.Dot)
		}
	}
	return dead
}

// BeginState begins to feed a whole state, as a session would that the origin itself
// had: supply the cells that Before does not know, in as many steps as you like, then
// call EndState. The error is ErrForeign or nil.
func (r *Replicator) BeginState() (Before, error) {
	if r.mirror.origin == 0 {
		return Before{}, fmt.Errorf("feed a state: %w", ErrForeign)
	}
	r.mirror.state = &feed{}
	return Before{r.replica.Clock().Entry(r.mirror.origin), r.data.Snapshot()}, nil
}

// SupplyState takes cells of the state. They can be read at once. The error is
// ErrForeign or ErrFeed.
func (r *Replicator) SupplyState(now time.Time, cells []*crdt.Cell) error {
	if r.mirror.state == nil {
		return fmt.Errorf("feed a state: %w", ErrFeed)
	}
	for _, c := range cells {
		if c.Dot.Inc != r.mirror.origin {
			return fmt.Errorf("feed a state: %w", ErrForeign)
		}
	}
	r.begin(now)
	for _, c := range cells {
		if !r.mirror.late(c) && r.replica.Provide(c) {
			r.stats.CellsProvided++
		}
	}
	st := r.mirror.state
	r.mirror.state = nil // these are no news to it
	r.settle()
	r.mirror.state = st
	return nil
}

// AbortState gives up the state that is being fed, if one is. What was supplied stays as
// what an aborted session leaves.
func (r *Replicator) AbortState() { r.mirror.state = nil }

// EndState makes the replica what the state of the origin after its op seq says, in one
// step: dead are those of Before, and holds tells of others whether they live in
// that state. What the replica knows beyond seq stays. The feeder's word is final, so
// the fuse has no say. The error is ErrFeed or nil.
func (r *Replicator) EndState(now time.Time, seq uint64, dead []crdt.Dot, holds func(*crdt.Cell) bool) error {
	st := r.mirror.state
	r.mirror.state = nil
	if st == nil || st.over {
		return fmt.Errorf("feed a state: %w", ErrFeed)
	}
	r.begin(now)
	r.mirror.feeds, r.mirror.fedAt = true, r.nowNs
	clock := crdt.NewClock()
	if seq > 0 {
		clock.Add(crdt.Span{Inc: r.mirror.origin, Lo: 1, Hi: seq})
	}
	for _, c := range st.arrived {
		if c.Dot.Seq <= seq && !holds(c) {
			dead = append(dead, c.Dot)
		}
	}
	slices.SortFunc(dead, crdt.Dot.Compare)
	news, before := r.news(clock), r.replica.Cells().Len()
	r.replica.Conclude(crdt.Known{Clock: clock}, slices.Values(dead))
	r.stats.CellsDropped += int64(before - r.replica.Cells().Len())
	r.stats.StatesFed++
	r.passOn(nil, news)
	r.settle()
	r.agreed = true
	return nil
}

// noteArrived takes note of cells that came to live.
func (m *mirror) noteArrived(cells []*crdt.Cell) {
	if m.state == nil || m.state.over {
		return
	}
	if len(m.state.arrived)+len(cells) > maxArrived {
		m.state.over, m.state.arrived = true, nil
		return
	}
	m.state.arrived = append(m.state.arrived, cells...)
}

// Announce tells the peers how far the origin is, now. One feeder does so every second or
// more often, whether or not anything changed: it is how the others know the age of
// what they have.
func (r *Replicator) Announce(now time.Time, seq, revision uint64) {
	r.begin(now)
	p := Position{Seq: seq, Revision: revision, At: crdt.HLCAt(r.wallNs / int64(time.Millisecond))}
	if r.mirror.origin == 0 || !p.newer(r.mirror.newest) {
		return
	}
	r.announcedPosition(p)
	for _, l := range r.order {
		if l.role != RoleQuiet {
			r.sendBeacon(l, beacon{origin: r.mirror.origin, at: p.At, position: p})
		}
	}
}

// position takes the announcement of a position that came over from. In a full mesh the
// feeder has told everybody; in a sparse overlay it goes on over all links, each of
// which it takes once.
func (r *Replicator) position(from *link, b beacon) {
	if !b.position.newer(r.mirror.newest) {
		return
	}
	ahead := b.at.WallMs() - r.wallNs/int64(time.Millisecond)
	if ahead > r.cfg.Limits.MaxClockDrift.Milliseconds() {
		r.stats.DropBeacon++ // of the lag; the position counts
	} else {
		r.lags.note(r.lags.origin(b.origin), -ahead, r.nowNs)
	}
	r.announcedPosition(b.position)
	for _, l := range r.order {
		if l != from && l.role == RoleTree {
			r.sendBeacon(l, b)
		}
	}
}

func (r *Replicator) announcedPosition(p Position) {
	m := &r.mirror
	r.reach()
	m.newest = p
	if n := len(m.waiting); n > 0 && m.waiting[n-1].Seq == p.Seq {
		m.waiting[n-1] = p
		return
	}
	if len(m.waiting) >= maxWaiting {
		kept := m.waiting[:0]
		for i := 0; i < maxWaiting; i += 2 {
			kept = append(kept, m.waiting[i])
		}
		m.waiting = kept
	}
	m.waiting = append(m.waiting, p)
}

// A MirrorPosition says how old a mirror is.
type MirrorPosition struct {
	// Seq: all ops of the origin up to this one are known here.
	Seq uint64
	// Newest is the highest seq that is known to exist: the mirror is behind by the
	// difference, or more.
	Newest uint64
	// Reached is the newest announcement that this replica has come up with. Its At is the
	// time, by the clock of who announced, of which the mirror has everything. Zero:
	// none yet.
	Reached Position
}

// MirrorPosition is how far this mirror is. Zero if there is no origin.
func (r *Replicator) MirrorPosition() MirrorPosition {
	m := &r.mirror
	if m.origin == 0 {
		return MirrorPosition{}
	}
	r.reach()
	e := r.replica.Clock().Entry(m.origin)
	return MirrorPosition{Seq: e.Prefix, Newest: max(e.Max(), m.newest.Seq), Reached: m.reached}
}

// reach finds which announcements this replica has come up with.
func (r *Replicator) reach() {
	m := &r.mirror
	prefix, n := r.replica.Clock().Entry(m.origin).Prefix, 0
	for n < len(m.waiting) && m.waiting[n].Seq <= prefix {
		p := m.waiting[n]
		p.At = max(p.At, m.reached.At) // who announces now may have another clock
		m.reached = p
		n++
	}
	m.waiting = slices.Delete(m.waiting, 0, n)
}
