package crdt

import (
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
)

// Errors of local writes. Nothing was changed when one is returned.
var (
	ErrKeySize   = errors.New("key must be 1 to 1024 bytes")
	ErrPathSize  = errors.New("path must be at most 1024 bytes")
	ErrValueSize = errors.New("value is too large")
)

// A Replica is one keyspace at one node: the live cells S, the clock C and the
// pending deaths D, and the incarnation that mints dots here. Invariants:
//
//	S ∩ D = ∅, D ∩ C = ∅
//	a live cell whose dot is not in C is provisional
//
// Not safe for concurrent use.
type Replica struct {
	inc     Inc
	seq     uint64
	since   uint64 // seq when it began here: of what it wrote before, anything may be lacking
	cells   Cells
	clock   *Clock
	pending map[Dot]struct{}
	changes Changes
}

// State is what a replica resumes from. S, C and D must have been stored
// together; Seq is the last sequence number that Inc issued in this keyspace.
type State struct {
	Inc     Inc
	Seq     uint64
	Cells   Cells
	Clock   *Clock
	Pending Dots
}

// Changes is what happened to a replica since it was last taken, in order
// within each list. A cell that came and went is in both. Everything in one
// Changes belongs into one transaction of the store.
type Changes struct {
	Added, Removed                 []*Cell
	Clock                          []Inc // entries that changed, possibly repeated
	PendingAdded, PendingDiscarded []Dot
	// Rejected are those of Removed that were dropped although no removal of them
	// is known: the peer of a session had retired their incarnation, and can no
	// longer say whether it ever had them. They are to be reported.
	Rejected []*Cell
}

// Empty reports whether nothing changed.
func (c *Changes) Empty() bool {
	return len(c.Added)+len(c.Removed)+len(c.Clock)+len(c.PendingAdded)+len(c.PendingDiscarded) == 0
}

// Key is the key of all cells that came and went, if it is one.
func (c *Changes) Key() (key string, one bool) {
	for _, cells := range [2][]*Cell{c.Added, c.Removed} {
		for _, cell := range cells {
			if one && cell.Key != key {
				return "", false
			}
			key, one = cell.Key, true
		}
	}
	return key, one
}

// Reset empties c and keeps its memory.
func (c *Changes) Reset() {
	clear(c.Added)
	clear(c.Removed)
	clear(c.Rejected)
	c.Rejected = c.Rejected[:0]
	c.Added, c.Removed, c.Clock = c.Added[:0], c.Removed[:0], c.Clock[:0]
	c.PendingAdded, c.PendingDiscarded = c.PendingAdded[:0], c.PendingDiscarded[:0]
}

// NewReplica is a replica that continues from s, and takes over s.Cells and
// s.Clock.
func NewReplica(s State) *Replica {
	r := &Replica{inc: s.Inc, seq: s.Seq, since: s.Seq, cells: s.Cells, clock: s.Clock, pending: make(map[Dot]struct{})}
	for d := range s.Pending.All() {
		r.pending[d] = struct{}{}
	}
	return r
}

// Inc is the incarnation that mints dots here.
func (r *Replica) Inc() Inc { return r.inc }

// Renew makes inc the minting incarnation, which must be new: after a dot of
// the old one was met that this replica did not issue.
func (r *Replica) Renew(inc Inc) { r.inc, r.seq, r.since = inc, 0, 0 }

// Seq is the last sequence number issued here.
func (r *Replica) Seq() uint64 { return r.seq }

// Cells are the live cells, for reading.
func (r *Replica) Cells() Cells { return r.cells }

// Clock is the clock, for reading.
func (r *Replica) Clock() *Clock { return r.clock }

// Pending is a copy of the pending deaths.
func (r *Replica) Pending() Dots {
	return DotsOf(slices.SortedFunc(maps.Keys(r.pending), Dot.Compare)...)
}

// PendingLen is the number of pending deaths.
func (r *Replica) PendingLen() int { return len(r.pending) }

// IsPending reports whether d is a pending death.
func (r *Replica) IsPending(d Dot) bool {
	_, ok := r.pending[d]
	return ok
}

// Changes is what happened since the owner last called Reset on it.
func (r *Replica) Changes() *Changes { return &r.changes }

// A Write describes a cell to be put.
type Write struct {
	Key, Path string
	Kind      Kind
	Flags     Flags
	Expires   int64 // ms since the Unix epoch, or 0
	Value     []byte
	HLC       HLC

	cell *Cell // made by Prepare
}

// Prepare makes the cell of the write ahead of Put, which then copies nothing:
// so the copying need not be done under the lock of the replica. Nothing but HLC
// may be changed afterwards, and w may be put once.
func (w *Write) Prepare() { w.cell = w.pack() }

func (w *Write) pack() *Cell {
	return Cell{Key: w.Key, Path: w.Path, Kind: w.Kind, Flags: w.Flags, Expires: w.Expires, Value: w.Value}.pack()
}

