package crdt

import (
	"cmp"
	"maps"
	"slices"
)

// Authors answers what surveys ask about the live cells. MapCells does.
type Authors interface {
	// Authors are the incarnations with live cells, in no particular order.
	Authors() []Inc
	// HasCells reports whether any cell of inc lives.
	HasCells(inc Inc) bool
	// DotsOf are the dots of the live cells of inc, in no particular order.
	DotsOf(inc Inc) []Dot
}

// A Survey is what a member says of its replica, for all to find out whether they
// hold the same of the incarnations that are closed.
type Survey struct {
	// Digest is of the closed entries: for each its dots, those of its provisional
	// cells included, and whether any of its cells lives.
	Digest uint64
	// Floor is the lowest incarnation that is not closed: with an entry or a live
	// cell, or the one that writes here.
	Floor Inc
}

// An Agreement is what a member decided when the surveys of all unclosed members
// were alike. It says something to replicas whose own survey has that digest, and
// to no others.
type Agreement struct {
	Digest  uint64
	Horizon Inc // no incarnation below it is unclosed at any member
}

// Survey describes the replica, whose cells are those of a.
func (r *Replica) Survey(a Authors) Survey {
	s := Survey{Floor: r.inc}
	for _, inc := range r.clock.Incs() {
		e := r.clock.entries[inc]
		switch {
		case inc == horizonInc:
		case e.Closed:
			s.Digest = mixEntry(s.Digest, inc, r.settled(a, inc, e), a.HasCells(inc))
		default:
			s.Floor = min(s.Floor, inc)
		}
	}
	for _, inc := range a.Authors() {
		if _, ok := r.clock.entries[inc]; !ok {
			s.Floor = min(s.Floor, inc)
		}
	}
	return s
}

// settled is the entry of a closed incarnation with the dots that a seal adds:
// those of provisional cells, which no op may ever bring. There are none once it
// is sealed.
func (r *Replica) settled(a Authors, inc Inc, e Entry) Entry {
	if e.Sealed {
		return e
	}
	var provisional []Dot // few or none of very many
	for _, d := range a.DotsOf(inc) {
		if !e.Contains(d.Seq) {
			provisional = append(provisional, d)
		}
	}
	slices.SortFunc(provisional, Dot.Compare)
	for _, d := range provisional {
		e = e.with(Interval{d.Seq, d.Seq})
	}
	return e
}

// Decide is the agreement that own, the survey of the member that decides, and
// those of all other unclosed members of the keyspace allow; limit is the lowest
// incarnation that the horizon may reach: that of an unclosed member, or of the
// age at which incarnations are retired. There is none if a digest differs.
func Decide(own Survey, others []Survey, limit Inc) (a Agreement, ok bool) {
	a = Agreement{Digest: own.Digest, Horizon: min(own.Floor, limit)}
	for _, s := range others {
		if s.Digest != own.Digest {
			return Agreement{}, false
		}
		a.Horizon = min(a.Horizon, s.Floor)
	}
	return a, true
}

// Agree does what an agreement says, if it is about a replica in this state, and
// reports whether it is. Each closed incarnation is sealed: its provisional cells
// and pending deaths become known. The horizon rises. Closed incarnations below
// it without live cells are retired: no unclosed member has a live cell of
// theirs, nor a dot of theirs that the others lack.
func (r *Replica) Agree(a Agreement, cells Authors) bool {
	if own := r.Survey(cells); own.Digest != a.Digest || own.Floor < a.Horizon {
		return false
	}
	for _, inc := range r.clock.Incs() {
		if e := r.clock.entries[inc]; e.Closed && !e.Sealed {
			e = r.settled(cells, inc, e)
			e.Sealed = true
			r.clock.entries[inc] = e
			r.changes.Clock = append(r.changes.Clock, inc)
		}
	}
	if r.clock.raise(a.Horizon) {
		r.changes.Clock = append(r.changes.Clock, horizonInc)
	}
	r.purge() // before anything is retired: D has none of a sealed incarnation
	for _, inc := range r.clock.Incs() {
		if inc != horizonInc && inc < r.clock.horizon && r.clock.entries[inc].Sealed && !cells.HasCells(inc) {
			r.clock.retire(inc)
			r.changes.Clock = append(r.changes.Clock, inc)
		}
	}
	return true
}

// mixEntry adds an entry to a digest. Entries come ascending by incarnation.
func mixEntry(h uint64, inc Inc, e Entry, alive bool) uint64 {
	h = mix(h ^ uint64(inc))
	h = mix(h ^ e.Prefix)
	for _, is := range e.Islands {
		h = mix(mix(h^is.Lo) ^ is.Hi)
	}
	if alive {
		h = ^h
	}
	return mix(h + uint64(len(e.Islands)))
}

// mix is the finalizer of splitmix64.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// Authors implements Authors.
func (m *MapCells) Authors() []Inc {
	incs := make(map[Inc]struct{})
	for d := range m.dots {
		incs[d.Inc] = struct{}{}
	}
	return slices.Sorted(maps.Keys(incs))
}

// HasCells implements Authors.
func (m *MapCells) HasCells(inc Inc) bool { return len(m.DotsOf(inc)) > 0 }

// DotsOf implements Authors.
func (m *MapCells) DotsOf(inc Inc) []Dot {
	var dots []Dot
	for d := range m.dots {
		if d.Inc == inc {
			dots = append(dots, d)
		}
	}
	slices.SortFunc(dots, func(a, b Dot) int { return cmp.Compare(a.Seq, b.Seq) })
	return dots
}
