package crdt

import "fmt"

// HLC is a hybrid logical clock value: 48 bits of wall time in milliseconds
// since the Unix epoch above a 16-bit logical count (Kulkarni et al. 2014, §3).
// It orders concurrent writes for display and never decides what is kept.
type HLC uint64

const hlcLogicalBits = 16

// HLCAt is the lowest value with the given wall time in milliseconds; times
// before the Unix epoch count as the epoch.
func HLCAt(wallMs int64) HLC { return HLC(uint64(max(wallMs, 0)) << hlcLogicalBits) }

// WallMs is the wall time part, in milliseconds since the Unix epoch.
func (h HLC) WallMs() int64 { return int64(h >> hlcLogicalBits) }

// Logical is the logical count within one millisecond.
func (h HLC) Logical() uint16 { return uint16(h) }

// Next is the value for a new event at wall time wallMs, given that h is the
// newest value known here: above h always, and at the wall time if that is
// ahead. A logical overflow carries into the wall time, as Go's addition does.
func (h HLC) Next(wallMs int64) HLC {
	if at := HLCAt(wallMs); at > h {
		return at
	}
	return h + 1
}

func (h HLC) String() string { return fmt.Sprintf("%d.%d", h.WallMs(), h.Logical()) }
