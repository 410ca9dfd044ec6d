package keyspace

import (
	"github.com/meshkv/meshkv/crdt"
	"github.com/meshkv/meshkv/internal/fifo"
)

// Bounds of the change log: how far back a watch can resume exactly.
const (
	maxLogChanges = 1 << 16
	maxLogBytes   = 32 << 20
)

// A change is one step in what a key shows: from prev to next, two cells of that key,
// one of which may be nil.
type change struct {
	prev, next *crdt.Cell
	why        crdt.Visibility // why nothing is shown any more; Shown if it was removed
	bytes      int32           // set by append, so that dropping the change does not touch its cells
}

// key is that of its cells: it is not kept beside them, as one more pointer of each change
// that the garbage collector would follow.
func (c change) key() string {
	if c.next != nil {
		return c.next.Key
	}
	return c.prev.Key
}

func (c change) size() int32 {
	n := len(c.key()) + 64
	if c.prev != nil {
		n += len(c.prev.Value)
	}
	if c.next != nil {
		n += len(c.next.Value)
	}
	return int32(n)
}

// changeLog is the newest changes of one keyspace at one node, numbered from 1
// in apply order. It is bounded in count and bytes; a reader that falls behind
// its start must take a snapshot. Not safe for concurrent use.
type changeLog struct {
	changes fifo.Queue[change]
	last    uint64 // number of the newest, 0 if there never was one
	bytes   int64
}

// oldest is the number of the oldest change held; last+1 if none is.
func (l *changeLog) oldest() uint64 { return l.last - uint64(l.changes.Len()) + 1 }

func (l *changeLog) append(c change) {
	if l.changes.Len() == maxLogChanges {
		l.dropOldest()
	}
	c.bytes = c.size()
	l.changes.Push(c)
	l.last++
	l.bytes += int64(c.bytes)
	for l.bytes > maxLogBytes && l.changes.Len() > 1 {
		l.dropOldest()
	}
}

func (l *changeLog) dropOldest() {
	l.bytes -= int64(l.changes.At(0).bytes)
	l.changes.Drop()
}

// at is change number n, which must be held.
func (l *changeLog) at(n uint64) change { return *l.changes.At(int(n - l.oldest())) }
