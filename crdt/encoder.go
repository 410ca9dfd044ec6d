package crdt

import "github.com/vmihailenco/msgpack/v5"

// An Encoder appends values to a byte slice as msgpack: structures are compact
// arrays, in the order given at each method, and sequence numbers within one
// incarnation are differences. It never fails: what a Replica holds can be
// encoded, and a Decoder refuses everything else. Reuse it: encoding does not
// allocate beyond the growth of the slice. Not safe for concurrent use.
type Encoder struct {
	msg *msgpack.Encoder
	buf appender
}

// appender is the slice that msgpack writes to.
type appender struct{ b []byte }

func (a *appender) Write(p []byte) (int, error) {
	a.b = append(a.b, p...)
	return len(p), nil
}

func (a *appender) WriteByte(c byte) error {
	a.b = append(a.b, c)
	return nil
}

// NewEncoder is an encoder with nothing encoded.
func NewEncoder() *Encoder {
	e := &Encoder{}
	e.msg = msgpack.NewEncoder(&e.buf)
	return e
}

// Reset makes the encoder continue after buf, which it owns from now on.
func (e *Encoder) Reset(buf []byte) { e.buf.b = buf }

// Bytes is the slice given to Reset and what was encoded since. It is valid
// until the next call of a method.
func (e *Encoder) Bytes() []byte { return e.buf.b }

// Len is the length of Bytes.
func (e *Encoder) Len() int { return len(e.buf.b) }

// ArrayLen begins an array of n values, which must follow.
func (e *Encoder) ArrayLen(n int) { _ = e.msg.EncodeArrayLen(n) }

// Uint encodes u in 1, 2, 3, 5 or 9 bytes.
func (e *Encoder) Uint(u uint64) { _ = e.msg.EncodeUint(u) }

// Int encodes i in 1, 2, 3, 5 or 9 bytes.
func (e *Encoder) Int(i int64) { _ = e.msg.EncodeInt(i) }

// Bin encodes opaque bytes; nil is encoded as none.
func (e *Encoder) Bin(b []byte) {
	_ = e.msg.EncodeBytesLen(len(b))
	e.Raw(b)
}

// Str encodes a string, which need not be UTF-8.
func (e *Encoder) Str(s string) { _ = e.msg.EncodeString(s) }

// Bool encodes a truth value in one byte.
func (e *Encoder) Bool(b bool) { _ = e.msg.EncodeBool(b) }

// Nil encodes the absence of a value in one byte.
func (e *Encoder) Nil() { _ = e.msg.EncodeNil() }

// Raw appends b, which is encoded already.
func (e *Encoder) Raw(b []byte) { e.buf.b = append(e.buf.b, b...) }

// Dot encodes [inc, seq].
func (e *Encoder) Dot(d Dot) {
	e.ArrayLen(2)
	e.Uint(uint64(d.Inc))
	e.Uint(d.Seq)
}

// Dots encodes [[inc, gap, more, gap, more, …], …], one inner array for each
// incarnation, ascending. A gap counts the dots left out since the previous
// span (one of them is implied, except before the first), and more those that
// follow the first dot of a span.
func (e *Encoder) Dots(d Dots) {
	incs := 0
	for i := range d {
		if i == 0 || d[i].Inc != d[i-1].Inc {
			incs++
		}
	}
	e.ArrayLen(incs)
	for len(d) > 0 {
		n := 1
		for n < len(d) && d[n].Inc == d[0].Inc {
			n++
		}
		e.ArrayLen(1 + 2*n)
		e.Uint(uint64(d[0].Inc))
		next := uint64(1) // the lowest seq that the next span may begin with
		for _, sp := range d[:n] {
			e.Uint(sp.Lo - next)
			e.Uint(sp.Hi - sp.Lo)
			next = sp.Hi + 2
		}
		d = d[n:]
	}
}

// Entry encodes [inc, prefix, closed, [gap, more, …]], the islands in the way
// of Dots.
func (e *Encoder) Entry(inc Inc, en Entry) {
	if en.Sealed {
		e.ArrayLen(5)
	} else {
		e.ArrayLen(4)
	}
	e.Uint(uint64(inc))
	e.Uint(en.Prefix)
	e.Bool(en.Closed)
	e.ArrayLen(2 * len(en.Islands))
	next := en.Prefix + 2
	for _, is := range en.Islands {
		e.Uint(is.Lo - next)
		e.Uint(is.Hi - is.Lo)
		next = is.Hi + 2
	}
	if en.Sealed {
		e.Bool(true)
	}
}

// Clock encodes its entries, ascending.
func (e *Encoder) Clock(c *Clock) {
	incs := c.Incs()
	e.ArrayLen(len(incs))
	for _, inc := range incs {
		e.Entry(inc, c.entries[inc])
	}
}

// Cell encodes [dot, hlc, key, body].
func (e *Encoder) Cell(c *Cell) {
	e.ArrayLen(4)
	e.Dot(c.Dot)
	e.Uint(uint64(c.HLC))
	e.Str(c.Key)
	e.body(c)
}

// Op encodes [dot, hlc, key, covers, removes, body or nil]. The cell's dot, key
// and HLC are those of the op.
// It is not for batches.
func (e *Encoder) Op(o *Op) {
	e.ArrayLen(6)
	e.Dot(o.Dot)
	e.Uint(uint64(o.HLC))
	e.Str(o.Key)
	e.Dots(o.Covers)
	e.Dots(o.Removes)
	if o.Cell == nil {
		e.Nil()
		return
	}
	e.body(o.Cell)
}

// Batch encodes an op with More as [dot, HLC, covers, removes, cells], each cell as [seq, key, body], the one of
// the op's own dot last.
func (e *Encoder) Batch(o *Op) {
	e.ArrayLen(5)
	e.Dot(o.Dot)
	e.Uint(uint64(o.HLC))
	e.Dots(o.Covers)
	e.Dots(o.Removes)
	e.ArrayLen(len(o.More) + 1)
	for _, c := range o.More {
		e.batched(c)
	}
	e.batched(o.Cell)
}

func (e *Encoder) batched(c *Cell) {
	e.ArrayLen(3)
	e.Uint(c.Dot.Seq)
	e.Str(c.Key)
	e.body(c)
}

// body encodes [path, kind, flags, expires, value], what a cell has besides its
// dot, HLC and key.
func (e *Encoder) body(c *Cell) {
	e.ArrayLen(5)
	e.Str(c.Path)
	e.Uint(uint64(c.Kind))
	e.Uint(uint64(c.Flags))
	e.Uint(uint64(c.Expires))
	e.Bin(c.Value)
}
