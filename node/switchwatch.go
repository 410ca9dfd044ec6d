package node

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/meshkv/meshkv/client"
)

// A switchWatch reads one watch after another, as the nodes that serve them come
// and go. A new one that does not go on exactly where the former ended begins
// with a resync, so that nothing is missed in silence.
type switchWatch struct {
	h      *handle
	prefix string
	life   context.Context // ends with Close
	end    context.CancelFunc

	mu  sync.Mutex // protects cur; the rest is owned by the one that calls Next
	cur client.Watch

	opts   client.WatchOptions
	told   bool          // an event was delivered
	cursor client.Cursor // of the last one; empty in a snapshot
	resync bool          // to be delivered before what follows
}

func newSwitchWatch(h *handle, prefix string, o *client.WatchOptions) *switchWatch {
	w := &switchWatch{h: h, prefix: prefix}
	// Nobody's call: it ends with the watch.
	w.life, w.end = context.WithCancel(context.Background())
	if o != nil {
		w.opts = *o
	}
	return w
}

// watchPause is how long a watch rests before it looks for another member.
const watchPause = 100 * time.Millisecond

// Next implements client.Watch.
func (w *switchWatch) Next(ctx context.Context) (client.Event, error) {
	for {
		cur, err := w.open(ctx)
		if err == nil {
			if w.resync {
				w.resync = false
				return client.Event{Type: client.EventResync}, nil
			}
			var ev client.Event
			if ev, err = cur.Next(ctx); err == nil {
				w.told, w.cursor = true, ev.Cursor
				return ev, nil
			}
		}
		switch {
		case w.life.Err() != nil:
			return client.Event{}, client.ErrClosed
		case ctx.Err() != nil:
			return client.Event{}, err
		case w.h.n.draining.Load():
			return client.Event{}, err
		case !unreached(err) && !errors.Is(err, client.ErrOverloaded):
			return client.Event{}, err
		}
		w.drop(cur)
		select {
		case <-time.After(watchPause):
		case <-ctx.Done():
			return client.Event{}, ctx.Err()
		case <-w.life.Done():
			return client.Event{}, client.ErrClosed
		}
	}
}

// open is the present watch, or another one.
func (w *switchWatch) open(ctx context.Context) (client.Watch, error) {
	w.mu.Lock()
	cur := w.cur
	w.mu.Unlock()
	if cur != nil {
		return cur, nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(w.life, cancel)
	defer stop()
	opts := w.opts
	if w.told {
		// From the cursor, which only the same replica knows: another one begins with
		// a resync. Without one, all of it.
		opts.From, opts.UpdatesOnly, opts.Exact = w.cursor, false, false
	}
	next, err := w.h.watch(ctx, w.prefix, &opts)
	if err != nil {
		return nil, err
	}
	w.resync = w.told && w.cursor == ""
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.life.Err() != nil {
		next.Close()
		return nil, client.ErrClosed
	}
	w.cur = next
	return next, nil
}

func (w *switchWatch) drop(cur client.Watch) {
	if cur == nil {
		return
	}
	cur.Close()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cur == cur {
		w.cur = nil
	}
}

// Close implements client.Watch.
func (w *switchWatch) Close() error {
	w.end()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cur == nil {
		return nil
	}
	return w.cur.Close()
}

// unreached reports whether err says that a node could not serve a request, and
// certainly has not: another may.
func unreached(err error) bool {
	if errors.Is(err, client.ErrUnknownOutcome) {
		return false
	}
	return errors.Is(err, client.ErrUnavailable) || errors.Is(err, client.ErrJoining) ||
		errors.Is(err, client.ErrDraining) || errors.Is(err, client.ErrClosed)
}