// Put removes every cell of (w.Key, w.Path) held here, hidden and provisional
// ones included, and adds one. It returns the ops to be spread, in order: one,
// unless more than MaxRemoves cells are removed. Key, path and value are copied.
func (r *Replica) Put(w Write) ([]*Op, error) {
	switch {
	case len(w.Key) == 0 || len(w.Key) > MaxKeyBytes:
		return nil, ErrKeySize
	case len(w.Path) > MaxKeyBytes:
		return nil, ErrPathSize
	case len(w.Value) > MaxValueBytes:
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrValueSize, len(w.Value), MaxValueBytes)
	}
	var one struct { // what the usual Put returns, in one allocation
		op      Op
		removes [1]Span
		ops     [1]*Op
	}
	removes, ops := Dots(one.removes[:0]), one.ops[:0]
	if seen := r.cells.ByKey(w.Key); len(seen) == 1 {
		if d := seen[0].Dot; seen[0].Path == w.Path {
			removes = append(removes, Span{d.Inc, d.Seq, d.Seq})
		}
	} else if len(seen) > 1 {
		dots := dotsOf(seen, func(c *Cell) bool { return c.Path == w.Path })
		for len(dots) > MaxRemoves {
			ops = append(ops, r.removal(w.Key, dots[:MaxRemoves], w.HLC))
			dots = dots[MaxRemoves:]
		}
		removes = DotsOf(dots...)
	}
	d := r.nextDot()
	cell := w.cell
	if cell == nil {
		cell = w.pack()
	}
	cell.Dot, cell.HLC = d, w.HLC
	one.op = Op{Dot: d, Key: cell.Key, HLC: w.HLC, Removes: removes, Cell: cell}
	r.Apply(&one.op)
	return append(ops, &one.op), nil
}

// Delete removes every cell of key held here, hidden and provisional ones
// included, and returns the ops to be spread: none if there was no cell.
func (r *Replica) Delete(key string, at HLC) []*Op {
	return r.remove(key, dotsOf(r.cells.ByKey(key), r.deletable), at)
}

// Remove removes the live cells among the given dots, of whatever key, and
// returns the ops to be spread. It is how expired and closed cells are
// collected.
func (r *Replica) Remove(dots []Dot, at HLC) []*Op {
	live := make([]Dot, 0, len(dots))
	for _, d := range dots {
		if r.cells.ByDot(d) != nil {
			live = append(live, d)
		}
	}
	return r.remove("", live, at)
}

func (r *Replica) remove(key string, dots []Dot, at HLC) (ops []*Op) {
	for len(dots) > 0 {
		n := min(len(dots), MaxRemoves)
		ops = append(ops, r.removal(key, dots[:n], at))
		dots = dots[n:]
	}
	return ops
}

func (r *Replica) removal(key string, dots []Dot, at HLC) *Op {
	op := &Op{Dot: r.nextDot(), Key: key, HLC: at, Removes: DotsOf(dots...)}
	r.Apply(op)
	return op
}

func (r *Replica) nextDot() Dot {
	r.seq++
	return Dot{r.inc, r.seq}
}

func dotsOf(cells []*Cell, match func(*Cell) bool) []Dot {
	var dots []Dot
	for _, c := range cells {
		if match(c) {
			dots = append(dots, c.Dot)
		}
	}
	slices.SortFunc(dots, Dot.Compare)
	return dots
}

// Apply is the rule for one op, local or received, in any order and any number
// of times. It reports whether the op told this replica anything new.
//
// With own dot d: if covers ⊆ C, ignore. Else C ∪= covers; every removed dot
// leaves S and, if it is not in C, is pending; the other covered dots leave S
// and D; and if d was pending it is born dead, else if d was new its cell lives.
// Each cell of a batch fares like that of d.
func (r *Replica) Apply(op *Op) (fresh bool) {
	dotIsNew := !r.clock.Contains(op.Dot)
	if !dotIsNew && r.clock.ContainsAll(op.Covers) {
		return false
	}
	more := r.unknown(op.More)
	r.know(Span{op.Dot.Inc, op.Dot.Seq, op.Dot.Seq})
	if len(op.Covers) > 0 {
		r.changes.Clock = append(r.changes.Clock, r.clock.AddAll(op.Covers)...)
	}
	// The new cell is added before the ones that it replaces are dropped, so
	// that a concurrent reader of the cells never sees the key without a value.
	// The order cannot be observed otherwise: no op removes its own dot.
	born := dotIsNew && op.Cell != nil && !r.IsPending(op.Dot)
	if born && r.cells.ByDot(op.Dot) == nil { // else it was provisional here, and is known now
		r.adopt(op.Cell, op.Removes)
	}
	for _, c := range more {
		if !r.IsPending(c.Dot) && r.cells.ByDot(c.Dot) == nil {
			r.adopt(c, nil)
		}
	}
	for d := range op.Removes.All() {
		r.drop(d)
		if !r.clock.Contains(d) {
			r.await(d)
		}
	}
	rest := op.More
	for d := range op.Covers.All() {
		for len(rest) > 0 && rest[0].Dot.Compare(d) < 0 {
			rest = rest[1:]
		}
		switch {
		case d == op.Dot:
		case len(rest) > 0 && rest[0].Dot == d: // a cell of the batch: alive, unless it was removed
			if r.forget(d) {
				r.drop(d)
			}
		default:
			r.drop(d)
			r.forget(d)
		}
	}
	if r.forget(op.Dot) { // born dead
		r.drop(op.Dot)
	}
	return true
}

