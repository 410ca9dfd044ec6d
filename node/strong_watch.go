package node

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/meshkv/meshkv/client"
)

// A strongWatch is a watch of a strong keyspace that goes on elsewhere when the replica that served
// it is closed: it was moved away, its keyspace was recovered, or the other node is gone.
type strongWatch struct {
	open func(context.Context, *client.WatchOptions) (client.Watch, error) // where the keyspace is served now
	opts client.WatchOptions

	// Owned by Next.
	shown  bool          // of a snapshot that is not complete
	inside int           // events of a transaction that were shown, but not its last
	skip   int           // events to leave out, which were shown before
	first  *client.Event // to show before all others

	mu     sync.Mutex // protects the fields below
	cur    client.Watch
	closed bool
}

const (
	minReopen = 20 * time.Millisecond // between two attempts, doubled each time
	maxReopen = time.Second
)

func newStrongWatch(ctx context.Context, open func(context.Context, *client.WatchOptions) (client.Watch, error), o *client.WatchOptions) (client.Watch, error) {
	w := &strongWatch{open: open}
	if o != nil {
		w.opts = *o
	}
	cur, err := open(ctx, &w.opts)
	if err != nil {
		return nil, err
	}
	w.cur = cur
	return w, nil
}

// Next implements client.Watch.
func (w *strongWatch) Next(ctx context.Context) (client.Event, error) {
	for {
		if w.first != nil {
			ev := *w.first
			w.first = nil
			return ev, nil
		}
		cur, closed := w.current()
		if closed {
			return client.Event{}, client.ErrClosed
		}
		ev, err := cur.Next(ctx)
		if errors.Is(err, client.ErrUnavailable) && ctx.Err() == nil {
			if err := w.reopen(ctx); err != nil {
				return client.Event{}, err
			}
			continue
		}
		if err != nil {
			return client.Event{}, err
		}
		if w.skip > 0 && ev.Type != client.EventResync {
			w.skip--
			w.inside++
			continue
		}
		w.note(&ev)
		return ev, nil
	}
}

// note takes note of where the watch is.
func (w *strongWatch) note(ev *client.Event) {
	switch {
	case ev.Type == client.EventResync:
		w.opts.From, w.shown, w.inside, w.skip = "", false, 0, 0
	case ev.More:
		w.inside++
	case ev.Cursor != "":
		w.opts.From, w.shown, w.inside = ev.Cursor, false, 0
	case ev.Type == client.EventPut: // of a snapshot
		w.shown = true
	}
}

// reopen opens the watch where the keyspace is served now.
func (w *strongWatch) reopen(ctx context.Context) error {
	for wait := minReopen; ; wait = min(2*wait, maxReopen) {
		if err := pause(ctx, wait); err != nil {
			return err
		}
		opts := w.opts
		// Of a watch that has no cursor yet nobody knows what it has missed.
		anew := opts.From == "" && (w.shown || opts.UpdatesOnly)
		if anew {
			opts.UpdatesOnly = false
		}
		next, err := w.open(ctx, &opts)
		switch {
		case err == nil:
			w.skip, w.inside = w.skip+w.inside, 0
			if anew {
				w.shown, w.first = false, &client.Event{Type: client.EventResync}
			}
			return w.replace(next)
		case !errors.Is(err, client.ErrUnavailable) && !errors.Is(err, client.ErrNotCaughtUp) || ctx.Err() != nil:
			return err
		}
	}
}

// replace goes on with next.
func (w *strongWatch) replace(next client.Watch) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		next.Close()
		return client.ErrClosed
	}
	w.cur.Close()
	w.cur = next
	return nil
}

func (w *strongWatch) current() (client.Watch, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.cur, w.closed
}

// Close implements client.Watch.
func (w *strongWatch) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	return w.cur.Close()
}
