package model

import (
	"maps"
	"slices"

	"github.com/meshkv/meshkv/crdt"
)

type dotSet map[crdt.Dot]bool

// refOp is an op of the reference. Its covers hold its own dot.
type refOp struct {
	own     crdt.Dot
	covers  []crdt.Dot
	removes []crdt.Dot
	key     string
	cell    *crdt.Cell
	more    []*crdt.Cell // the other cells of a batch
}

// refCoalesce is the rule Coalesce of the design, or nil.
func refCoalesce(older, newer *refOp) *refOp {
	if older.key != newer.key || len(older.more) > 0 || len(newer.more) > 0 {
		return nil
	}
	removesIt := slices.Contains(newer.removes, older.own)
	bareBefore := older.cell == nil && older.own.Inc == newer.own.Inc && older.own.Seq < newer.own.Seq
	if !removesIt && !bareBefore {
		return nil
	}
	return &refOp{
		own: newer.own, key: newer.key, cell: newer.cell,
		covers:  slices.Concat(older.covers, newer.covers),
		removes: slices.Concat(older.removes, newer.removes),
	}
}

// refState is what a replica consists of, and what a session or a restart takes
// a copy of.
type refState struct {
	S              map[crdt.Dot]*crdt.Cell
	C, D           dotSet
	closed, sealed map[crdt.Inc]bool
	H              crdt.Inc
	// A is the ops that had their effect here, or at whom this state learned from.
	// Unlike C it forgets nothing that is retired, and holds nothing that was only
	// adopted by a seal.
	A dotSet
}

func newRefState() refState {
	return refState{
		S: map[crdt.Dot]*crdt.Cell{}, C: dotSet{}, D: dotSet{}, A: dotSet{},
		closed: map[crdt.Inc]bool{}, sealed: map[crdt.Inc]bool{},
	}
}

func (s refState) copy() refState {
	return refState{
		S: maps.Clone(s.S), C: maps.Clone(s.C), D: maps.Clone(s.D), A: maps.Clone(s.A),
		closed: maps.Clone(s.closed), sealed: maps.Clone(s.sealed), H: s.H,
	}
}

// retired is whether inc is below the horizon and has no entry.
func (s refState) retired(inc crdt.Inc) bool {
	if inc >= s.H || s.closed[inc] {
		return false
	}
	for d := range s.C {
		if d.Inc == inc {
			return false
		}
	}
	return true
}

func (s refState) knows(d crdt.Dot) bool { return s.C[d] || s.H > d.Inc && s.retired(d.Inc) }

func (s refState) learn(d crdt.Dot) {
	if !s.knows(d) {
		s.C[d] = true
	}
}

func (s refState) await(d crdt.Dot) {
	switch {
	case s.knows(d):
	case s.sealed[d.Inc]:
		s.C[d] = true
	default:
		s.D[d] = true
	}
}

// purge takes out of D what is known, or of a sealed incarnation.
func (s refState) purge() {
	for d := range s.D {
		if s.knows(d) || s.sealed[d.Inc] {
			s.learn(d)
			delete(s.D, d)
			delete(s.S, d)
		}
	}
}

// agree is the effect of an agreement with horizon h on a replica that it is for.
func (s *refState) agree(h crdt.Inc) {
	for inc := range s.closed {
		for d := range s.S {
			if d.Inc == inc && !s.sealed[inc] {
				s.C[d] = true
			}
		}
		s.sealed[inc] = true
	}
	s.H = max(s.H, h)
	s.purge()
	for inc := range s.sealed {
		alive := false
		for d := range s.S {
			alive = alive || d.Inc == inc
		}
		if inc < s.H && !alive {
			s.retire(inc)
		}
	}
}

func (s *refState) retire(inc crdt.Inc) {
	maps.DeleteFunc(s.C, func(d crdt.Dot, _ bool) bool { return d.Inc == inc })
	delete(s.closed, inc)
	delete(s.sealed, inc)
}

// A reference is a replica that is as simple as the rules are.
type reference struct {
	refState
	inc crdt.Inc
	seq uint64
}

func (r *reference) issue(key string, cell *crdt.Cell, removes func(*crdt.Cell) bool) *refOp {
	r.seq++
	op := &refOp{own: crdt.Dot{Inc: r.inc, Seq: r.seq}, key: key, cell: cell}
	op.covers = []crdt.Dot{op.own}
	for d, c := range r.S {
		if removes(c) {
			op.removes = append(op.removes, d)
		}
	}
	if cell != nil {
		cell.Dot = op.own
	}
	r.apply(op)
	return op
}

func (r *reference) put(w crdt.Write) *refOp {
	cell := &crdt.Cell{Key: w.Key, Path: w.Path, Kind: w.Kind, Flags: w.Flags, HLC: w.HLC, Expires: w.Expires, Value: w.Value}
	return r.issue(w.Key, cell, func(c *crdt.Cell) bool { return c.Key == w.Key && c.Path == w.Path })
}

// A change is one of a batch: a put, or the removal of a key.
type change struct {
	put   bool
	write crdt.Write
}

