package crdt

import (
	"math"
	"strings"
	"unsafe"
)

// MaxCovers is the most dots that one op may stand for beside its own.
const MaxCovers = MaxRemoves

// Dot takes a dot, which names a write.
func (d *Decoder) Dot() (Dot, error) {
	more, err := d.fields(2)
	if err != nil {
		return Dot{}, err
	}
	inc, err := d.inc()
	if err != nil {
		return Dot{}, err
	}
	seq, err := d.Uint()
	if err == nil && seq == 0 {
		err = malformed("sequence number 0")
	}
	if err != nil {
		return Dot{}, err
	}
	return Dot{inc, seq}, d.Skip(more)
}

func (d *Decoder) inc() (Inc, error) {
	u, err := d.Uint()
	if err == nil && u == 0 {
		err = malformed("incarnation 0")
	}
	return Inc(u), err
}

// Dots takes a set of at most maxSpans spans. A span may name any number of
// dots: check Len before walking them.
func (d *Decoder) Dots(maxSpans int) (Dots, error) {
	groups, err := d.ArrayLen(maxSpans)
	if err != nil {
		return nil, err
	}
	var s Dots
	for range groups {
		n, err := d.ArrayLen(1 + 2*(maxSpans-len(s)))
		if err != nil {
			return nil, err
		}
		if n < 3 || n%2 == 0 {
			return nil, malformed("%d values for the spans of an incarnation", n)
		}
		inc, err := d.inc()
		if err != nil {
			return nil, err
		}
		if len(s) > 0 && inc <= s[len(s)-1].Inc {
			return nil, malformed("incarnations out of order")
		}
		if s == nil {
			s = make(Dots, 0, max(groups, n/2))
		}
		iv := Interval{}
		for i := range n / 2 {
			if iv, err = d.interval(iv.Hi, i == 0); err != nil {
				return nil, err
			}
			s = append(s, Span{inc, iv.Lo, iv.Hi})
		}
	}
	return s, nil
}

// interval takes the next interval after one that ended at last. At least one
// seq lies between the two, unless they may touch, which the first one may.
func (d *Decoder) interval(last uint64, touching bool) (Interval, error) {
	gap, err := d.Uint()
	if err != nil {
		return Interval{}, err
	}
	more, err := d.Uint()
	if err != nil {
		return Interval{}, err
	}
	step := uint64(2)
	if touching {
		step = 1
	}
	if last > math.MaxUint64-step || gap > math.MaxUint64-step-last || more > math.MaxUint64-step-last-gap {
		return Interval{}, malformed("sequence number overflows")
	}
	lo := last + step + gap
	return Interval{lo, lo + more}, nil
}

// Entry takes one entry of a clock. It may be one that knows nothing.
func (d *Decoder) Entry() (Inc, Entry, error) {
	more, err := d.fields(4)
	if err != nil {
		return 0, Entry{}, err
	}
	u, err := d.Uint()
	if err != nil {
		return 0, Entry{}, err
	}
	inc := Inc(u)
	var en Entry
	if en.Prefix, err = d.Uint(); err != nil {
		return 0, Entry{}, err
	}
	if en.Closed, err = d.Bool(); err != nil {
		return 0, Entry{}, err
	}
	n, err := d.ArrayLen(math.MaxInt)
	if err == nil && n%2 != 0 {
		err = malformed("%d values for islands", n)
	}
	if err != nil {
		return 0, Entry{}, err
	}
	if n > 0 {
		en.Islands = make([]Interval, 0, n/2)
	}
	for iv := (Interval{Hi: en.Prefix}); n > 0; n -= 2 {
		if iv, err = d.interval(iv.Hi, false); err != nil {
			return 0, Entry{}, err
		}
		en.Islands = append(en.Islands, iv)
	}
	if more > 0 {
		more--
		if en.Sealed, err = d.Bool(); err != nil {
			return 0, Entry{}, err
		}
	}
	if inc == horizonInc && (en.Closed || en.Sealed || len(en.Islands) > 0) {
		return 0, Entry{}, malformed("a horizon with more than a prefix")
	}
	return inc, en, d.Skip(more)
}

// Clock takes a clock of at most maxEntries entries.
func (d *Decoder) Clock(maxEntries int) (*Clock, error) {
	n, err := d.ArrayLen(maxEntries)
	if err != nil {
		return nil, err
	}
	c := NewClock()
	for next := Inc(0); n > 0; n-- {
		inc, en, err := d.Entry()
		if err != nil {
			return nil, err
		}
		if inc < next || inc == math.MaxUint64 {
			return nil, malformed("incarnations out of order")
		}
		if next = inc + 1; en.empty() {
			return nil, malformed("entry that knows nothing")
		}
		c.Set(inc, en)
	}
	return c, nil
}

// Cell takes a cell.
func (d *Decoder) Cell() (*Cell, error) {
	more, err := d.fields(4)
	if err != nil {
		return nil, err
	}
	var c Cell
	if c.Dot, err = d.Dot(); err != nil {
		return nil, err
	}
	if c.HLC, err = d.hlc(); err != nil {
		return nil, err
	}
	if c.Key, err = d.view(MaxKeyBytes); err != nil {
		return nil, err
	}
	if c.Key == "" {
		return nil, malformed("cell without a key")
	}
	if err := d.body(&c); err != nil {
		return nil, err
	}
	if err := d.Skip(more); err != nil {
		return nil, err
	}
	return c.pack(), nil
}

