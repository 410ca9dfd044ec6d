package gossip

import (
	"slices"

	"github.com/meshkv/meshkv/crdt"
)

// Bounds within the queue of a link.
const (
	// mapAbove is the number of waiting keys above which the queue finds them
	// by a map and coalesces: a link that keeps up never pays for one.
	mapAbove = 32
	// maxCoverSpans bounds the covers of one coalesced op, and so the cost of
	// coalescing one more into it; beyond it the key gets a second op.
	maxCoverSpans = 32
	// maxQueueCovers bounds the spans of the covers of all waiting ops. Each is
	// an island in the clock of the receiver until the queue is drained, and
	// each op is a pass over the islands: beyond, a session carries the clock
	// at once.
	maxQueueCovers = 4096
)

// slot is the waiting ops of one key, oldest first; usually one. A slot of a
// queue without a map holds one op.
type slot struct {
	op   *crdt.Op
	more []*crdt.Op // after op
}

// queue is the ops that wait on one link, in the order in which their keys were
// first queued. Ops of a key that coalesce become one. The zero value is empty.
type queue struct {
	slots []slot // slots[head:] wait
	head  int
	base  int            // number of slots that were ever dropped from the front
	keys  map[string]int // key to base + index of its slot; nil while short
	refs  int            // waiting ops
	bytes int            // of their keys and values, about
	spans int            // of their covers
	merge int64          // ops that coalesced, ever
}

// opBytes is about what op takes on the wire.
func opBytes(op *crdt.Op) int {
	n := 48 + len(op.Key) + 12*(len(op.Covers)+len(op.Removes))
	if op.Cell != nil {
		n += len(op.Cell.Path) + len(op.Cell.Value)
	}
	if len(op.More) > 0 {
		n += len(op.Cell.Key) // of a batch no key is the op's
	}
	for _, c := range op.More {
		n += 16 + len(c.Key) + len(c.Path) + len(c.Value)
	}
	return n
}

// coverSpans is how many islands op may leave in the clock of a receiver: the covers of a batch
// touch its own dot.
func coverSpans(op *crdt.Op) int {
	if len(op.More) > 0 {
		return 0
	}
	return len(op.Covers)
}

// len is the number of waiting keys.
func (q *queue) len() int { return len(q.slots) - q.head }

// push adds op.
func (q *queue) push(op *crdt.Op) {
	if q.keys == nil && q.len() >= mapAbove {
		q.index()
	}
	if q.keys != nil && op.Key != "" {
		if at, ok := q.keys[op.Key]; ok {
			q.combine(&q.slots[at-q.base], op)
			return
		}
		q.keys[op.Key] = q.base + len(q.slots)
	}
	q.slots = append(q.slots, slot{op: op})
	q.refs++
	q.bytes += opBytes(op)
	q.spans += coverSpans(op)
}

// combine adds op to the ops of its key.
func (q *queue) combine(s *slot, op *crdt.Op) {
	last := &s.op
	if n := len(s.more); n > 0 {
		last = &s.more[n-1]
	}
	if merged := coalesce(*last, op); merged != nil {
		q.bytes += opBytes(merged) - opBytes(*last)
		q.spans += coverSpans(merged) - coverSpans(*last)
		*last = merged
		q.merge++
		return
	}
	s.more = append(s.more, op)
	q.refs++
	q.bytes += opBytes(op)
	q.spans += coverSpans(op)
}

// coalesce is crdt.Coalesce within the bounds of what one op may hold.
func coalesce(older, newer *crdt.Op) *crdt.Op {
	if len(older.Covers)+len(newer.Covers) >= maxCoverSpans || len(older.Removes)+len(newer.Removes) > 2*maxCoverSpans {
		return nil
	}
	merged := crdt.Coalesce(older, newer)
	if merged == nil || merged.Covers.Len() > crdt.MaxCovers {
		return nil
	}
	return merged
}

// index makes the map, and coalesces what waits.
func (q *queue) index() {
	waiting := q.slots[q.head:]
	q.keys = make(map[string]int, 2*len(waiting))
	slots := make([]slot, 0, 2*len(waiting))
	q.slots, q.head, q.base, q.refs, q.bytes, q.spans = slots, 0, 0, 0, 0, 0
	for _, s := range waiting {
		q.push(s.op)
		for _, op := range s.more {
			q.push(op)
		}
	}
}

// peek is the op to be sent next, or nil.
func (q *queue) peek() *crdt.Op {
	if q.head == len(q.slots) {
		return nil
	}
	return q.slots[q.head].op
}

// pop takes out the op that peek shows.
func (q *queue) pop() {
	s := &q.slots[q.head]
	q.refs--
	q.bytes -= opBytes(s.op)
	q.spans -= coverSpans(s.op)
	if len(s.more) > 0 {
		s.op, s.more[0] = s.more[0], nil
		s.more = s.more[1:]
		return
	}
	if q.keys != nil && s.op.Key != "" {
		delete(q.keys, s.op.Key)
	}
	*s = slot{}
	q.head++
	switch {
	case q.head == len(q.slots):
		if cap(q.slots) > 1024 {
			q.slots = nil
		}
		q.base, q.slots, q.head, q.keys = 0, q.slots[:0], 0, nil
	case q.head >= 64 && q.head > len(q.slots)/2: // the front half is empty: move up
		n := copy(q.slots, q.slots[q.head:])
		clear(q.slots[n:])
		q.base += q.head
		q.slots, q.head = q.slots[:n], 0
	}
}

// extract takes out the ops that match, oldest first within their key.
func (q *queue) extract(match func(*crdt.Op) bool) (out []*crdt.Op) {
	var kept []*crdt.Op
	for _, s := range q.slots[q.head:] {
		for i := -1; i < len(s.more); i++ {
			op := s.op
			if i >= 0 {
				op = s.more[i]
			}
			if match(op) {
				out = append(out, op)
			} else {
				kept = append(kept, op)
			}
		}
	}
	if len(out) == 0 {
		return nil
	}
	q.reset()
	for _, op := range kept {
		q.push(op)
	}
	return out
}

// holds reports whether op itself waits. It walks the queue.
func (q *queue) holds(op *crdt.Op) bool {
	for _, s := range q.slots[q.head:] {
		if s.op == op || slices.Contains(s.more, op) {
			return true
		}
	}
	return false
}

// reset drops everything that waits.
func (q *queue) reset() { *q = queue{merge: q.merge} }
