package fleet

import (
	"math/rand/v2"
	"time"
)

// A LAN is the network between all nodes, and what a frame costs at its ends.
// The zero value is DefaultLAN.
type LAN struct {
	// Latency of a packet, one way, and what chance adds to it at most.
	Latency, Jitter time.Duration
	// Bandwidth of one stream, in bytes a second.
	Bandwidth int
	// Loss is the chance of one packet.
	Loss float64
	// Receive and Send are what the processor of a node needs for one frame or
	// packet, and PerKiB for each KiB of it. One after the other: a node has one
	// processor.
	Receive, Send, PerKiB time.Duration
}

// DefaultLAN is a gigabit network within one site, and about what a frame over
// a TCP stream costs on the machines that docs/benchmarks.md was measured on:
// system calls and wake-ups far more than the core.
var DefaultLAN = LAN{
	Latency: 200 * time.Microsecond, Jitter: 300 * time.Microsecond, Bandwidth: 125_000_000,
	Receive: 25 * time.Microsecond, Send: 15 * time.Microsecond, PerKiB: 5 * time.Microsecond,
}

const (
	segment = 1448                   // bytes of a TCP segment
	tailRTO = 200 * time.Millisecond // of the last segment that is under way: Linux's least
	maxRTO  = 10 * time.Second
)

func (n *LAN) latency(rng *rand.Rand) int64 {
	return int64(n.Latency) + rng.Int64N(int64(n.Jitter)+1)
}

func (n *LAN) cost(base time.Duration, bytes int) int64 {
	return int64(base) + int64(n.PerKiB)*int64(bytes)/1024
}

// wire is how long bytes take to leave.
func (n *LAN) wire(bytes int) int64 {
	return int64(bytes) * int64(time.Second) / int64(n.Bandwidth)
}

// lost reports whether a packet gets lost.
func (n *LAN) lost(rng *rand.Rand) bool { return n.Loss > 0 && rng.Float64() < n.Loss }

// retransmit is how much later a frame arrives because TCP has to send segments
// of it again: after a round trip if others follow that show the gap, else
// after a timeout that doubles (RFC 6298).
func (n *LAN) retransmit(rng *rand.Rand, bytes int) (late int64) {
	if n.Loss == 0 {
		return 0
	}
	segments := (bytes + segment - 1) / segment
	for i := range segments {
		wait := int64(2*n.Latency + n.Jitter)
		if i == segments-1 {
			wait = int64(tailRTO)
		}
		total := int64(0)
		for n.lost(rng) {
			total += wait
			wait = min(max(2*wait, int64(tailRTO)), int64(maxRTO))
		}
		late = max(late, total)
	}
	return late
}
