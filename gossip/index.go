package gossip

import (
	"iter"

	"github.com/meshkv/meshkv/crdt"
)

// Sum is the sum of a set's hashes, and its size.
type Sum struct{ Hash, Count uint64 }

// reconciler is what a session needs of reconcile.Session.
type reconciler interface {
	Step(m []byte) error
	NextMessage(limit int) ([]byte, bool)
	TakeProvided() []*crdt.Cell
	Added(d crdt.Dot)
	Concluded() (crdt.Known, iter.Seq[crdt.Dot], bool)
	Done() bool
}

// index is the hash trie over the live cells.
type index struct{ sum Sum }

func newIndex(seed uint64) *index { return &index{} }

func (x *index) add(c *crdt.Cell) {
	x.sum.Count++
	x.sum.Hash += uint64(c.Dot.Inc)*0x9E3779B97F4A7C15 ^ c.Dot.Seq
}
func (x *index) remove(c *crdt.Cell) {
	x.sum.Count--
	x.sum.Hash -= uint64(c.Dot.Inc)*0x9E3779B97F4A7C15 ^ c.Dot.Seq
}
func (x *index) root() Sum { return x.sum }

func (r *Replicator) open(id uint64) reconciler       { return nil }
func (r *Replicator) acceptCore(id uint64) reconciler { return nil }
