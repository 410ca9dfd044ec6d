package gossip

import (
	"math"
	"slices"
	"time"
)

// theirClock takes note of the time in a summary of the peer.
func (l *link) theirClock(wallMs uint64, nowNs int64) {
	if wallMs > math.MaxInt64/uint64(time.Millisecond) {
		wallMs = math.MaxInt64 / uint64(time.Millisecond)
	}
	l.offset = time.Duration(int64(wallMs)*int64(time.Millisecond)-nowNs) + l.rtt/2
}

// minNeighbours is how many clocks it takes to say that one's own is wrong.
const minNeighbours = 3

// ClockOff judges the local clock by how far those of neighbours are ahead of
// it: off reports whether the median is more than limit away. Fewer than three
// neighbours cannot tell whose clock is wrong. With an even number of them the
// median is the one of the middle two that is nearer to ours.
func ClockOff(offsets []time.Duration, limit time.Duration) (median time.Duration, off bool) {
	if len(offsets) == 0 {
		return 0, false
	}
	sorted := slices.Sorted(slices.Values(offsets))
	median = sorted[(len(sorted)-1)/2]
	if other := sorted[len(sorted)/2]; other.Abs() < median.Abs() {
		median = other
	}
	return median, len(offsets) >= minNeighbours && median.Abs() > limit
}
