package ipam

import (
	"fmt"
	"sync"
	"time"

	"github.com/meshkv/meshkv/client"
)

// A holding is a block that an allocator believes to hold.
type holding struct {
	first uint64
	token client.FencingToken
	// live reports whether the holder may still use the block, by its own clock.
	live func() bool
}

// A registry is the resource: it sees every use of every block, in real time.
//
// What it finds are violations, not accidents of time: a holder registers after its
// Allocate has returned and takes itself out before it gives the block back, and its
// live ends no later than its session does at the servers. If the holder of a block is
// live when another registers for the same one, both held it at that moment.
type registry struct {
	mu       sync.Mutex // protects the fields below
	holders  map[uint64]*holding
	last     map[uint64]client.FencingToken // of each block
	uses     int
	late     int // allocations whose session was over when the answer came
	again    int // uses of a block that another had before
	problems []string
}

func newRegistry() *registry {
	return &registry{holders: map[uint64]*holding{}, last: map[uint64]client.FencingToken{}}
}

// use registers a holder, unless its session is over: it must not use the block then.
func (r *registry) use(h *holding) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !h.live() {
		r.late++
		return false
	}
	if other := r.holders[h.first]; other != nil && other.live() {
		r.problems = append(r.problems, fmt.Sprintf("block %d is held under tokens %d and %d at once", h.first, other.token, h.token))
	}
	if last, used := r.last[h.first]; used {
		r.again++
		if h.token <= last {
			r.problems = append(r.problems, fmt.Sprintf("block %d was given out under token %d after %d", h.first, h.token, last))
		}
	}
	r.holders[h.first], r.last[h.first] = h, h.token
	r.uses++
	return true
}

// leave takes a holder out, if nobody has come after it.
func (r *registry) leave(h *holding) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.holders[h.first] == h {
		delete(r.holders, h.first)
	}
}

// counts are the uses so far and what went wrong.
func (r *registry) counts() (uses, again, late int, problems []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.uses, r.again, r.late, r.problems
}

// deadline is a live that ends ttl after now, a thousandth sooner since no two clocks run alike.
func deadline(sent time.Time, ttl time.Duration) func() bool {
	end := sent.Add(ttl - ttl/1000)
	return func() bool { return time.Now().Before(end) }
}
