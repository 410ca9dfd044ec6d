package gossip

import (
	"time"

	"github.com/meshkv/meshkv/crdt"
)

// recent is one op of the ring.
type recent struct {
	dot    crdt.Dot
	covers bool // op.Covers is not empty
	at     int64
	op     *crdt.Op
}

// ring is the recent ops of all origins, oldest first, that GRAFTs are served
// from: as many as fit into Limits.RingOps, RingBytes and RingAge.
type ring struct {
	slots []recent // a circle once it has grown to maxOps
	start int
	n     int
	bytes int

	maxOps, maxBytes int
	maxAge           time.Duration
}

func (g *ring) at(i int) *recent {
	i += g.start
	if i >= len(g.slots) {
		i -= len(g.slots)
	}
	return &g.slots[i]
}

// push adds op, and forgets what is over the limits.
func (g *ring) push(nowNs int64, op *crdt.Op) {
	if g.n == len(g.slots) {
		if len(g.slots) < g.maxOps {
			g.grow()
		} else {
			g.drop()
		}
	}
	g.n++
	*g.at(g.n - 1) = recent{dot: op.Dot, covers: len(op.Covers) > 0, at: nowNs, op: op}
	g.bytes += opBytes(op)
	for g.bytes > g.maxBytes && g.n > 0 {
		g.drop()
	}
}

func (g *ring) grow() {
	slots := make([]recent, min(max(2*len(g.slots), 256), g.maxOps))
	for i := range g.n {
		slots[i] = *g.at(i)
	}
	g.slots, g.start = slots, 0
}

// drop forgets the oldest.
func (g *ring) drop() {
	s := g.at(0)
	g.bytes -= opBytes(s.op)
	*s = recent{}
	g.n--
	if g.start++; g.start == len(g.slots) {
		g.start = 0
	}
}

// expire forgets what is too old.
func (g *ring) expire(nowNs int64) {
	for g.n > 0 && nowNs-g.at(0).at > int64(g.maxAge) {
		g.drop()
	}
}

// find appends the ops that bring one of the wanted dots, oldest first, and
// returns the wanted dots that no op brings. It walks the ring once, whatever
// the number of dots, and never the dots of a span.
func (g *ring) find(wanted crdt.Dots, ops []*crdt.Op) (found []*crdt.Op, missing crdt.Dots) {
	var served []crdt.Span
	for i := range g.n {
		s := g.at(i)
		if !wanted.Contains(s.dot) && !(s.covers && overlap(wanted, s.op.Covers)) {
			continue
		}
		ops = append(ops, s.op)
		served = append(served, crdt.Span{Inc: s.dot.Inc, Lo: s.dot.Seq, Hi: s.dot.Seq})
		served = append(served, s.op.Covers...)
	}
	return ops, minus(wanted, dotsOf(served))
}

// reset forgets everything.
func (g *ring) reset() {
	g.slots, g.start, g.n, g.bytes = nil, 0, 0, 0
}

// overlap reports whether the sets have a dot in common.
func overlap(a, b crdt.Dots) bool {
	for i, j := 0, 0; i < len(a) && j < len(b); {
		x, y := a[i], b[j]
		switch {
		case x.Inc < y.Inc || x.Inc == y.Inc && x.Hi < y.Lo:
			i++
		case y.Inc < x.Inc || y.Hi < x.Lo:
			j++
		default:
			return true
		}
	}
	return false
}
