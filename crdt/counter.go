package crdt

import (
	"encoding/binary"
	"fmt"
	"iter"
	"maps"
	"math"
	"slices"
)

// The paths of a counter's cells.
const (
	totalPath    = "t" // and 8 bytes, the actor: its running total
	baselinePath = "b" // what a reset has seen
)

// A total is what one actor, an incarnation, has added and subtracted since its chain began. A chain begins
// with the actor's first cell, and anew when the last one was removed: the seq of that cell names it. So totals of one
// chain only grow, and those of different ones are never mixed up.
type total struct {
	chain       uint64
	plus, minus uint64
}

func actorPath(prefix string, inc Inc) string {
	return string(binary.BigEndian.AppendUint64([]byte(prefix), uint64(inc)))
}

func (t total) encode() []byte {
	b := binary.AppendUvarint(nil, t.chain)
	return binary.AppendUvarint(binary.AppendUvarint(b, t.plus), t.minus)
}

// CounterAdd adds delta, which may be negative, to a PN-counter. Nothing that was added is lost or counted twice,
// but by what CounterReset and Delete say. ErrRange if this incarnation's total would overflow.
// (Shapiro et al. 2011, "A comprehensive study of Convergent and Commutative Replicated Data Types", §3.1.3.)
func (d *Draft) CounterAdd(key string, delta int64) error {
	if err := d.want(key, KindCounter); err != nil {
		return err
	}
	path := actorPath(totalPath, d.r.inc)
	t := total{chain: d.next().Seq}
	if own := newestOf(d.place(key, path, KindCounter)); own != nil {
		t = decodeTotal(own.Value)
	}
	sum, amount := &t.plus, uint64(delta)
	if delta < 0 {
		sum, amount = &t.minus, -amount
	}
	if *sum+amount < *sum {
		return fmt.Errorf("%w: the total of a counter", ErrRange)
	}
	*sum += amount
	return d.replace(key, path, KindCounter, t.encode(), Lifetime{})
}

// CounterReset makes a counter zero but for what was added concurrently. It removes the totals that it sees
// and leaves a baseline in their place: so much of a chain does not count. An add that had not been seen carries the total
// of its chain, and counts for what is above. Delete leaves no baseline: after it, a
// concurrent add counts with the whole total of its actor.
func (d *Draft) CounterReset(key string) error {
	if err := d.want(key, KindCounter); err != nil {
		return err
	}
	c := counterOf(d.under(key, "", KindCounter))
	base := c.base
	for inc, t := range c.totals {
		base.raise(inc, t)
	}
	for inc := range base {
		if _, live := c.totals[inc]; !live && d.r.clock.Entry(inc).Sealed {
			delete(base, inc) // nothing of it can come any more
		}
	}
	if err := d.removeAll(d.under(key, "", KindCounter)); err != nil {
		return err
	}
	return d.add(Cell{Key: key, Path: baselinePath, Kind: KindCounter, Value: base.encode()})
}

// CounterValue is the value of a counter with these cells, in any order. ErrRange if it is not an int64.
func CounterValue(cells iter.Seq[*Cell]) (int64, error) {
	c := counterOf(cells)
	var plus, minus, carry uint64
	for inc, t := range c.totals {
		p, m := t.plus, t.minus
		switch b, ok := c.base[inc]; {
		case ok && b.chain > t.chain: // the end of its chain has been seen by whoever reset; what ends it is under way
			continue
		case ok && b.chain == t.chain:
			p, m = p-min(p, b.plus), m-min(m, b.minus)
		}
		if plus+p < plus || minus+m < minus {
			carry++
		}
		plus, minus = plus+p, minus+m
	}
	switch {
	case carry > 0:
	case plus >= minus && plus-minus <= math.MaxInt64:
		return int64(plus - minus), nil
	case minus > plus && minus-plus <= 1<<63:
		return int64(-(minus - plus)), nil
	}
	return 0, fmt.Errorf("%w: the value of a counter is a signed number of 64 bits", ErrRange)
}

// A baseline is how much of the newest known chain of each actor does not count.
type baseline map[Inc]total

// raise takes t over where it is of a newer chain, or more of the same.
func (b baseline) raise(inc Inc, t total) {
	old, ok := b[inc]
	switch {
	case !ok || t.chain > old.chain:
		b[inc] = t
	case t.chain == old.chain:
		b[inc] = total{t.chain, max(old.plus, t.plus), max(old.minus, t.minus)}
	}
}

func (b baseline) encode() []byte {
	out := make([]byte, 0, 24*len(b))
	for _, inc := range slices.Sorted(maps.Keys(b)) {
		out = append(binary.BigEndian.AppendUint64(out, uint64(inc)), b[inc].encode()...)
	}
	return out
}

// A counter is what its cells say: the total of each actor's newest cell, and what does not count of it.
type counter struct {
	totals map[Inc]total
	base   baseline
}

func counterOf(cells iter.Seq[*Cell]) counter {
	c := counter{totals: make(map[Inc]total), base: make(baseline)}
	newest := make(map[Inc]uint64) // of an actor's cells only the highest seq counts
	for cell := range cells {
		switch {
		case cell.Kind != KindCounter:
		case cell.Path == baselinePath:
			for inc, t := range decodeBaseline(cell.Value) {
				c.base.raise(inc, t)
			}
		case cell.Dot.Seq > newest[cell.Dot.Inc]:
			newest[cell.Dot.Inc] = cell.Dot.Seq
			c.totals[cell.Dot.Inc] = decodeTotal(cell.Value)
		}
	}
	return c
}

// varints reads numbers off b. Of bytes that are none, which no replica of ours writes, it reads zeros.
type varints struct{ b []byte }

func (v *varints) next() uint64 {
	u, n := binary.Uvarint(v.b)
	if n <= 0 {
		v.b = nil
		return 0
	}
	v.b = v.b[n:]
	return u
}

func (v *varints) inc() Inc {
	if len(v.b) < 8 {
		v.b = nil
		return 0
	}
	inc := Inc(binary.BigEndian.Uint64(v.b))
	v.b = v.b[8:]
	return inc
}

func (v *varints) total() total { return total{v.next(), v.next(), v.next()} }

func decodeTotal(b []byte) total {
	v := varints{b}
	return v.total()
}

func decodeBaseline(b []byte) baseline {
	base := make(baseline)
	for v := (varints{b}); len(v.b) > 0; {
		inc := v.inc()
		if t := v.total(); inc != 0 {
			base.raise(inc, t)
		}
	}
	return base
}
