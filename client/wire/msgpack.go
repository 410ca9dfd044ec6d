package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// ErrFrame is wrapped by every error about bytes that are no valid frame.
var ErrFrame = errors.New("malformed frame")

// maxDepth bounds the nesting of arrays and maps that are skipped.
const maxDepth = 8

// AppendArray writes the head of an array of n elements, which follow.
func AppendArray(b []byte, n int) []byte {
	switch {
	case n < 16:
		return append(b, 0x90|byte(n))
	case n <= math.MaxUint16:
		return binary.BigEndian.AppendUint16(append(b, 0xdc), uint16(n))
	}
	return binary.BigEndian.AppendUint32(append(b, 0xdd), uint32(n))
}

// AppendUint writes a number in its shortest form.
func AppendUint(b []byte, u uint64) []byte {
	switch {
	case u < 0x80:
		return append(b, byte(u))
	case u <= math.MaxUint8:
		return append(b, 0xcc, byte(u))
	case u <= math.MaxUint16:
		return binary.BigEndian.AppendUint16(append(b, 0xcd), uint16(u))
	case u <= math.MaxUint32:
		return binary.BigEndian.AppendUint32(append(b, 0xce), uint32(u))
	}
	return binary.BigEndian.AppendUint64(append(b, 0xcf), u)
}

// AppendInt writes a number that may be negative.
func AppendInt(b []byte, i int64) []byte {
	if i >= 0 {
		return AppendUint(b, uint64(i))
	}
	return binary.BigEndian.AppendUint64(append(b, 0xd3), uint64(i))
}

// AppendBool writes a boolean.
func AppendBool(b []byte, v bool) []byte {
	if v {
		return append(b, 0xc3)
	}
	return append(b, 0xc2)
}

// AppendNil writes nil.
func AppendNil(b []byte) []byte { return append(b, 0xc0) }

// AppendBin writes opaque bytes: keys, values, tokens.
func AppendBin[T string | []byte](b []byte, v T) []byte {
	switch n := len(v); {
	case n <= math.MaxUint8:
		b = append(b, 0xc4, byte(n))
	case n <= math.MaxUint16:
		b = binary.BigEndian.AppendUint16(append(b, 0xc5), uint16(n))
	default:
		b = binary.BigEndian.AppendUint32(append(b, 0xc6), uint32(n))
	}
	return append(b, v...)
}

// A Decoder reads values from b. After the first error it reads zero values, so
// that callers check Err once.
type Decoder struct {
	b   []byte
	err error
}

// NewDecoder makes a Decoder of b. What it reads may be part of b.
func NewDecoder(b []byte) *Decoder { return &Decoder{b: b} }

// Err is the first error, which wraps ErrFrame, or nil.
func (d *Decoder) Err() error { return d.err }

// End fails unless all of the bytes were read, and returns Err.
func (d *Decoder) End() error {
	if d.err == nil && len(d.b) > 0 {
		d.Fail("bytes left over")
	}
	return d.err
}

// Fail records an error, unless there was one.

func (d *Decoder) Fail(what string) {
	if d.err == nil {
		d.err = fmt.Errorf("%w: %s", ErrFrame, what)
		d.b = nil
	}
}

func (d *Decoder) take(n int) []byte {
	if n < 0 || n > len(d.b) {
		d.Fail("truncated")
		return nil
	}
	v := d.b[:n:n]
	d.b = d.b[n:]
	return v
}

func (d *Decoder) lead() (byte, bool) {
	v := d.take(1)
	if v == nil {
		return 0, false
	}
	return v[0], true
}

// number reads an n-byte big-endian number.
func (d *Decoder) number(n int) uint64 {
	var u uint64
	for _, c := range d.take(n) {
		u = u<<8 | uint64(c)
	}
	return u
}

// Uint reads a number that is not negative.
func (d *Decoder) Uint() uint64 {
	c, ok := d.lead()
	switch {
	case !ok:
		return 0
	case c < 0x80:
		return uint64(c)
	case c >= 0xcc && c <= 0xcf:
		return d.number(1 << (c - 0xcc))
	case c >= 0xd0 && c <= 0xd3:
		n := 1 << (c - 0xd0)
		if u := d.number(n); u>>(8*n-1) == 0 {
			return u
		}
	}
	d.Fail("not an unsigned number")
	return 0
}

