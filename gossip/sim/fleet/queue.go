package fleet

// kind is what an event does.
type kind uint8

const (
	doFunc  kind = iota
	doFrame      // a frame arrives at node
	doRun        // node takes the next frame of its inbox
	doWrite      // the writer of node for link goes on
	doTick
)

// event is something that happens. Those that happen often need no closure.
type event struct {
	kind kind
	end  uint8 // of link: the receiver or the writer
	gen  uint32
	node *node
	link *link
	data []byte
	do   func()
}

// entry is an event on the heap, which moves no pointers.
type entry struct {
	at     int64
	serial uint64
	slot   int32
}

func (e entry) before(other entry) bool {
	return e.at < other.at || e.at == other.at && e.serial < other.serial
}

// queue holds events in the order of their times, and of their scheduling where
// these are equal: a heap of four children a node.
type queue struct {
	heap   []entry
	slots  []event
	free   []int32
	serial uint64
}

func (q *queue) push(at int64, e event) {
	var slot int32
	if n := len(q.free); n > 0 {
		slot = q.free[n-1]
		q.free = q.free[:n-1]
		q.slots[slot] = e
	} else {
		slot = int32(len(q.slots))
		q.slots = append(q.slots, e)
	}
	q.serial++
	x := entry{at: at, serial: q.serial, slot: slot}
	q.heap = append(q.heap, x)
	i := len(q.heap) - 1
	for i > 0 {
		up := (i - 1) / 4
		if !x.before(q.heap[up]) {
			break
		}
		q.heap[i] = q.heap[up]
		i = up
	}
	q.heap[i] = x
}

// next is when the first event happens.
func (q *queue) next() (at int64, ok bool) {
	if len(q.heap) == 0 {
		return 0, false
	}
	return q.heap[0].at, true
}

// pop takes out the first event.
func (q *queue) pop() event {
	top := q.heap[0]
	last := len(q.heap) - 1
	x := q.heap[last]
	q.heap = q.heap[:last]
	i := 0
	for {
		least := 4*i + 1
		if least >= last {
			break
		}
		for c := least + 1; c < min(4*i+5, last); c++ {
			if q.heap[c].before(q.heap[least]) {
				least = c
			}
		}
		if !q.heap[least].before(x) {
			break
		}
		q.heap[i] = q.heap[least]
		i = least
	}
	if last > 0 {
		q.heap[i] = x
	}
	e := q.slots[top.slot]
	q.slots[top.slot] = event{}
	q.free = append(q.free, top.slot)
	return e
}
