package client

import (
	"context"
	"errors"
	"iter"
	"strings"
	"sync"
	"time"

	"github.com/tidwall/btree"
)

// A MapChange is one step in what a Map shows of one key: from Prev to Next, one of which
// may be nil. They are shared: not to be modified.
type MapChange struct {
	Key        string
	Prev, Next *Entry
	Reason     Reason // why there is no Next; empty if that is not known
}

// MapOptions modify a Map. Nil and zero values are usable.
type MapOptions struct {
	// OnChange is told of every change of the map, those of the first copy included, one
	// after another and after the map shows it. It holds no lock of the map. While it
	// runs the map stands still: what happens meanwhile is coalesced by the node.
	OnChange func(MapChange)
	// MaxBackoff bounds the pause before a watch that the node refused or ended is opened
	// again, which starts at 50ms and doubles. Default 2s.
	MaxBackoff time.Duration
}

// A Map is a live local copy of the entries under one prefix. It survives what a watch
// survives and what a watch does not: after lost connections, restarts and changes of the
// node, and after it could not follow, it compares a new snapshot with what it shows and
// changes by the difference; until that is done it goes on showing what it had, and is stale.
//
// It holds the entries, those of a transaction that has not come to its end, and what one
// watch may have on the way. Safe for concurrent use.
type Map struct {
	ks     Keyspace
	prefix string
	opts   MapOptions
	cancel context.CancelFunc
	done   chan struct{} // closed when it follows no more
	synced chan struct{} // closed at the first complete copy

	mu      sync.RWMutex // protects the fields below
	entries btree.Map[string, *Entry]
	since   time.Time // when it became stale; zero while it follows
	watch   Watch
	err     error

	// Owned by the goroutine that follows.
	seen   map[string]struct{} // keys of the snapshot that is being read; nil: none is
	cursor Cursor
	group  []Event // of a transaction that has not come to its end
}

// NewMap begins to copy the entries under prefix. It does not wait for the node: see Synced.
// The caller must Close the map.
func NewMap(ks Keyspace, prefix string, o *MapOptions) *Map {
	var opts MapOptions
	if o != nil {
		opts = *o
	}
	if opts.MaxBackoff <= 0 {
		opts.MaxBackoff = 2 * time.Second
	}
	// Nobody's call: it ends with the map.
	ctx, cancel := context.WithCancel(context.Background())
	m := &Map{ks: ks, prefix: prefix, opts: opts, cancel: cancel, since: time.Now(),
		done: make(chan struct{}), synced: make(chan struct{}), seen: make(map[string]struct{})}
	go func() {
		defer close(m.done)
		m.follow(ctx)
	}()
	return m
}

// Close ends the map, which keeps what it has. It waits for OnChange, which must not call it,
// and may be called twice.
func (m *Map) Close() error {
	m.cancel()
	<-m.done
	return nil
}

// Get is the entry of key, if the map shows one. It does no I/O, as Range, All and Len.
func (m *Map) Get(key string) (Entry, bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	e, ok := m.entries.Get(key)
	if !ok {
		return Entry{}, false
	}
	return *e, true
}

// Len is how many entries the map shows.
func (m *Map) Len() int {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.entries.Len()
}

// Range yields the entries under prefix, in byte order of the key, as the map showed them at one
// moment, when the iteration began.
func (m *Map) Range(prefix string) iter.Seq[Entry] {
	return func(yield func(Entry) bool) {
		m.mu.Lock()
		entries := m.entries.Copy() // on write: it costs next to nothing
		m.mu.Unlock()
		entries.Ascend(prefix, func(key string, e *Entry) bool {
			return strings.HasPrefix(key, prefix) && yield(*e)
		})
	}
}

// Synced is closed when the map has been complete for the first time.
func (m *Map) Synced() <-chan struct{} { return m.synced }

// Stale reports whether the map may have missed changes that it does not know of, and since when:
// while it has no connection, and until it is complete anew. A connection that dies in
// silence is noticed after three PingIntervals of DialOptions.
func (m *Map) Stale() (since time.Time, stale bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	since = m.since
	if since.IsZero() {
		since = interrupted(m.watch)
	}
	return since, !since.IsZero()
}

// interrupted is since when w has no connection; zero: it has one, or needs none.
func interrupted(w Watch) time.Time {
	if r, ok := w.(*remoteWatch); ok {
		if at := r.interrupted.Load(); at != 0 {
			return time.Unix(0, at)
		}
	}
	return time.Time{}
}

