package gossip

import "github.com/meshkv/meshkv/crdt"

// Damaged reports whether the trie holds a cell that the replica does not: one of
// the two is wrong, and nobody here can tell which. By the trie, the replica lost a
// cell that it acknowledged; were the trie made anew without it, the next sessions
// would remove that cell everywhere. So nothing is repaired, and no session runs
// any more. The owner discards what the replica knows, and continues with a new
// Replicator that peers fill: see Remains.
func (r *Replicator) Damaged() bool { return r.damaged }

// Remains is what may be kept of a damaged replica: its live cells, to which a new
// one with an empty clock is provisional. Of each of them a peer knows more, or it
// is here alone. The sequence is to be counted on.
func (r *Replicator) Remains() (cells []*crdt.Cell) {
	for c := range r.cells() {
		cells = append(cells, c)
	}
	return cells
}

// repair is what follows when a scrub found something wrong. Sums, and cells that
// the trie lacks, follow from the cells and the clock.
func (r *Replicator) repair() {
	for c := range r.data.Snapshot().All {
		if r.replica.Cells().ByDot(c.Dot) == nil {
			r.damaged = true
			for _, l := range r.order {
				r.abort(l)
			}
			return
		}
	}
	r.rebuild()
}
