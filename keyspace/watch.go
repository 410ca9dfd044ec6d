package keyspace

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/crdt"
)

const (
	watchChanges = 1024 // changes looked at in one hold of the mutex, or before the watch is asked whether it was closed
	watchBuffer  = 256  // events prepared at once, at most
	watchCalm    = 64   // changes between two rests of a watch that are too few to rest for
	watchKeeps   = 32   // events that a watch keeps room for while it waits
)

// watchPhase is what a watch delivers next.
type watchPhase uint8

const (
	phaseResync watchPhase = iota
	phaseSnapshot
	phaseSynced
	phaseChanges
)

// A watch reads the snapshot page by page, and the change log in between, so
// that it never holds more than one page. Keys up to `from` have been read: their
// changes are delivered as they come; the other keys' are skipped, because a
// later page shows their outcome. If it falls behind the log it starts again
// with a resync.
//
// What it has to look at it finds by the numbers that its group keeps. Only for what these
// do not tell, after a resumption or when it is far behind, it looks through the log.
// Nothing of that needs the mutex of the keyspace, but for a page of the snapshot.
type watch struct {
	k      *Keyspace
	prefix string
	group  *group

	mu    sync.Mutex // protects the fields below; taken before k.mu
	phase watchPhase
	from  string // snapshot: the next key
	next  uint64 // changes of lower numbers have been looked at
	upTo  uint64 // changes up to this one are looked for in the log
	seen  uint64 // changes of the group that have been looked at, or are among the others
	buf   []*client.Event
	at    int // those before it are delivered, and nil
	cells []*crdt.Cell

	window   uint64 // of the hub, in which it took
	spent    int64  // so many events
	rested   uint64 // the newest change when it last rested
	restarts int    // since it was last up to date

	parked atomic.Bool   // it waits, or is about to
	due    bool          // it is in a list of the hub, whose mutex protects this
	woken  chan struct{} // holds a token when there may be something to look at

	once   sync.Once
	closed chan struct{}
}

// Watch implements client.Keyspace.
func (k *Keyspace) Watch(ctx context.Context, prefix string, o *client.WatchOptions) (client.Watch, error) {
	var opts client.WatchOptions
	if o != nil {
		opts = *o
	}
	w := &watch{k: k, prefix: prefix, from: prefix, woken: make(chan struct{}, 1), closed: make(chan struct{})}
	var resume uint64
	w.phase = phaseSnapshot
	if opts.UpdatesOnly {
		w.phase = phaseSynced
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.done {
		return nil, client.ErrDraining
	}
	last := k.log.last.Load()
	if opts.From != "" {
		origin, n, err := parseCursor(opts.From)
		if err != nil {
			return nil, err
		}
		w.phase = phaseResync
		if origin == k.logID && n <= last && n+1 >= k.log.oldest() {
			w.phase, resume = phaseChanges, n+1
		}
	}
	k.hub.enter(w)
	w.seen, w.next = w.group.count.Load(), last+1
	if w.phase == phaseChanges {
		w.next, w.upTo = resume, last
		if i, ok := w.group.since(resume - 1); ok {
			w.seen, w.upTo = i, 0
		}
	}
	k.watchers.Add(1)
	return client.Filter(w, o), nil
}

// A cursor is the log and the number of a change in it, as %016x-%d.
func (k *Keyspace) cursor(n uint64) client.Cursor {
	var id [8]byte
	binary.BigEndian.PutUint64(id[:], k.logID)
	b := hex.AppendEncode(make([]byte, 0, 40), id[:])
	return client.Cursor(strconv.AppendUint(append(b, '-'), n, 10))
}

func parseCursor(c client.Cursor) (log, n uint64, err error) {
	logText, nText, _ := strings.Cut(string(c), "-")
	log, err1 := strconv.ParseUint(logText, 16, 64)
	n, err2 := strconv.ParseUint(nText, 10, 64)
	if err1 != nil || err2 != nil {
		return 0, 0, fmt.Errorf("%w: cursor %q is not one that a watch gave", client.ErrBadRequest, c)
	}
	return log, n, nil
}

// Next implements client.Watch.
func (w *watch) Next(ctx context.Context) (client.Event, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		select {
		case <-w.closed:
			return client.Event{}, client.ErrClosed
		default:
		}
		if w.at < len(w.buf) {
			ev := w.buf[w.at]
			w.buf[w.at] = nil
			w.at++
			return *ev, nil
		}
		w.at, w.buf = 0, w.buf[:0]
		if w.k.hub.closed.Load() {
			return client.Event{}, client.ErrDraining
		}
		if w.tired() {
			w.k.hub.rest(w)
			select {
			case <-w.woken:
				continue
			case <-w.closed:
				return client.Event{}, client.ErrClosed
			case <-ctx.Done():
				return client.Event{}, ctx.Err()
			}
		}
		if wait := w.fill(); !wait {
			w.spent += int64(len(w.buf))
			continue
		}
		if cap(w.buf) > watchKeeps { // there may be thousands of watches
			w.buf = nil
		}
		if !w.park() {
			continue
		}
		select {
		case <-w.woken:
		case <-w.closed:
		case <-ctx.Done():
			w.unpark()
			return client.Event{}, ctx.Err()
		}
		w.unpark()
	}
}