// Int reads a number.
func (d *Decoder) Int() int64 {
	if len(d.b) > 0 {
		switch c := d.b[0]; {
		case c >= 0xe0:
			d.b = d.b[1:]
			return int64(int8(c))
		case c >= 0xd0 && c <= 0xd3:
			d.b = d.b[1:]
			n := 1 << (c - 0xd0)
			shift := 64 - 8*n
			return int64(d.number(n)<<shift) >> shift
		}
	}
	u := d.Uint()
	if u > math.MaxInt64 {
		d.Fail("number out of range")
		return 0
	}
	return int64(u)
}

// Bool reads a boolean.
func (d *Decoder) Bool() bool {
	switch c, ok := d.lead(); {
	case !ok:
	case c == 0xc2:
	case c == 0xc3:
		return true
	default:
		d.Fail("not a boolean")
	}
	return false
}

// Bin reads bytes or a string, without copying them. Nil is read as nil, and
// empty bytes as an empty slice.
func (d *Decoder) Bin() []byte {
	c, ok := d.lead()
	switch {
	case !ok, c == 0xc0:
		return nil
	case c >= 0xa0 && c <= 0xbf:
		return d.take(int(c & 0x1f))
	case c >= 0xc4 && c <= 0xc6:
		return d.take(int(d.number(1 << (c - 0xc4))))
	case c >= 0xd9 && c <= 0xdb:
		return d.take(int(d.number(1 << (c - 0xd9))))
	}
	d.Fail("not bytes")
	return nil
}

// Str reads bytes or a string.
func (d *Decoder) Str() string { return string(d.Bin()) }

// Array reads the length of an array. Each element takes a byte at least, so
// that a longer one than what is left is refused.
func (d *Decoder) Array() int {
	c, ok := d.lead()
	var n int
	switch {
	case !ok:
		return 0
	case c >= 0x90 && c <= 0x9f:
		n = int(c & 0x0f)
	case c == 0xdc:
		n = int(d.number(2))
	case c == 0xdd:
		n = int(d.number(4))
	default:
		d.Fail("not an array")
		return 0
	}
	if n > len(d.b) {
		d.Fail("array longer than the frame")
		return 0
	}
	return n
}

// Fields reads the length of an array of at least known elements and returns
// how many more there are.
func (d *Decoder) Fields(known int) (extra int) {
	n := d.Array()
	if d.err == nil && n < known {
		d.Fail("fields missing")
	}
	return n - known
}

// Nil reads a nil if one follows and reports whether it did.
func (d *Decoder) Nil() bool {
	if len(d.b) == 0 || d.b[0] != 0xc0 {
		return false
	}
	d.b = d.b[1:]
	return true
}

// Skip passes over n values of any type.
func (d *Decoder) Skip(n, depth int) {
	if depth > maxDepth {
		d.Fail("nested too deeply")
		return
	}
	for ; n > 0 && d.err == nil; n-- {
		c, ok := d.lead()
		switch {
		case !ok:
		case c < 0x80, c >= 0xe0, c == 0xc0, c == 0xc2, c == 0xc3: // small numbers, nil, booleans
		case c <= 0x8f:
			d.Skip(2*int(c&0x0f), depth+1)
		case c <= 0x9f:
			d.Skip(int(c&0x0f), depth+1)
		case c <= 0xbf:
			d.take(int(c & 0x1f))
		case c >= 0xc4 && c <= 0xc6:
			d.take(int(d.number(1 << (c - 0xc4))))
		case c >= 0xc7 && c <= 0xc9: // extensions
			d.take(int(d.number(1<<(c-0xc7))) + 1)
		case c == 0xca, c == 0xce, c == 0xd2:
			d.take(4)
		case c == 0xcb, c == 0xcf, c == 0xd3:
			d.take(8)
		case c == 0xcc, c == 0xd0:
			d.take(1)
		case c == 0xcd, c == 0xd1:
			d.take(2)
		case c >= 0xd4 && c <= 0xd8:
			d.take(1<<(c-0xd4) + 1)
		case c >= 0xd9 && c <= 0xdb:
			d.take(int(d.number(1 << (c - 0xd9))))
		case c == 0xdc, c == 0xdd:
			d.Skip(int(d.number(2<<(c-0xdc))), depth+1)
		case c == 0xde, c == 0xdf:
			d.Skip(2*int(d.number(2<<(c-0xde))), depth+1)
		default:
			d.Fail("unknown type")
		}
	}
}
