package crdt

import "unsafe"

// pack is a copy of c whose key, path and value lie behind it in the same block
// of memory, so that reading a cell touches neighbouring lines of one page. With
// a million cells most of the time of a read goes into cache and TLB misses. It
// also means that no caller's buffer is kept alive or can be changed.
//
// The garbage collector marks a block and does not look into it: all pointers in it are
// to itself, and whoever has got one of them has it from one to the block. So the
// block is allocated as memory without pointers. It follows that no pointer to
// anything else may be stored in a packed cell; cells are immutable anyway.
//
// The blocks are as large as the allocator's size classes, so that nothing is lost
// to rounding. What is larger than all of them gets a block of its own, where one
// more miss does not matter.
func (c Cell) pack() *Cell {
	switch n := len(c.Key) + len(c.Path) + len(c.Value); {
	case n <= 16:
		return packWith[[16]byte](c)
	case n <= 32:
		return packWith[[32]byte](c)
	case n <= 48:
		return packWith[[48]byte](c)
	case n <= 64:
		return packWith[[64]byte](c)
	case n <= 80:
		return packWith[[80]byte](c)
	case n <= 96:
		return packWith[[96]byte](c)
	case n <= 112:
		return packWith[[112]byte](c)
	case n <= 128:
		return packWith[[128]byte](c)
	case n <= 144:
		return packWith[[144]byte](c)
	case n <= 160:
		return packWith[[160]byte](c)
	case n <= 192:
		return packWith[[192]byte](c)
	case n <= 224:
		return packWith[[224]byte](c)
	case n <= 256:
		return packWith[[256]byte](c)
	default:
		return c.packInto(new(Cell), make([]byte, 0, n))
	}
}

// packWith packs c into a block that ends with a B, an array of bytes that is large
// enough.
func packWith[B any](c Cell) *Cell {
	b := new(struct {
		cell [(unsafe.Sizeof(Cell{}) + 7) / 8]uint64 // in its place: see pack
		buf  B
	})
	buf := unsafe.Slice((*byte)(unsafe.Pointer(&b.buf)), unsafe.Sizeof(b.buf))
	return c.packInto((*Cell)(unsafe.Pointer(b)), buf[:0])
}

// packInto copies c to dst and its bytes to buf, which is empty and has room for
// them. The strings may alias buf since nothing writes to it afterwards. dst never
// holds a pointer to anything else.
func (c Cell) packInto(dst *Cell, buf []byte) *Cell {
	buf = append(buf, c.Key...)
	path := len(buf)
	buf = append(buf, c.Path...)
	value := len(buf)
	buf = append(buf, c.Value...)
	c.Key = unsafe.String(unsafe.SliceData(buf), path)
	c.Path = "" // of most cells: and then it is no pointer, which the garbage collector would follow
	if value > path {
		c.Path = unsafe.String(unsafe.SliceData(buf[path:]), value-path)
	}
	c.Value = buf[value:len(buf):len(buf)]
	*dst = c
	return dst
}