// unknown is those of cells whose dots are not in C.
func (r *Replica) unknown(cells []*Cell) (out []*Cell) {
	for _, c := range cells {
		if !r.clock.Contains(c.Dot) {
			out = append(out, c)
		}
	}
	return out
}

// Provide takes a cell that a peer offered in a session: it lives here as a
// provisional cell, unless its dot is known or pending. It reports whether the
// cell was taken.
func (r *Replica) Provide(c *Cell) (taken bool) {
	if r.clock.Contains(c.Dot) || r.IsPending(c.Dot) || r.cells.ByDot(c.Dot) != nil {
		return false
	}
	r.adopt(c, nil)
	return true
}

// Known is what the peer of a session knew at the session's start: C⁰ and D⁰,
// taken together with its live cells S⁰.
type Known struct {
	Clock   *Clock
	Pending Dots
}

// Has reports whether d was known or pending.
func (k Known) Has(d Dot) bool { return k.Clock.Contains(d) || k.Pending.Contains(d) }

// Conclude ends a session, in one step: live cells that the peer knew and did
// not hold are dropped, C ∪= C⁰, D ∪= D⁰, and D −= C, dropping those cells.
//
// lacks yields dots that are not in the peer's S⁰. It must yield every live dot
// here that is in peer's C⁰ ∪ D⁰ and not in its S⁰; others may be left out.
func (r *Replica) Conclude(peer Known, lacks iter.Seq[Dot]) {
	for d := range lacks {
		if peer.Has(d) {
			r.dropFor(peer, d)
		}
	}
	changed := r.clock.Merge(peer.Clock)
	r.changes.Clock = append(r.changes.Clock, changed...)
	for d := range peer.Pending.All() {
		if !r.clock.Contains(d) {
			r.await(d)
		}
	}
	r.purge()
}

// purge ends the wait for deaths that need none any more: of dots that are known,
// and of sealed incarnations, of which no op will come.
func (r *Replica) purge() {
	for _, d := range slices.SortedFunc(maps.Keys(r.pending), Dot.Compare) {
		if r.clock.Contains(d) || r.clock.Entry(d.Inc).Sealed {
			r.know(Span{d.Inc, d.Seq, d.Seq})
			r.forget(d)
			r.drop(d)
		}
	}
}

// dropFor drops d because a peer knows it and does not hold it.
func (r *Replica) dropFor(peer Known, d Dot) {
	c := r.cells.ByDot(d)
	if c == nil {
		return
	}
	r.drop(d)
	if peer.Clock.Retired(d.Inc) && !peer.Pending.Contains(d) {
		r.changes.Rejected = append(r.changes.Rejected, c)
	}
}

// Close records that inc writes no more, and reports whether that was new.
func (r *Replica) Close(inc Inc) (changed bool) {
	if !r.clock.Close(inc) {
		return false
	}
	r.changes.Clock = append(r.changes.Clock, inc)
	return true
}

// know puts the dots of sp into C.
func (r *Replica) know(sp Span) {
	if r.clock.Add(sp) {
		r.changes.Clock = append(r.changes.Clock, sp.Inc)
	}
}

// adopt puts c into S. If it takes the place of one of the removed cells, that
// one leaves in the same step.
func (r *Replica) adopt(c *Cell, removes Dots) {
	r.changes.Added = append(r.changes.Added, c)
	for d := range removes.All() {
		if old := r.cells.ByDot(d); old != nil && old.Key == c.Key {
			r.cells.Replace(old, c)
			r.changes.Removed = append(r.changes.Removed, old)
			return
		}
	}
	r.cells.Add(c)
}

// drop takes d out of S.
func (r *Replica) drop(d Dot) {
	if c := r.cells.ByDot(d); c != nil {
		r.cells.Remove(c)
		r.changes.Removed = append(r.changes.Removed, c)
	}
}

// await puts d into D, or into C if no op of its incarnation will come.
func (r *Replica) await(d Dot) {
	if r.clock.Entry(d.Inc).Sealed {
		r.know(Span{d.Inc, d.Seq, d.Seq})
		return
	}
	if _, ok := r.pending[d]; !ok {
		r.pending[d] = struct{}{}
		r.changes.PendingAdded = append(r.changes.PendingAdded, d)
	}
}

// forget takes d out of D and reports whether it was there.
func (r *Replica) forget(d Dot) bool {
	if _, ok := r.pending[d]; !ok {
		return false
	}
	delete(r.pending, d)
	r.changes.PendingDiscarded = append(r.changes.PendingDiscarded, d)
	return true
}
