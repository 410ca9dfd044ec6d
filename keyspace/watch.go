package keyspace

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/crdt"
)

const (
	watchChanges = 1024 // changes looked at in one hold of the mutex
	watchBuffer  = 256  // events prepared at once, at most
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
// with a resync. Writers do nothing for a watch but append to the log.
type watch struct {
	k      *Keyspace
	prefix string

	mu    sync.Mutex // protects the fields below; taken before k.mu
	phase watchPhase
	from  string         // snapshot: the next key
	next  uint64         // number of the next change to look at
	buf   []client.Event // prepared; those before at are delivered, and zero
	at    int
	cells []*crdt.Cell

	once   sync.Once
	closed chan struct{}
}

// Watch implements client.Keyspace.
func (k *Keyspace) Watch(ctx context.Context, prefix string, o *client.WatchOptions) (client.Watch, error) {
	var opts client.WatchOptions
	if o != nil {
		opts = *o
	}
	w := &watch{k: k, prefix: prefix, from: prefix, closed: make(chan struct{})}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.done {
		return nil, client.ErrDraining
	}
	w.next = k.log.last + 1
	switch {
	case opts.From != "":
		origin, n, err := parseCursor(opts.From)
		if err != nil {
			return nil, err
		}
		w.phase = phaseResync
		if origin == k.logID && n <= k.log.last && n+1 >= k.log.oldest() {
			w.phase, w.next = phaseChanges, n+1
		}
	case opts.UpdatesOnly:
		w.phase = phaseSynced
	default:
		w.phase = phaseSnapshot
	}
	k.watchers.Add(1)
	return w, nil
}

// A cursor is the log and the number of a change in it, as %016x-%d.
func (w *watch) cursor(n uint64) client.Cursor {
	var id [8]byte
	binary.BigEndian.PutUint64(id[:], w.k.logID)
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
			w.buf[w.at] = client.Event{}
			w.at++
			return ev, nil
		}
		w.at, w.buf = 0, w.buf[:0]
		changed, err := w.fill()
		if err != nil {
			return client.Event{}, err
		}
		if changed == nil {
			continue
		}
		if cap(w.buf) > watchKeeps { // there may be thousands of watches
			w.buf = nil
		}
		select {
		case <-changed:
		case <-w.closed:
			return client.Event{}, client.ErrClosed
		case <-ctx.Done():
			return client.Event{}, ctx.Err()
		}
	}
}

// Close implements client.Watch.
func (w *watch) Close() error {
	w.once.Do(func() {
		close(w.closed)
		w.k.watchers.Add(-1)
	})
	return nil
}

// fill prepares events. If there is nothing to deliver and nothing to read, it
// returns a channel that is closed at the next change.
func (w *watch) fill() (changed <-chan struct{}, err error) {
	k := w.k
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.done {
		return nil, client.ErrDraining
	}
	if w.next < k.log.oldest() {
		w.phase = phaseResync
	}
	if w.phase == phaseResync {
		w.buf = append(w.buf, client.Event{Type: client.EventResync})
		w.phase, w.from, w.next = phaseSnapshot, w.prefix, k.log.last+1
		return nil, nil
	}
	switch caughtUp := w.read(); {
	case !caughtUp:
		return nil, nil
	case w.phase == phaseSnapshot:
		w.page()
		return nil, nil
	case w.phase == phaseSynced: // behind what was just read, or steady writes would put it off for ever
		w.buf = append(w.buf, client.Event{Type: client.EventSynced, Cursor: w.cursor(w.next - 1)})
		w.phase = phaseChanges
		return nil, nil
	case len(w.buf) > 0:
		return nil, nil
	}
	return k.awaitChange(), nil
}

// read delivers changes from the log and reports whether it reached the end.
func (w *watch) read() (caughtUp bool) {
	k := w.k
	for range watchChanges {
		if w.next > k.log.last {
			return true
		}
		if len(w.buf) >= watchBuffer {
			return false
		}
		c := k.log.at(w.next)
		w.next++
		if key := c.key(); !strings.HasPrefix(key, w.prefix) || w.phase == phaseSnapshot && key >= w.from {
			continue
		}
		if left := k.log.last + 1 - w.next; len(w.buf) == 0 && left > 0 && w.phase == phaseChanges {
			w.buf = slices.Grow(w.buf, int(min(1+left, watchBuffer)))
		}
		w.buf = append(w.buf, w.event(c))
	}
	return w.next > k.log.last
}

// page delivers the next page of the snapshot, read at the end of the log.
func (w *watch) page() {
	k := w.k
	var next string
	var more bool
	w.cells, next, more = k.page(w.cells[:0], w.prefix, w.from, k.shownOf)
	for _, c := range w.cells {
		w.buf = append(w.buf, client.Event{Type: client.EventPut, Entry: k.entry(c)})
	}
	clear(w.cells)
	w.from = next
	if !more {
		w.phase = phaseSynced
	}
}

// event is a change as users see it, with the cursor after it. During the
// snapshot there is no cursor: a watch that broke off there starts again.
func (w *watch) event(c change) client.Event {
	var ev client.Event
	if w.phase == phaseChanges {
		ev.Cursor = w.cursor(w.next - 1)
	}
	if c.prev != nil {
		prev := w.k.entry(c.prev)
		ev.Prev = &prev
	}
	if c.next != nil {
		ev.Type, ev.Entry = client.EventPut, w.k.entry(c.next)
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
