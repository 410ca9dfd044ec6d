package bridge

import (
	"iter"

	"github.com/meshkv/meshkv/consensus/machine"
	"github.com/meshkv/meshkv/crdt"
)

// pageEntries is how many entries of a view are read at once.
const pageEntries = 1024

// A State is what a copy holds that knows everything up to the moment of a view. It does
// not change, and any number of goroutines may read it.
type State struct {
	origin crdt.Inc
	view   *machine.View
}

// StateOf is the state of a copy that is equal to v.
func StateOf(origin crdt.Inc, v *machine.View) State { return State{origin, v} }

// Origin is the one incarnation that the state knows.
func (s State) Origin() crdt.Inc { return s.origin }

// Seq is the last change: all dots of the origin up to it are known.
func (s State) Seq() uint64 { return uint64(s.view.Status().Seq) }

// Revision is that of the view.
func (s State) Revision() uint64 { return uint64(s.view.Status().Revision) }

// Holds reports whether c is a live cell of the state.
func (s State) Holds(c *crdt.Cell) bool {
	e := s.view.Get(c.Key)
	return e != nil && uint64(e.Seq) == c.Dot.Seq && c.Dot.Inc == s.origin
}

// Cells yields the live cells that have a seq for which wanted says true, ascending by
// key. They share the bytes of the entries.
func (s State) Cells(wanted func(seq uint64) bool) iter.Seq[*crdt.Cell] {
	return func(yield func(*crdt.Cell) bool) {
		for from, more := "", true; more; {
			// At its own revision a view can always be read.
			page, err := s.view.Range(&machine.Get{Span: machine.Span{Key: from, End: "\x00"}, Limit: pageEntries})
			if err != nil {
				panic("bridge: a view cannot be read at its own revision: " + err.Error())
			}
			for _, e := range page.Entries {
				if wanted(uint64(e.Seq)) && !yield(Cell(s.origin, e)) {
					return
				}
				from = e.Key + "\x00"
			}
			more = page.More
		}
	}
}
