package crdt

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/vmihailenco/msgpack/v5/msgpcode"
)

// ErrCodec is wrapped by every error of a Decoder: the bytes are not what an
// Encoder writes. How much had been consumed is undefined.
var ErrCodec = errors.New("malformed encoding")

// Bounds of what a Decoder skips to stay compatible with later versions, which
// may append fields to any structure.
const (
	maxFields    = 64 // of one structure
	maxSkipDepth = 8  // of arrays and maps within one another
)

// A Decoder takes values off a byte slice. Every length is checked against the
// bytes that are left before anything is allocated, so a hostile input costs a
// small multiple of its own size; nesting is bounded; and a value that no
// Replica could hold is refused. Structures may be longer than known here: the
// rest is skipped. Not safe for concurrent use.
type Decoder struct{ b []byte }

// NewDecoder is a decoder at the end of its input.
func NewDecoder() *Decoder { return &Decoder{} }

// Reset makes the decoder read b. Nothing that it returns, except Raw, Shared and
// Remaining, refers to b.
func (d *Decoder) Reset(b []byte) { d.b = b }

// Len is the number of bytes left.
func (d *Decoder) Len() int { return len(d.b) }

// Remaining is the bytes left, not a copy.
func (d *Decoder) Remaining() []byte { return d.b }

// Raw takes n bytes as they are, without copying.
func (d *Decoder) Raw(n int) ([]byte, error) {
	if n < 0 || n > len(d.b) {
		return nil, malformed("truncated")
	}
	b := d.b[:n:n]
	d.b = d.b[n:]
	return b, nil
}

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrCodec, fmt.Sprintf(format, args...))
}

func (d *Decoder) code() (byte, error) {
	if len(d.b) == 0 {
		return 0, malformed("truncated")
	}
	c := d.b[0]
	d.b = d.b[1:]
	return c, nil
}

// big takes a big-endian number of n bytes, n being 1, 2, 4 or 8.
func (d *Decoder) big(n int) (uint64, error) {
	if len(d.b) < n {
		return 0, malformed("truncated")
	}
	var u uint64
	switch n {
	case 1:
		u = uint64(d.b[0])
	case 2:
		u = uint64(binary.BigEndian.Uint16(d.b))
	case 4:
		u = uint64(binary.BigEndian.Uint32(d.b))
	default:
		u = binary.BigEndian.Uint64(d.b)
	}
	d.b = d.b[n:]
	return u, nil
}

// Uint takes an unsigned number. Signed forms are accepted if not negative.
func (d *Decoder) Uint() (uint64, error) {
	u, negative, err := d.number()
	if err == nil && negative {
		err = malformed("negative number")
	}
	return u, err
}

// Int takes a signed number. Unsigned forms are accepted if they fit.
func (d *Decoder) Int() (int64, error) {
	u, negative, err := d.number()
	if err == nil && !negative && u > math.MaxInt64 {
		err = malformed("number out of range")
	}
	return int64(u), err
}

// number takes a number of any form, sign-extended.
func (d *Decoder) number() (u uint64, negative bool, err error) {
	c, err := d.code()
	if err != nil {
		return 0, false, err
	}
	switch {
	case c <= msgpcode.PosFixedNumHigh:
		return uint64(c), false, nil
	case c >= msgpcode.NegFixedNumLow:
		return uint64(int64(int8(c))), true, nil
	case c >= msgpcode.Uint8 && c <= msgpcode.Uint64:
		u, err = d.big(1 << (c - msgpcode.Uint8))
		return u, false, err
	case c >= msgpcode.Int8 && c <= msgpcode.Int64:
		size := 1 << (c - msgpcode.Int8)
		u, err = d.big(size)
		shift := 64 - 8*size
		i := int64(u<<shift) >> shift
		return uint64(i), i < 0, err
	}
	return 0, false, malformed("code %#x where a number belongs", c)
}

// Bool takes a truth value.
func (d *Decoder) Bool() (bool, error) {
	c, err := d.code()
	if err != nil {
		return false, err
	}
	if c != msgpcode.True && c != msgpcode.False {
		return false, malformed("code %#x where a truth value belongs", c)
	}
	return c == msgpcode.True, nil
}

// Nil takes the absence of a value, if that is what comes next.
func (d *Decoder) Nil() bool {
	if len(d.b) == 0 || d.b[0] != msgpcode.Nil {
		return false
	}
	d.b = d.b[1:]
	return true
}

// ArrayLen takes the beginning of an array of at most limit values, each of at
// least one byte.
func (d *Decoder) ArrayLen(limit int) (int, error) {
	c, err := d.code()
	if err != nil {
		return 0, err
	}
	var n uint64
	switch {
	case msgpcode.IsFixedArray(c):
		n = uint64(c & msgpcode.FixedArrayMask)
	case c == msgpcode.Array16:
		n, err = d.big(2)
	case c == msgpcode.Array32:
		n, err = d.big(4)
	default:
		err = malformed("code %#x where an array belongs", c)
	}
	switch {
	case err != nil:
		return 0, err
	case n > uint64(len(d.b)):
		return 0, malformed("array of %d values in %d bytes", n, len(d.b))
	case n > uint64(max(limit, 0)):
		return 0, malformed("array of %d values, at most %d", n, limit)
	}
	return int(n), nil
}

