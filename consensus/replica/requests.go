package replica

import (
	"fmt"
	"math/rand/v2"
	"sync"

	"github.com/meshkv/meshkv/consensus/machine"
)

// requests numbers the commands of this process, so that the machine applies each once
// however often it is sent. A client of the machine has one command at a time here, so
// that it keeps one result for each.
type requests struct {
	mu   sync.Mutex // protects the fields below
	free []*machine.Request
	made int
	name string // of this process, unique for ever
}

func newRequests() *requests {
	return &requests{name: fmt.Sprintf("%016x", rand.Uint64())}
}

// take is the next request of a client that is free, a new one if there is none: applied is
// the index that this replica has applied. It must be given back.
func (q *requests) take(applied uint64) *machine.Request {
	q.mu.Lock()
	defer q.mu.Unlock()
	if n := len(q.free); n > 0 {
		r := q.free[n-1]
		q.free = q.free[:n-1]
		r.Number++
		r.Floor = r.Number - 1
		return r
	}
	q.made++
	return &machine.Request{Client: fmt.Sprintf("%s.%d", q.name, q.made), Number: 1, Since: applied}
}

// give gives a request back once no more attempt is made. If one is still on its way, the next
// request of the client keeps it from being applied, or comes after it.
func (q *requests) give(r *machine.Request) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.free = append(q.free, r)
}
