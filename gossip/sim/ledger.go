package sim

import (
	"fmt"
	"slices"

	"github.com/meshkv/meshkv/crdt"
)

// ledger is every op that was issued, and which of them a crash may have lost.
type ledger struct {
	ops   map[crdt.Dot]*record
	order []crdt.Dot
}

type record struct {
	put     bool
	removes []crdt.Dot
	lost    bool // may be: no process that goes on knew it when its origin crashed
}

func newLedger() ledger { return ledger{ops: make(map[crdt.Dot]*record)} }

func (l *ledger) issued(d crdt.Dot, put bool, removes []crdt.Dot) {
	l.ops[d] = &record{put: put, removes: removes}
	l.order = append(l.order, d)
}

// crash marks the ops that nobody knows any more once n goes on from im.
// (Provisional cells do not count: their dots are known to nobody.)
func (l *ledger) crash(s *Sim, n *node, im image) {
	for _, d := range l.order {
		known := im.clock.Contains(d)
		for _, m := range s.nodes {
			known = known || m != n && m.rep.Replica().Clock().Contains(d)
		}
		if !known {
			l.ops[d].lost = true
		}
	}
}

// Check compares every replica with the first and with the ledger. It is meant
// for when everything has settled.
func (s *Sim) Check() error {
	first := s.nodes[0].rep.Replica()
	cells := slices.Collect(first.Cells().(*crdt.MapCells).All())
	for _, n := range s.nodes[1:] {
		r := n.rep.Replica()
		if !r.Clock().Equal(first.Clock()) {
			return fmt.Errorf("clocks of %s and %s differ", s.nodes[0].self, n.self)
		}
		if !slices.Equal(r.Pending(), first.Pending()) {
			return fmt.Errorf("pending deaths of %s and %s differ: %v, %v", s.nodes[0].self, n.self, first.Pending(), r.Pending())
		}
		others := slices.Collect(r.Cells().(*crdt.MapCells).All())
		if !slices.EqualFunc(cells, others, sameCell) {
			return fmt.Errorf("%s holds %d cells, %s %d, and they differ", s.nodes[0].self, len(cells), n.self, len(others))
		}
	}
	return s.ledger.check(first, cells)
}

func sameCell(a, b *crdt.Cell) bool {
	return a.Dot == b.Dot && a.Key == b.Key && a.Path == b.Path && a.HLC == b.HLC && string(a.Value) == string(b.Value)
}

// check is the promise: a known put lives unless a known op removed it.
func (l *ledger) check(r *crdt.Replica, cells []*crdt.Cell) error {
	live := make(map[crdt.Dot]bool, len(cells))
	for _, c := range cells {
		rec := l.ops[c.Dot]
		if rec == nil || !rec.put {
			return fmt.Errorf("cell %s was never put", c.Dot)
		}
		if !r.Clock().Contains(c.Dot) && !rec.lost {
			return fmt.Errorf("cell %s is provisional, though its op was not lost", c.Dot)
		}
		live[c.Dot] = true
	}
	removed := make(map[crdt.Dot]crdt.Dot)
	for _, d := range l.order {
		if r.Clock().Contains(d) {
			for _, x := range l.ops[d].removes {
				removed[x] = d
			}
		} else if !l.ops[d].lost {
			return fmt.Errorf("op %s is unknown everywhere, and no crash can have lost it", d)
		}
	}
	for _, d := range l.order {
		if !l.ops[d].put || !r.Clock().Contains(d) && !live[d] {
			continue
		}
		by, dead := removed[d]
		switch {
		case dead && live[d]:
			return fmt.Errorf("cell %s lives, though %s removed it: resurrected", d, by)
		case !dead && !live[d]:
			return fmt.Errorf("cell %s is gone, and no op that is known removed it: lost", d)
		}
	}
	return nil
}
