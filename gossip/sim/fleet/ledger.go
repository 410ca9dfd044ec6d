package fleet

import (
	"fmt"

	"github.com/meshkv/meshkv/crdt"
)

// ledger is every op that was issued, and which of them a lost disk may have
// taken along.
type ledger struct {
	ops   map[dot]*record
	order []dot
}

type record struct {
	put     bool
	removes []dot
	lost    bool // may be: nobody else knew it when a disk that held it was lost
}

func newLedger() ledger { return ledger{ops: make(map[dot]*record)} }

func (l *ledger) issued(d dot, put bool, removes []dot) {
	l.ops[d] = &record{put: put, removes: removes}
	l.order = append(l.order, d)
}

// clock is what a node knows, or, if it is down, what its disk does.
func (n *node) clock() *crdt.Clock {
	if n.rep != nil {
		return n.rep.Replica().Clock()
	}
	return n.disk.clock
}

// wiped marks the ops that nobody knows any more since n's disk is gone. It asks
// the others one after the other, of which the first nearly always knows.
func (l *ledger) wiped(f *Fleet, n *node) {
	gone := n.disk.clock
	if gone == nil {
		return
	}
	for _, d := range l.order {
		if !gone.Contains(d) {
			continue
		}
		known := false
		for _, m := range f.nodes {
			if c := m.clock(); m != n && c != nil && c.Contains(d) {
				known = true
				break
			}
		}
		if !known {
			l.ops[d].lost = true
		}
	}
}

// Check compares every replica with the first one and that with the ledger. It
// is meant for when everything has settled.
func (f *Fleet) Check() error {
	var first *node
	for _, n := range f.nodes {
		switch {
		case n.rep == nil:
		case first == nil:
			first = n
		default:
			if err := same(first, n); err != nil {
				return err
			}
		}
	}
	if first == nil {
		return nil
	}
	return f.ledger.check(first.rep.Replica())
}

func same(a, b *node) error {
	x, y := a.rep.Replica(), b.rep.Replica()
	if !x.Clock().Equal(y.Clock()) {
		return fmt.Errorf("clocks of %s and %s differ", a.self, b.self)
	}
	if x.PendingLen() != y.PendingLen() {
		return fmt.Errorf("pending deaths of %s and %s differ: %v, %v", a.self, b.self, x.Pending(), y.Pending())
	}
	for d := range x.Pending().All() {
		if !y.IsPending(d) {
			return fmt.Errorf("%s awaits %s, %s does not", a.self, d, b.self)
		}
	}
	if x.Cells().Len() != y.Cells().Len() {
		return fmt.Errorf("%s holds %d cells, %s %d", a.self, x.Cells().Len(), b.self, y.Cells().Len())
	}
	for c := range x.Cells().(*crdt.MapCells).All() {
		o := y.Cells().ByDot(c.Dot)
		if o == nil || o != c && (o.Key != c.Key || o.HLC != c.HLC || string(o.Value) != string(c.Value)) {
			return fmt.Errorf("%s and %s differ in cell %s", a.self, b.self, c.Dot)
		}
	}
	return nil
}

// check is the promise: a known put lives unless a known op removed it.
func (l *ledger) check(r *crdt.Replica) error {
	for c := range r.Cells().(*crdt.MapCells).All() {
		rec := l.ops[c.Dot]
		if rec == nil || !rec.put {
			return fmt.Errorf("cell %s was never put", c.Dot)
		}
		if !r.Clock().Contains(c.Dot) && !rec.lost {
			return fmt.Errorf("cell %s is provisional, though its op was not lost", c.Dot)
		}
	}
	removed := make(map[dot]dot)
	for _, d := range l.order {
		if r.Clock().Contains(d) {
			for _, x := range l.ops[d].removes {
				removed[x] = d
			}
		} else if !l.ops[d].lost {
			return fmt.Errorf("op %s is unknown everywhere, and no disk that was lost held it alone", d)
		}
	}
	for _, d := range l.order {
		live := r.Cells().ByDot(d) != nil
		if !l.ops[d].put || !r.Clock().Contains(d) && !live {
			continue
		}
		by, dead := removed[d]
		switch {
		case dead && live:
			return fmt.Errorf("cell %s lives, though %s removed it: resurrected", d, by)
		case !dead && !live:
			return fmt.Errorf("cell %s is gone, and no op that is known removed it: lost", d)
		}
	}
	return nil
}
