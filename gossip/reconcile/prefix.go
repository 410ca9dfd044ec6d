package reconcile

const (
	fanout   = 16 // children of an inner node: one nibble of the place
	maxDepth = 16 // nibbles in a place
)

// A prefix is the places that begin with the same depth nibbles, which are the
// upper bits of bits; the others are zero. The zero value is all places.
type prefix struct {
	bits  uint64
	depth uint8
}

// shift is the number of bits of a place below depth nibbles.
func shift(depth uint8) uint { return 64 - 4*uint(depth) }

// child is the i-th of the 16 prefixes one nibble longer.
func (p prefix) child(i int) prefix {
	return prefix{p.bits | uint64(i)<<(shift(p.depth)-4), p.depth + 1}
}

// parent is the prefix one nibble shorter, of which p is the i-th child.
func (p prefix) parent() (up prefix, i int) {
	return prefix{p.bits &^ (0xf << shift(p.depth)), p.depth - 1}, nibble(p.bits, p.depth-1)
}

// contains reports whether place begins with p.
func (p prefix) contains(place uint64) bool { return (place^p.bits)>>shift(p.depth) == 0 }

// last is the highest place that begins with p.
func (p prefix) last() uint64 { return p.bits | (1<<shift(p.depth) - 1) }

// nibble is the depth-th nibble of place, from the top.
func nibble(place uint64, depth uint8) int { return int(place>>(shift(depth)-4)) & 0xf }