// Err is why the map follows no more: ErrClosed, or what the keyspace refuses for good. Nil: it
// does.
func (m *Map) Err() error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.err
}

// follow reads one watch after another.
func (m *Map) follow(ctx context.Context) {
	backoff := minBackoff
	for {
		came, err := m.read(ctx)
		if ctx.Err() != nil {
			err = ErrClosed
		}
		m.mu.Lock()
		m.stale()
		if !passes(err) && !errors.Is(err, errGaveUp) && !errors.Is(err, ErrTimeout) {
			m.err = err
		}
		failed := m.err != nil
		m.mu.Unlock()
		if failed {
			return
		}
		if came {
			backoff = minBackoff
		}
		if pause(ctx, backoff) != nil {
			backoff = minBackoff
			continue
		}
		backoff = min(2*backoff, m.opts.MaxBackoff)
	}
}

// stale notes that the map cannot follow now. Called with m.mu held.
func (m *Map) stale() {
	if !m.since.IsZero() {
		return
	}
	if m.since = interrupted(m.watch); m.since.IsZero() {
		m.since = time.Now()
	}
}

// read follows one watch to its end, and reports whether anything came.
func (m *Map) read(ctx context.Context) (came bool, err error) {
	m.group = nil
	w, err := m.ks.Watch(ctx, m.prefix, &WatchOptions{From: m.cursor, untracked: true})
	if err != nil {
		return false, err
	}
	defer w.Close()
	m.mu.Lock()
	m.watch = w
	if m.cursor != "" { // it goes on from there, or says in its first event that it does not
		m.since = time.Time{}
	} else {
		m.seen = make(map[string]struct{})
	}
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		m.stale()
		m.watch = nil
		m.mu.Unlock()
	}()
	for ctx.Err() == nil { // Next does not look at it while there are events
		ev, err := w.Next(ctx)
		if err != nil {
			return came, err
		}
		came = true
		for _, c := range m.step(ev) {
			if m.opts.OnChange != nil {
				m.opts.OnChange(c)
			}
		}
	}
	return came, ctx.Err()
}

// step applies one event, and what came before it of the same transaction, and returns what
// changed.
func (m *Map) step(ev Event) (changes []MapChange) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch ev.Type {
	case EventHeartbeat:
		return nil
	case EventResync:
		m.stale()
		m.seen, m.cursor, m.group = make(map[string]struct{}), "", nil
		return nil
	}
	if ev.More {
		m.group = append(m.group, ev)
		return nil
	}
	for i := range m.group {
		changes = m.apply(&m.group[i], changes)
	}
	m.group = nil
	changes = m.apply(&ev, changes)
	if m.seen == nil { // a watch that broke off in the snapshot starts again
		m.cursor = ev.Cursor
	}
	return changes
}

func (m *Map) apply(ev *Event, changes []MapChange) []MapChange {
	key := ev.Entry.Key
	switch ev.Type {
	case EventPut:
		if m.seen != nil {
			m.seen[key] = struct{}{}
		}
		prev, _ := m.entries.Get(key)
		if prev != nil && prev.Version == ev.Entry.Version {
			return changes
		}
		next := new(Entry) // and not a part of the event, which would stay
		*next = ev.Entry
		m.entries.Set(key, next)
		return append(changes, MapChange{Key: key, Prev: prev, Next: next})
	case EventDelete:
		if prev, ok := m.entries.Delete(key); ok {
			changes = append(changes, MapChange{Key: key, Prev: prev, Reason: ev.Reason})
		}
	case EventSynced:
		changes = m.complete(changes)
	}
	return changes
}

// complete ends a snapshot: what it had not is gone.
func (m *Map) complete(changes []MapChange) []MapChange {
	if m.seen != nil {
		var gone []*Entry
		m.entries.Scan(func(key string, e *Entry) bool {
			if _, ok := m.seen[key]; !ok {
				gone = append(gone, e)
			}
			return true
		})
		for _, e := range gone {
			m.entries.Delete(e.Key)
			changes = append(changes, MapChange{Key: e.Key, Prev: e, Reason: missedReason(e)})
		}
	}
	m.seen, m.since = nil, time.Time{}
	select {
	case <-m.synced:
	default:
		close(m.synced)
	}
	return changes
}