// Bin takes a copy of at most limit opaque bytes; it is not nil.
func (d *Decoder) Bin(limit int) ([]byte, error) {
	b, err := d.Shared(limit)
	if err != nil {
		return nil, err
	}
	return append(make([]byte, 0, len(b)), b...), nil
}

// Str takes a string of at most limit bytes.
func (d *Decoder) Str(limit int) (string, error) {
	b, err := d.Shared(limit)
	return string(b), err
}

// Shared takes a string or opaque bytes, at most limit bytes, without copying.
func (d *Decoder) Shared(limit int) ([]byte, error) {
	c, err := d.code()
	if err != nil {
		return nil, err
	}
	var n uint64
	switch {
	case msgpcode.IsFixedString(c):
		n = uint64(c & msgpcode.FixedStrMask)
	case c == msgpcode.Bin8, c == msgpcode.Str8:
		n, err = d.big(1)
	case c == msgpcode.Bin16, c == msgpcode.Str16:
		n, err = d.big(2)
	case c == msgpcode.Bin32, c == msgpcode.Str32:
		n, err = d.big(4)
	default:
		err = malformed("code %#x where bytes belong", c)
	}
	switch {
	case err != nil:
		return nil, err
	case n > uint64(len(d.b)):
		return nil, malformed("%d bytes in %d", n, len(d.b))
	case n > uint64(max(limit, 0)):
		return nil, malformed("%d bytes, at most %d", n, limit)
	}
	return d.Raw(int(n))
}

// Skip passes over n values, of whatever type and at most 8 deep.
func (d *Decoder) Skip(n int) error { return d.skip(uint64(max(n, 0)), maxSkipDepth) }

func (d *Decoder) skip(n uint64, depth int) error {
	if n > uint64(len(d.b)) {
		return malformed("%d values in %d bytes", n, len(d.b))
	}
	for ; n > 0; n-- {
		if err := d.skipOne(depth); err != nil {
			return err
		}
	}
	return nil
}

func (d *Decoder) skipOne(depth int) error {
	c, err := d.code()
	if err != nil {
		return err
	}
	var size, values uint64 // what follows: opaque bytes, or values
	switch {
	case msgpcode.IsFixedNum(c), c == msgpcode.Nil, c == msgpcode.True, c == msgpcode.False:
	case msgpcode.IsFixedString(c):
		size = uint64(c & msgpcode.FixedStrMask)
	case msgpcode.IsFixedArray(c):
		values = uint64(c & msgpcode.FixedArrayMask)
	case msgpcode.IsFixedMap(c):
		values = 2 * uint64(c&msgpcode.FixedMapMask)
	case c >= msgpcode.Uint8 && c <= msgpcode.Uint64:
		size = 1 << (c - msgpcode.Uint8)
	case c >= msgpcode.Int8 && c <= msgpcode.Int64:
		size = 1 << (c - msgpcode.Int8)
	case c >= msgpcode.FixExt1 && c <= msgpcode.FixExt16:
		size = 1 + 1<<(c-msgpcode.FixExt1)
	case c == msgpcode.Float:
		size = 4
	case c == msgpcode.Double:
		size = 8
	case c == msgpcode.Bin8, c == msgpcode.Str8:
		size, err = d.big(1)
	case c == msgpcode.Bin16, c == msgpcode.Str16:
		size, err = d.big(2)
	case c == msgpcode.Bin32, c == msgpcode.Str32:
		size, err = d.big(4)
	case c >= msgpcode.Ext8 && c <= msgpcode.Ext32:
		size, err = d.big(1 << (c - msgpcode.Ext8))
		size++ // the type
	case c == msgpcode.Array16:
		values, err = d.big(2)
	case c == msgpcode.Array32:
		values, err = d.big(4)
	case c == msgpcode.Map16:
		values, err = d.big(2)
		values *= 2
	case c == msgpcode.Map32:
		values, err = d.big(4)
		values *= 2
	default:
		err = malformed("code %#x", c)
	}
	if err != nil {
		return err
	}
	if size > uint64(len(d.b)) {
		return malformed("%d bytes in %d", size, len(d.b))
	}
	d.b = d.b[size:]
	if values == 0 {
		return nil
	}
	if depth == 0 {
		return malformed("nested more than %d deep", maxSkipDepth)
	}
	return d.skip(values, depth-1)
}

// fields takes the beginning of a structure of at least known fields, and
// returns how many more there are, to be skipped after them.
func (d *Decoder) fields(known int) (more int, err error) {
	n, err := d.ArrayLen(maxFields)
	if err == nil && n < known {
		err = malformed("%d fields, at least %d", n, known)
	}
	return n - known, err
}
