package gossip

import (
	"time"

	"github.com/meshkv/meshkv/crdt"
)

// Survey describes what the replica, whose cells are those of a, holds of closed
// incarnations.
func (r *Replicator) Survey(a crdt.Authors) crdt.Survey { return r.replica.Survey(a) }

// Agree does what an agreement of all unclosed members says, if it is about a
// replica in this state, and reports whether it is.
func (r *Replicator) Agree(now time.Time, agreed crdt.Agreement, a crdt.Authors) bool {
	r.begin(now)
	ok := r.replica.Agree(agreed, a)
	r.settle()
	return ok
}
