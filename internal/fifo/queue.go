// Package fifo is a queue that grows without copying what it holds. An array
// that is doubled moves all of it within one push: megabytes of copying and of
// page faults, in a burst that the nodes of one machine have at the same time
// when all of them receive the same writes. Here every push costs the same.
package fifo

// chunkItems are the items of one chunk, a power of two. The queues of this
// module have items of 40 bytes, so that a chunk is 5 KiB: an allocation of that
// size is cheap, and what a chunk that is partly used wastes is nothing beside
// the limits of these queues.
const (
	chunkShift = 7
	chunkItems = 1 << chunkShift
)

type chunk[T any] [chunkItems]T

// A Queue holds items in the order in which they came, and gives access to each
// of them. It has no bound: its owner drops what is too much. It is memory in
// chunks of 128 items, of which at most one is kept unused, and 8 bytes for each
// chunk of the most that it held since the last Reset. The zero value is empty
// and ready. Not safe for concurrent use.
type Queue[T any] struct {
	// A circle, of a power of two: item number p, from 0 in the order of pushes,
	// is in the chunk number p/chunkItems, at that number modulo len(chunks).
	chunks []*chunk[T]
	head   uint64 // number of the oldest item
	n      int    // items held: head .. head+n-1
	spare  *chunk[T]
}

// Len is the number of items held.
func (q *Queue[T]) Len() int { return q.n }

// At is item i, counted from 0, the oldest; 0 <= i < Len(). The pointer is good
// until that item is dropped.
func (q *Queue[T]) At(i int) *T {
	p := q.head + uint64(i)
	return &q.chunks[p>>chunkShift&uint64(len(q.chunks)-1)][p&(chunkItems-1)]
}

// Push adds the newest item.
func (q *Queue[T]) Push(item T) {
	if (q.head+uint64(q.n))&(chunkItems-1) == 0 {
		q.addChunk()
	}
	q.n++
	*q.At(q.n - 1) = item
}

// addChunk makes room for items behind the newest, which is the last of its
// chunk or not there.
func (q *Queue[T]) addChunk() {
	first, end := q.head>>chunkShift, (q.head+uint64(q.n))>>chunkShift
	if end-first == uint64(len(q.chunks)) {
		chunks := make([]*chunk[T], max(1, 2*len(q.chunks)))
		for i := first; i < end; i++ {
			chunks[i&uint64(len(chunks)-1)] = q.chunks[i&uint64(len(q.chunks)-1)]
		}
		q.chunks = chunks
	}
	c := q.spare
	if q.spare = nil; c == nil {
		c = new(chunk[T])
	}
	q.chunks[end&uint64(len(q.chunks)-1)] = c
}

// Drop forgets the oldest item, of which there must be one, and all that it
// points to.
func (q *Queue[T]) Drop() {
	var zero T
	*q.At(0) = zero
	at := q.head >> chunkShift & uint64(len(q.chunks)-1)
	q.head++
	q.n--
	switch {
	case q.head&(chunkItems-1) == 0: // all of the chunk was dropped
		q.spare, q.chunks[at] = q.chunks[at], nil
	case q.n == 0: // the chunk that is partly used is enough
		q.spare = nil
	}
}

// Reset forgets everything and holds no memory.
func (q *Queue[T]) Reset() { *q = Queue[T]{} }
