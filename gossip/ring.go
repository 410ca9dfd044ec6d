package gossip

import (
	"time"

	"github.com/meshkv/meshkv/crdt"
	"github.com/meshkv/meshkv/internal/fifo"
)

// recent is one op of the ring. What finding and dropping need is not looked up in
// the op: it and its cell left the caches long ago, and would be two more misses.
type recent struct {
	dot    crdt.Dot
	covers bool  // op.Covers is not empty
	bytes  int32 // of op, about
	at     int64
	op     *crdt.Op
}

// ring is the recent ops of all origins, oldest first, that GRAFTs are served
// from: as many as fit into Limits.RingOps, RingBytes and RingAge.
type ring struct {
	ops   fifo.Queue[recent]
	bytes int

	maxOps, maxBytes int
	maxAge           time.Duration
}

func (g *ring) at(i int) *recent { return g.ops.At(i) }

// push adds op, and forgets what is over the limits.
func (g *ring) push(nowNs int64, op *crdt.Op) {
	if g.ops.Len() == g.maxOps {
		g.drop()
	}
	bytes := opBytes(op)
	g.ops.Push(recent{dot: op.Dot, covers: len(op.Covers) > 0, bytes: int32(bytes), at: nowNs, op: op})
	g.bytes += bytes
	for g.bytes > g.maxBytes && g.ops.Len() > 0 {
		g.drop()
	}
}

// drop forgets the oldest.
func (g *ring) drop() {
	g.bytes -= int(g.at(0).bytes)
	g.ops.Drop()
}

// expire forgets what is too old.
func (g *ring) expire(nowNs int64) {
	for g.ops.Len() > 0 && nowNs-g.at(0).at > int64(g.maxAge) {
		g.drop()
	}
}

// find appends the ops that bring one of the wanted dots, oldest first, and
// returns the wanted dots that no op brings. It walks the ring once, whatever
// the number of dots, and never the dots of a span.
func (g *ring) find(wanted crdt.Dots, ops []*crdt.Op) (found []*crdt.Op, missing crdt.Dots) {
	var served []crdt.Span
	for i := range g.ops.Len() {
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
	g.ops.Reset()
	g.bytes = 0
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
