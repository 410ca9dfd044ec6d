package crdt

import "unsafe"

// pack is a copy of c whose key, path and value lie behind it in the same block
// of memory, so that reading a cell touches neighbouring lines of one page. With
// a million cells most of the time of a read goes into cache and TLB misses. It
// also means that no caller's buffer is kept alive or can be changed.
//
// The blocks are as large as the allocator's size classes. What is larger than
// all of them gets a block of its own, where one more miss does not matter.
func (c Cell) pack() *Cell {
	switch n := len(c.Key) + len(c.Path) + len(c.Value); {
	case n <= 16:
		b := new(struct {
			cell Cell
			buf  [16]byte
		})
		return c.packInto(&b.cell, b.buf[:0])
	case n <= 48:
		b := new(struct {
			cell Cell
			buf  [48]byte
		})
		return c.packInto(&b.cell, b.buf[:0])
	case n <= 96:
		b := new(struct {
			cell Cell
			buf  [96]byte
		})
		return c.packInto(&b.cell, b.buf[:0])
	case n <= 144:
		b := new(struct {
			cell Cell
			buf  [144]byte
		})
		return c.packInto(&b.cell, b.buf[:0])
	case n <= 192:
		b := new(struct {
			cell Cell
			buf  [192]byte
		})
		return c.packInto(&b.cell, b.buf[:0])
	case n <= 256:
		b := new(struct {
			cell Cell
			buf  [256]byte
		})
		return c.packInto(&b.cell, b.buf[:0])
	default:
		return c.packInto(new(Cell), make([]byte, 0, n))
	}
}

// packInto copies c to dst and its bytes to buf, which is empty and has room for
// them. The strings may alias buf since nothing writes to it afterwards.
func (c Cell) packInto(dst *Cell, buf []byte) *Cell {
	*dst = c
	buf = append(buf, c.Key...)
	path := len(buf)
	buf = append(buf, c.Path...)
	value := len(buf)
	buf = append(buf, c.Value...)
	dst.Key = unsafe.String(unsafe.SliceData(buf), path)
	dst.Path = unsafe.String(unsafe.SliceData(buf[path:]), value-path)
	dst.Value = buf[value:len(buf):len(buf)]
	return dst
}
