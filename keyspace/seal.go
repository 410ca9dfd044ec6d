package keyspace

import (
	"time"

	"github.com/meshkv/meshkv/crdt"
)

// Authors implements crdt.Authors.
func (x *index) Authors() []crdt.Inc {
	incs := make([]crdt.Inc, 0, len(x.dots.incs))
	for inc := range x.dots.incs {
		incs = append(incs, inc)
	}
	return incs
}

// HasCells implements crdt.Authors.
func (x *index) HasCells(inc crdt.Inc) bool { return len(x.dots.incs[inc]) > 0 }

// DotsOf implements crdt.Authors.
func (x *index) DotsOf(inc crdt.Inc) []crdt.Dot {
	var dots []crdt.Dot
	for _, page := range x.dots.incs[inc] {
		for _, r := range page.refs {
			if r != 0 {
				dots = append(dots, x.cells.get(r).Dot)
			}
		}
	}
	return dots
}

// Survey describes what this replica holds of closed incarnations. It is not ok
// while the replica has met no member since it began empty, unless it is alone,
// nor while its own incarnation is not what others may count on. A mirror has no
// closed incarnations to survey: none of a member ever writes there.
func (k *Keyspace) Survey(alone bool) (s crdt.Survey, ok bool) {
	met := alone || k.Met()
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.origin != 0 || !met || k.done || k.rep.Lost() {
		return crdt.Survey{}, false
	}
	if !k.surveyed { // it may look at every cell
		k.survey, k.surveyed = k.rep.Survey(k.index), true
	}
	return k.survey, true
}

// Agree does what an agreement of all unclosed members says, if it is about a
// replica in this state.
func (k *Keyspace) Agree(now time.Time, a crdt.Agreement) (agreed bool) {
	k.drive(now, func() { agreed = !k.rep.Lost() && k.rep.Agree(now, a, k.index) })
	return agreed
}

// Lost reports whether writes are refused until Renew is called.
func (k *Keyspace) Lost() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.rep.Lost()
}

// Horizon is the birth horizon: an incarnation below it that is not known here is
// too old to write.
func (k *Keyspace) Horizon() crdt.Inc {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.rep.Replica().Clock().Horizon()
}

// Rejected is how many cells this node had to drop after a long absence, since it
// was opened.
func (k *Keyspace) Rejected() uint64 { return k.rejected.Load() }