// view is a string that shares the decoder's bytes: to be copied before the
// decoder's caller gets them back.
func (d *Decoder) view(limit int) (string, error) {
	b, err := d.Shared(limit)
	return unsafe.String(unsafe.SliceData(b), len(b)), err
}

func (d *Decoder) hlc() (HLC, error) {
	u, err := d.Uint()
	return HLC(u), err
}

// Op takes an op.
func (d *Decoder) Op() (*Op, error) {
	more, err := d.fields(6)
	if err != nil {
		return nil, err
	}
	o := &Op{}
	if o.Dot, err = d.Dot(); err != nil {
		return nil, err
	}
	if o.HLC, err = d.hlc(); err != nil {
		return nil, err
	}
	key, err := d.view(MaxKeyBytes)
	if err != nil {
		return nil, err
	}
	if o.Covers, err = d.fewDots(MaxCovers); err != nil {
		return nil, err
	}
	if o.Removes, err = d.fewDots(MaxRemoves); err != nil {
		return nil, err
	}
	if o.Removes.Contains(o.Dot) {
		return nil, malformed("op that removes itself")
	}
	if d.Nil() {
		o.Key = strings.Clone(key)
		return o, d.Skip(more)
	}
	if key == "" {
		return nil, malformed("cell without a key")
	}
	c := Cell{Key: key, Dot: o.Dot, HLC: o.HLC}
	if err := d.body(&c); err != nil {
		return nil, err
	}
	if err := d.Skip(more); err != nil {
		return nil, err
	}
	o.Cell = c.pack()
	o.Key = o.Cell.Key
	return o, nil
}

// Batch takes an op of more than one cell.
func (d *Decoder) Batch() (*Op, error) {
	skip, err := d.fields(5)
	if err != nil {
		return nil, err
	}
	o := &Op{}
	if o.Dot, err = d.Dot(); err != nil {
		return nil, err
	}
	if o.HLC, err = d.hlc(); err != nil {
		return nil, err
	}
	if o.Covers, err = d.fewDots(MaxCovers); err != nil {
		return nil, err
	}
	if o.Removes, err = d.fewDots(MaxRemoves); err != nil {
		return nil, err
	}
	n, err := d.ArrayLen(MaxBatchCells)
	if err != nil {
		return nil, err
	}
	if n < 2 {
		return nil, malformed("batch of %d cells", n)
	}
	var last, bytes uint64
	for i := range n {
		c, err := d.batched(o)
		if err != nil {
			return nil, err
		}
		bytes += uint64(len(c.Key) + len(c.Path) + len(c.Value))
		switch own := i == n-1; {
		case c.Dot.Seq <= last, own != (c.Dot == o.Dot), !own && !o.Covers.Contains(c.Dot), o.Removes.Contains(c.Dot):
			return nil, malformed("cell %v in batch %v", c.Dot, o.Dot)
		case bytes > MaxBatchBytes:
			return nil, malformed("batch of more than %d bytes", MaxBatchBytes)
		case own:
			o.Cell = c
		default:
			o.More = append(o.More, c)
		}
		last = c.Dot.Seq
	}
	return o, d.Skip(skip)
}

// batched takes one cell of the batch o.
func (d *Decoder) batched(o *Op) (*Cell, error) {
	more, err := d.fields(3)
	if err != nil {
		return nil, err
	}
	c := Cell{Dot: Dot{Inc: o.Dot.Inc}, HLC: o.HLC}
	if c.Dot.Seq, err = d.Uint(); err != nil {
		return nil, err
	}
	if c.Key, err = d.view(MaxKeyBytes); err != nil {
		return nil, err
	}
	if c.Key == "" {
		return nil, malformed("cell without a key")
	}
	if err := d.body(&c); err != nil {
		return nil, err
	}
	return c.pack(), d.Skip(more)
}

// fewDots takes a set of at most limit dots.
func (d *Decoder) fewDots(limit int) (Dots, error) {
	s, err := d.Dots(limit)
	if err == nil && s.Len() > limit {
		err = malformed("more than %d dots", limit)
	}
	return s, err
}

// body takes what a cell has besides its dot, HLC and key. Path and value share
// the decoder's bytes, until the cell is packed.
func (d *Decoder) body(c *Cell) error {
	more, err := d.fields(5)
	if err != nil {
		return err
	}
	if c.Path, err = d.view(MaxKeyBytes); err != nil {
		return err
	}
	kind, err := d.Uint()
	if err != nil {
		return err
	}
	if kind > math.MaxUint8 || !Kind(kind).Valid() {
		return malformed("kind %d", kind)
	}
	flags, err := d.Uint()
	if err != nil {
		return err
	}
	if flags > math.MaxUint8 {
		return malformed("flags %#x", flags)
	}
	if c.Expires, err = d.Int(); err != nil {
		return err
	}
	if c.Expires < 0 {
		return malformed("expires before 1970")
	}
	c.Kind, c.Flags = Kind(kind), Flags(flags)
	if c.Value, err = d.Shared(MaxValueBytes); err != nil {
		return err
	}
	return d.Skip(more)
}
