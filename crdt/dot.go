package crdt

import (
	"cmp"
	"fmt"
)

// Inc is an incarnation: one start of one process that writes. It holds the
// birth time in the upper 42 bits (milliseconds since the Unix epoch) and 22
// random bits below. Every process start mints a new one, so a data directory
// that was copied or rolled back can never issue a dot a second time. Zero is
// no incarnation.
type Inc uint64

const incRandomBits = 22

// NewInc mints an incarnation from the birth time, in milliseconds since the
// Unix epoch, and random bits, of which the low 22 are used.
func NewInc(birthMs int64, random uint64) Inc {
	return Inc(uint64(birthMs)<<incRandomBits | random&(1<<incRandomBits-1))
}

// BirthMs is the time of birth in milliseconds since the Unix epoch.
func (i Inc) BirthMs() int64 { return int64(i >> incRandomBits) }

// String is the incarnation in 16 hexadecimal digits.
func (i Inc) String() string { return fmt.Sprintf("%016x", uint64(i)) }

// A Dot names one write: the Seq-th (from 1) made by incarnation Inc in one
// keyspace. No dot is ever issued twice. The zero Dot names nothing.
type Dot struct {
	Inc Inc
	Seq uint64
}

// Compare orders dots by incarnation, then by sequence.
func (d Dot) Compare(other Dot) int {
	return cmp.Or(cmp.Compare(d.Inc, other.Inc), cmp.Compare(d.Seq, other.Seq))
}

func (d Dot) String() string { return fmt.Sprintf("%s/%d", d.Inc, d.Seq) }
