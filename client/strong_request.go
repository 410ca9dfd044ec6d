package client

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
)

// requestWindow is how far the numbers in flight of one lane may be apart. Keyspaces
// keep the results of the last 128 numbers of each.
const requestWindow = 64

// requests names calls, so that they can be repeated and take effect once. A name is
// that of a lane, random, and a number. Keyspaces remember the last results of a lane:
// where one call is long in flight and many others follow, those take another lane.
type requests struct {
	mu    sync.Mutex // protects lanes and what is in them
	lanes []*lane
}

type lane struct {
	id   string
	last uint64
	busy [requestWindow]bool // by number
}

// A request is a number of a lane that is in flight.
type request struct {
	lane   *lane
	number uint64
}

func (r request) text() string { return r.lane.id + "/" + strconv.FormatUint(r.number, 10) }

// begin takes a name. There are as many lanes as were needed at once.
func (q *requests) begin() request {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, l := range q.lanes {
		if at := (l.last + 1) % requestWindow; !l.busy[at] {
			l.last++
			l.busy[at] = true
			return request{l, l.last}
		}
	}
	l := &lane{id: fmt.Sprintf("%016x", rand.Uint64()), last: 1}
	l.busy[1] = true
	q.lanes = append(q.lanes, l)
	return request{l, 1}
}

// end gives a name back: the call is not repeated any more.
func (q *requests) end(r request) {
	q.mu.Lock()
	defer q.mu.Unlock()
	r.lane.busy[r.number%requestWindow] = false
}
