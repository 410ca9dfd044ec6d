package keyspace

import (
	"sync/atomic"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/crdt"
)

// Bounds of the change log: how far back a watch can resume exactly.
const (
	maxLogChanges = 1 << 16
	maxLogBytes   = 32 << 20
)

const (
	pageShift   = 7
	pageChanges = 1 << pageShift // of one page of the log
	// sharedChanges is how many changes keep the event that one watch made of them for the
	// others: about 2 MiB.
	sharedChanges = 4096
)

// A change is one step in what a key shows: from prev to next, two cells of that key,
// one of which may be nil.
type change struct {
	prev, next *crdt.Cell
	why        crdt.Visibility // why nothing is shown any more; Shown if it was removed
	mine       bool            // a call at this node made it
	gone       bool            // prev was removed; otherwise it is hidden, or next is newer
	at         int64           // ms, when it took effect here
}

// key is that of its cells: it is not kept beside them, as one more pointer of each change
// that the garbage collector would follow.
func (c change) key() string {
	if c.next != nil {
		return c.next.Key
	}
	return c.prev.Key
}

// register reports whether its cells are those of a register, and no summaries.
func (c change) register() bool {
	return (c.prev == nil || c.prev.Kind == crdt.KindRegister) && (c.next == nil || c.next.Kind == crdt.KindRegister)
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

// A logSlot is one change in the log. The pointers are taken out when it is dropped, which a
// reader may meet; the rest is written before the change is published, and never again.
type logSlot struct {
	prev, next atomic.Pointer[crdt.Cell]
	event      atomic.Pointer[client.Event] // made of it by a watch; nil: none, or not kept
	bytes      int32                        // so that dropping the change does not touch its cells
	why        crdt.Visibility
	mine, gone bool
	at         int64
}

type logPage struct {
	number uint64 // its changes are number<<pageShift and on
	slots  [pageChanges]logSlot
}

// changeLog is the newest changes of one keyspace at one node, numbered from 1
// in apply order. It is bounded in count and bytes; a reader that falls behind
// its start must take a snapshot. One goroutine at a time may add and drop; any number
// may read meanwhile, without a lock: a slow reader holds a number, and no memory.
type changeLog struct {
	pages  atomic.Pointer[[]atomic.Pointer[logPage]] // page number p is at p modulo their count, a power of two
	last   atomic.Uint64                             // number of the newest, 0 if there never was one
	first  atomic.Uint64                             // number of the oldest less one
	bytes  int64
	newest *logPage

	shared      atomic.Pointer[[sharedChanges]atomic.Uint64] // changes that keep an event; nil: none ever did
	sharedCount atomic.Uint64
}

// oldest is the number of the oldest change held; last+1 if none is.
func (l *changeLog) oldest() uint64 { return l.first.Load() + 1 }

// held is how many changes there are to read.
func (l *changeLog) held() int { return int(l.last.Load() - l.first.Load()) }

// add makes c the newest change, which readers see once it is published.
func (l *changeLog) add(c change) (n uint64) {
	n = l.last.Load() + 1
	if l.held() == maxLogChanges {
		l.dropOldest()
	}
	if p := n >> pageShift; l.newest == nil || l.newest.number != p {
		l.addPage(p)
	}
	s := &l.newest.slots[n&(pageChanges-1)]
	s.bytes, s.why, s.mine, s.gone, s.at = c.size(), c.why, c.mine, c.gone, c.at
	if c.prev != nil {
		s.prev.Store(c.prev)
	}
	if c.next != nil {
		s.next.Store(c.next)
	}
	l.bytes += int64(s.bytes)
	for l.bytes > maxLogBytes && l.oldest() < n {
		l.dropOldest()
	}
	return n
}

func (l *changeLog) publish(n uint64) { l.last.Store(n) }

func (l *changeLog) addPage(number uint64) {
	first := l.oldest() >> pageShift
	pages := l.pages.Load()
	if pages == nil || number-first >= uint64(len(*pages)) {
		grown := make([]atomic.Pointer[logPage], 1)
		if pages != nil {
			grown = make([]atomic.Pointer[logPage], 2*len(*pages))
			for p := first; p < number; p++ {
				grown[p&uint64(len(grown)-1)].Store((*pages)[p&uint64(len(*pages)-1)].Load())
			}
		}
		pages = &grown
		l.pages.Store(pages)
	}
	l.newest = &logPage{number: number}
	(*pages)[number&uint64(len(*pages)-1)].Store(l.newest)
}

func (l *changeLog) dropOldest() {
	n := l.oldest()
	s := l.slot(n)
	l.first.Store(n) // before it goes: see at
	l.bytes -= int64(s.bytes)
	s.prev.Store(nil)
	s.next.Store(nil)
	s.event.Store(nil)
	if (n+1)&(pageChanges-1) == 0 { // it was the last one of its page
		pages := *l.pages.Load()
		pages[n>>pageShift&uint64(len(pages)-1)].Store(nil)
	}
}

// slot is that of change n, or nil if its page is not held.
func (l *changeLog) slot(n uint64) *logSlot {
	pages := l.pages.Load()
	if pages == nil {
		return nil
	}
	p := (*pages)[n>>pageShift&uint64(len(*pages)-1)].Load()
	if p == nil || p.number != n>>pageShift {
		return nil
	}
	return &p.slots[n&(pageChanges-1)]
}

// at is change number n, which was added. False: it is held no more.
func (l *changeLog) at(n uint64) (c change, s *logSlot, ok bool) {
	if s = l.slot(n); s == nil {
		return c, nil, false
	}
	c = change{prev: s.prev.Load(), next: s.next.Load(), why: s.why, mine: s.mine, gone: s.gone, at: s.at}
	return c, s, n >= l.oldest() // looked at last: so nothing was taken out before
}

// share keeps ev with change n, which is in s, for other watches, and the event of another
// change no more.
func (l *changeLog) share(n uint64, s *logSlot, ev *client.Event) {
	if !s.event.CompareAndSwap(nil, ev) {
		return
	}
	ring := l.shared.Load()
	if ring == nil {
		l.shared.CompareAndSwap(nil, new([sharedChanges]atomic.Uint64))
		ring = l.shared.Load()
	}
	if old := ring[l.sharedCount.Add(1)%sharedChanges].Swap(n); old != 0 && old != n {
		if s := l.slot(old); s != nil {
			s.event.Store(nil)
		}
	}
	if n < l.oldest() { // it was dropped meanwhile
		s.event.Store(nil)
	}
}