// tired reports whether the watch is to leave the processor to the writers, since it has had
// its share. That doubles whenever it has fallen behind the log: in the end it must come
// to the end of a snapshot.
func (w *watch) tired() bool {
	h := w.k.hub
	if window := h.began.Load(); window != w.window {
		w.window, w.spent = window, 0
	}
	if w.spent < h.share.Load()<<min(w.restarts, 16) {
		return false
	}
	w.spent = 0
	last := w.k.log.last.Load()
	if last-w.rested < watchCalm {
		return false
	}
	w.rested = last
	return true
}

// park has the watch woken at the next change of its group, unless there is one already.
func (w *watch) park() bool {
	select {
	case <-w.woken: // for what has been looked at
	default:
	}
	w.group.parked.Add(1)
	w.parked.Store(true)
	// A writer counts a change before it looks who is parked.
	if w.group.count.Load() == w.seen && !w.k.hub.closed.Load() {
		return true
	}
	w.unpark()
	return false
}

// unpark reports whether the watch was parked.
func (w *watch) unpark() bool {
	if !w.parked.CompareAndSwap(true, false) {
		return false
	}
	w.group.parked.Add(-1)
	return true
}

func (w *watch) signal() {
	select {
	case w.woken <- struct{}{}:
	default: // it has a token already
	}
}

// Close implements client.Watch.
func (w *watch) Close() error {
	w.once.Do(func() {
		close(w.closed)
		w.k.watchers.Add(-1)
		w.k.mu.Lock()
		defer w.k.mu.Unlock()
		w.k.hub.leave(w)
	})
	return nil
}

// fill prepares events. True: there is nothing to deliver and nothing to read.
func (w *watch) fill() (wait bool) {
	if w.phase == phaseResync {
		w.restart()
		w.buf = append(w.buf, &client.Event{Type: client.EventResync})
		return false
	}
	switch caughtUp, ok := w.read(watchBuffer); {
	case !ok:
		w.phase = phaseResync
	case !caughtUp:
	case w.phase == phaseSnapshot:
		w.page()
	case w.phase == phaseSynced: // behind what was just read, or steady writes would put it off for ever
		w.buf = append(w.buf, &client.Event{Type: client.EventSynced, Cursor: w.k.cursor(w.next - 1)})
		w.phase, w.restarts = phaseChanges, 0
	default:
		return len(w.buf) == 0
	}
	return false
}

