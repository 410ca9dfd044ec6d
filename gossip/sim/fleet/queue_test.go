package fleet

import (
	"math/rand/v2"
	"testing"
)

// Events come in the order of their times, and of scheduling among equals.
func TestQueueOrder(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	var q queue
	var last int64
	lastSerial := make(map[int64]uint32)
	serial := uint32(0)
	for range 20_000 {
		if rng.IntN(3) > 0 {
			serial++
			q.push(last+rng.Int64N(50), event{gen: serial})
			continue
		}
		at, ok := q.next()
		if !ok {
			continue
		}
		e := q.pop()
		if at < last || e.gen <= lastSerial[at] {
			t.Fatalf("event %d of %d after %d of %d", e.gen, at, lastSerial[at], last)
		}
		last, lastSerial[at] = at, e.gen
	}
	if n := len(q.slots); n != len(q.heap)+len(q.free) {
		t.Errorf("%d slots for %d events and %d free ones", n, len(q.heap), len(q.free))
	}
}
