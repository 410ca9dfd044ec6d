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
	totalPath    = "t" // and 16 bytes, the chain: its running total
	baselinePath = "b" // what a reset has seen
)

// A chain is the adds of one actor, an incarnation, that one cell carries: the first of them names it. An actor begins
// a new one when its cell was removed, and when it joined the keyspace again, as it may then lack what it
// wrote before. So a chain ends where the next one of its actor begins, and its total only grows until then.
type chain Dot

// path is where the cells of a chain are.
func (c chain) path() string {
	return string(binary.BigEndian.AppendUint64([]byte(actorPath(totalPath, c.Inc)), c.Seq))
}

// chainOf is the inverse of path.
func chainOf(path string) (c chain, ok bool) {
	if len(path) != len(totalPath)+16 || path[:len(totalPath)] != totalPath {
		return chain{}, false
	}
	v := varints{[]byte(path[len(totalPath):])}
	return chain{Inc(v.fixed()), v.fixed()}, true
}

func actorPath(prefix string, inc Inc) string {
	return string(binary.BigEndian.AppendUint64([]byte(prefix), uint64(inc)))
}

// A total is what was added and subtracted in a chain.
type total struct{ plus, minus uint64 }

// max is the later of two totals of one chain.
func (t total) max(o total) total { return total{max(t.plus, o.plus), max(t.minus, o.minus)} }

func (t total) append(b []byte) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(b, t.plus), t.minus)
}

// CounterAdd adds delta, which may be negative, to a PN-counter. Nothing that was added is lost or counted twice,
// but by what CounterReset and Delete say. ErrRange if the total of this incarnation would overflow.
// (Shapiro et al. 2011, "A comprehensive study of Convergent and Commutative Replicated Data Types", §3.1.3.)
func (d *Draft) CounterAdd(key string, delta int64) error {
	if err := d.want(key, KindCounter); err != nil {
		return err
	}
	own, t := chain(d.next()), total{}
	for cell := range d.under(key, actorPath(totalPath, d.r.inc), KindCounter) {
		c, ok := chainOf(cell.Path)
		switch {
		case !ok || c.Seq <= d.r.since: // it may lack what others have of it
		case c == own:
			t = t.max(decodeTotal(cell.Value))
		default: // there is one at most
			own, t = c, decodeTotal(cell.Value)
		}
	}
	sum, amount := &t.plus, uint64(delta)
	if delta < 0 {
		sum, amount = &t.minus, -amount
	}
	if *sum+amount < *sum {
		return fmt.Errorf("%w: the total of a counter: reset it", ErrRange)
	}
	*sum += amount
	return d.replace(key, own.path(), KindCounter, t.append(nil), Lifetime{})
}

// CounterReset makes a counter zero but for what was added concurrently. It removes the totals that it sees
// and leaves a baseline in their place: so much of a chain does not count. An add that had not been seen carries the total
// of its chain, and counts for what is above. Delete leaves no baseline: after it, a
// concurrent add counts with the whole total of its chain.
func (d *Draft) CounterReset(key string) error {
	if err := d.want(key, KindCounter); err != nil {
		return err
	}
	c := counterOf(d.under(key, "", KindCounter))
	base := c.base
	for ch, t := range c.totals {
		base.raise(ch, t)
	}
	d.shorten(base)
	if err := d.removeAll(d.under(key, "", KindCounter)); err != nil {
		return err
	}
	return d.add(Cell{Key: key, Path: baselinePath, Kind: KindCounter, Value: base.encode()})
}

// shorten leaves out of a baseline the chains of which nothing can come that is not known here: all their cells are removed
// by this reset, or have been.
func (d *Draft) shorten(base baseline) {
	latest := make(map[Inc]uint64)
	for c := range base {
		latest[c.Inc] = max(latest[c.Inc], c.Seq)
	}
	for c := range base {
		e := d.r.clock.Entry(c.Inc)
		ended := c.Seq < latest[c.Inc] && e.Prefix >= latest[c.Inc]-1
		if ended || e.Sealed {
			delete(base, c)
		}
	}
}

// CounterValue is the value of a counter with these cells, in any order. ErrRange if it is not an int64.
func CounterValue(cells iter.Seq[*Cell]) (int64, error) {
	c := counterOf(cells)
	var plus, minus uint64
	for ch, t := range c.totals {
		b := c.base[ch]
		p, m := t.plus-min(t.plus, b.plus), t.minus-min(t.minus, b.minus)
		if plus+p < plus || minus+m < minus {
			return 0, fmt.Errorf("%w: the sums of a counter: reset it", ErrRange)
		}
		plus, minus = plus+p, minus+m
	}
	switch {
	case plus >= minus && plus-minus <= math.MaxInt64:
		return int64(plus - minus), nil
	case minus > plus && minus-plus <= 1<<63:
		return int64(-(minus - plus)), nil
	}
	return 0, fmt.Errorf("%w: the value of a counter is a signed number of 64 bits: reset it", ErrRange)
}

// A baseline is how much of each chain does not count.
type baseline map[chain]total

func (b baseline) raise(c chain, t total) { b[c] = b[c].max(t) }

func (b baseline) encode() []byte {
	out := make([]byte, 0, 24*len(b))
	for _, c := range slices.SortedFunc(maps.Keys(b), func(x, y chain) int { return Dot(x).Compare(Dot(y)) }) {
		out = binary.BigEndian.AppendUint64(out, uint64(c.Inc))
		out = b[c].append(binary.AppendUvarint(out, c.Seq))
	}
	return out
}

// A counter is what its cells say: the total of each chain, and what does not count of it. Of the cells
// of one chain only the latest counts, which has the highest total.
type counter struct {
	totals map[chain]total
	base   baseline
}

func counterOf(cells iter.Seq[*Cell]) counter {
	c := counter{totals: make(map[chain]total), base: make(baseline)}
	for cell := range cells {
		if cell.Kind != KindCounter {
			continue
		}
		if cell.Path == baselinePath {
			for ch, t := range decodeBaseline(cell.Value) {
				c.base.raise(ch, t)
			}
		} else if ch, ok := chainOf(cell.Path); ok {
			c.totals[ch] = c.totals[ch].max(decodeTotal(cell.Value))
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

// fixed is a number of 8 bytes.
func (v *varints) fixed() uint64 {
	if len(v.b) < 8 {
		v.b = nil
		return 0
	}
	u := binary.BigEndian.Uint64(v.b)
	v.b = v.b[8:]
	return u
}

func (v *varints) inc() Inc { return Inc(v.fixed()) }

func decodeTotal(b []byte) total {
	v := varints{b}
	return total{v.next(), v.next()}
}

func decodeBaseline(b []byte) baseline {
	base := make(baseline)
	for v := (varints{b}); len(v.b) > 0; {
		c := chain{v.inc(), v.next()}
		if t := (total{v.next(), v.next()}); c.Inc != 0 && c.Seq != 0 {
			base.raise(c, t)
		}
	}
	return base
}