// restart begins with the snapshot again.
func (w *watch) restart() {
	w.k.mu.Lock()
	defer w.k.mu.Unlock()
	w.restarts++
	w.phase, w.from = phaseSnapshot, w.prefix
	w.next, w.upTo, w.seen = w.k.log.last.Load()+1, 0, w.group.count.Load()
}

// page delivers the next page of the snapshot, read at the end of the log.
func (w *watch) page() {
	k := w.k
	k.mu.Lock()
	if w.group.count.Load()-w.seen > watchChanges { // writers are not to wait for all that
		k.mu.Unlock()
		return
	}
	if caughtUp, ok := w.read(2 * watchChanges); !ok || !caughtUp {
		k.mu.Unlock()
		if !ok {
			w.phase = phaseResync
		}
		return
	}
	var next string
	var more bool
	w.cells, next, more = k.page(w.cells[:0], w.prefix, w.from, k.shownOf)
	k.mu.Unlock()
	events := make([]client.Event, len(w.cells))
	for i, c := range w.cells {
		events[i] = client.Event{Type: client.EventPut, Entry: k.entry(c)}
		w.buf = append(w.buf, &events[i])
	}
	clear(w.cells)
	w.from = next
	if !more {
		w.phase, w.cells = phaseSynced, nil
	}
}

// read delivers changes, at most so many, and reports whether it reached the end. Not ok:
// it has fallen behind the log.
func (w *watch) read(limit int) (caughtUp, ok bool) {
	log, g := &w.k.log, w.group
	last := log.last.Load() // before the changes of the group are counted, which thus are all up to it
	for looked := 0; w.next <= w.upTo; looked++ {
		if len(w.buf) >= limit || looked == watchChanges {
			return false, true
		}
		c, s, held := log.at(w.next)
		if !held {
			return false, false
		}
		if strings.HasPrefix(c.key(), w.prefix) {
			w.deliver(w.next, c, s)
		}
		w.next++
	}
	for count := g.count.Load(); w.seen < count; w.seen++ {
		if len(w.buf) >= limit {
			return false, true
		}
		n, known := g.number(w.seen)
		if !known { // they were too many: look through the log up to what is counted now
			w.seen, w.upTo = g.newest()
			return false, w.next >= log.oldest()
		}
		if n < w.next {
			continue
		}
		c, s, held := log.at(n)
		if !held {
			return false, false
		}
		w.deliver(n, c, s)
		w.next = n + 1
	}
	w.next = max(w.next, last+1)
	return true, true
}

// deliver prepares change n, unless a later page shows its outcome.
func (w *watch) deliver(n uint64, c change, s *logSlot) {
	if w.phase == phaseSnapshot && c.key() >= w.from {
		return
	}
	// During the snapshot there is no cursor: a watch that broke off there starts again.
	if w.phase != phaseChanges {
		ev := w.k.event(c)
		w.buf = append(w.buf, ev)
		return
	}
	ev := s.event.Load()
	if ev == nil {
		ev = w.k.event(c)
		ev.Cursor = w.k.cursor(n)
		if w.group.size.Load() > 1 {
			w.k.log.share(n, s, ev)
		}
	}
	w.buf = append(w.buf, ev)
}

// event is a change as users see it.
func (k *Keyspace) event(c change) *client.Event {
	both := new(struct {
		event client.Event
		prev  client.Entry
	})
	ev := &both.event
	ev.Mine = c.mine
	if c.prev != nil {
		both.prev = k.entry(c.prev)
		ev.Prev = &both.prev
	}
	if c.next != nil {
		ev.Type, ev.Entry = client.EventPut, k.entry(c.next)
		return ev
	}
	ev.Type, ev.Entry = client.EventDelete, client.Entry{Key: c.key()}
	switch c.why {
	case crdt.Shown:
		ev.Reason = client.ReasonDeleted
	case crdt.HiddenExpired:
		ev.Reason = client.ReasonExpired
	default:
		ev.Reason = client.ReasonOwnerFailed
	}
	return ev
}