// batch makes changes one after another, in one op. It is nil if there was nothing to change.
func (r *reference) batch(changes []change, at crdt.HLC) *refOp {
	first, seq := r.seq+1, r.seq
	var added []*crdt.Cell
	gone := dotSet{}
	for _, ch := range changes {
		hit := func(c *crdt.Cell) bool { return c.Key == ch.write.Key && (!ch.put || c.Path == "") }
		for d, c := range r.S {
			if hit(c) {
				gone[d] = true
			}
		}
		added = slices.DeleteFunc(added, hit)
		if w := ch.write; ch.put {
			seq++
			added = append(added, &crdt.Cell{
				Dot: crdt.Dot{Inc: r.inc, Seq: seq}, HLC: at, Key: w.Key, Kind: w.Kind, Flags: w.Flags, Expires: w.Expires, Value: w.Value,
			})
		}
	}
	if len(added)+len(gone) == 0 {
		return nil
	}
	op := &refOp{own: crdt.Dot{Inc: r.inc, Seq: first}}
	names := map[string]bool{}
	for d := range gone {
		op.removes = append(op.removes, d)
		names[r.S[d].Key] = true
	}
	if n := len(added); n > 0 {
		op.cell, op.more = added[n-1], added[:n-1]
		op.own = op.cell.Dot
		clear(names)
		if n == 1 {
			names[op.cell.Key] = true
		}
	}
	for name := range names {
		if len(names) == 1 {
			op.key = name
		}
	}
	for q := first; q <= op.own.Seq; q++ {
		op.covers = append(op.covers, crdt.Dot{Inc: r.inc, Seq: q})
	}
	r.seq = op.own.Seq
	r.apply(op)
	return op
}

// remove is nil if there is nothing to remove.
func (r *reference) remove(key string, match func(*crdt.Cell) bool) *refOp {
	for _, c := range r.S {
		if match(c) {
			return r.issue(key, nil, match)
		}
	}
	return nil
}

func (r *reference) apply(o *refOp) (fresh bool) {
	for _, e := range o.covers {
		fresh = fresh || !r.knows(e)
	}
	if !fresh {
		return false
	}
	cells := map[crdt.Dot]*crdt.Cell{}
	for _, c := range o.more {
		if !r.knows(c.Dot) {
			cells[c.Dot] = c
		}
	}
	if o.cell != nil && !r.knows(o.own) {
		cells[o.own] = o.cell
	}
	for _, e := range o.covers {
		r.learn(e)
		r.A[e] = true
	}
	for _, d := range o.removes {
		delete(r.S, d)
		r.await(d)
	}
	for _, e := range o.covers {
		carried := e == o.own || slices.ContainsFunc(o.more, func(c *crdt.Cell) bool { return c.Dot == e })
		switch {
		case r.D[e]:
			delete(r.D, e)
			delete(r.S, e)
		case cells[e] != nil:
			r.S[e] = cells[e]
		case !carried:
			delete(r.S, e)
		}
	}
	return true
}

func (r *reference) provide(c *crdt.Cell) (taken bool) {
	if r.knows(c.Dot) || r.D[c.Dot] || r.S[c.Dot] != nil {
		return false
	}
	r.S[c.Dot] = c
	return true
}

// conclude is the end of a session with a peer that began it as peer. It returns
// the dots of the cells that were rejected.
func (r *reference) conclude(peer refState, lastInc crdt.Inc) (rejected []crdt.Dot) {
	for d := range r.S {
		if (peer.knows(d) || peer.D[d]) && peer.S[d] == nil {
			delete(r.S, d)
			if !peer.C[d] && !peer.D[d] {
				rejected = append(rejected, d)
			}
		}
	}
	var gone []crdt.Inc
	for inc := crdt.Inc(1); inc <= lastInc; inc++ {
		if r.retired(inc) || peer.retired(inc) {
			gone = append(gone, inc)
		}
	}
	maps.Copy(r.C, peer.C)
	maps.Copy(r.D, peer.D)
	maps.Copy(r.A, peer.A)
	maps.Copy(r.closed, peer.closed)
	maps.Copy(r.sealed, peer.sealed)
	r.H = max(r.H, peer.H)
	for _, inc := range gone {
		r.retire(inc)
	}
	r.purge()
	return rejected
}

// shown is the visible cells of a key, the one that Get shows first.
func (r *reference) shown(key string, now int64) []crdt.Dot {
	var cells []*crdt.Cell
	for _, c := range r.S {
		expired := c.Expires > 0 && c.Expires <= now
		orphan := c.Flags&crdt.FlagEphemeral != 0 && r.closed[c.Dot.Inc]
		if c.Key == key && !expired && !orphan {
			cells = append(cells, c)
		}
	}
	slices.SortFunc(cells, func(a, b *crdt.Cell) int {
		newer := a.HLC > b.HLC ||
			a.HLC == b.HLC && a.Dot.Inc > b.Dot.Inc ||
			a.HLC == b.HLC && a.Dot.Inc == b.Dot.Inc && a.Dot.Seq > b.Dot.Seq
		if newer {
			return -1
		}
		return 1
	})
	dots := make([]crdt.Dot, len(cells))
	for i, c := range cells {
		dots[i] = c.Dot
	}
	return dots
}
