package strong

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/consensus/machine"
	"github.com/meshkv/meshkv/consensus/replica"
)

// A watch is a client.Watch of a replica: a snapshot, synced, and then the changes. Its
// cursors are revisions: the one after which to resume.
type watch struct {
	s      *Space
	prefix string
	exact  bool

	view   *machine.View // of the snapshot that is shown; nil afterwards
	after  string        // the last key of it that was taken
	queue  []client.Event
	cursor client.Cursor // of the last whole transaction

	mu   sync.Mutex // protects the fields below
	w    *replica.Watcher
	done bool
}

// Watch implements client.Keyspace.
func (s *Space) Watch(ctx context.Context, prefix string, o *client.WatchOptions) (client.Watch, error) {
	var opts client.WatchOptions
	if o != nil {
		opts = *o
	}
	if len(prefix) > machine.MaxKey {
		return nil, fmt.Errorf("%w: a prefix has at most %d bytes, this one has %d", client.ErrBadRequest, machine.MaxKey, len(prefix))
	}
	if opts.NotMine {
		return nil, fmt.Errorf("%w: a watch without the node's own changes; compare the origin of the entries", client.ErrNeedsEventual)
	}
	w, err := s.open(ctx, prefix, opts)
	if err != nil {
		return nil, err
	}
	return client.Filter(w, o), nil
}

func (s *Space) open(ctx context.Context, prefix string, opts client.WatchOptions) (client.Watch, error) {
	w := &watch{s: s, prefix: prefix, exact: opts.Exact}
	if opts.From == "" {
		w.begin()
		if opts.UpdatesOnly {
			w.view = nil
			w.queue = append(w.queue[:0], client.Event{Type: client.EventSynced, Cursor: w.cursor})
		}
		return w, nil
	}
	from, err := strconv.ParseUint(string(opts.From), 10, 63)
	if err != nil && opts.Exact {
		return nil, fmt.Errorf("%w: the cursor of a strong keyspace is a revision", client.ErrBadRequest)
	}
	if err == nil {
		w.w, err = s.r.Watch(prefix, machine.Revision(from)+1)
	}
	if errors.Is(err, machine.ErrFutureRevision) {
		// This replica may be behind the one that gave the cursor.
		if _, rerr := s.r.Read(ctx); rerr != nil {
			return nil, fmt.Errorf("%w: this replica has not come to revision %d: %w", client.ErrNotCaughtUp, from, rerr)
		}
		w.w, err = s.r.Watch(prefix, machine.Revision(from)+1)
	}
	switch {
	case err == nil:
		w.cursor = opts.From
		return w, nil
	case opts.Exact:
		return nil, failure(err)
	}
	w.resync()
	return w, nil
}

// begin shows the state.
func (w *watch) begin() {
	view, next := w.s.r.WatchState(w.prefix)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.w != nil {
		w.w.Close()
	}
	if w.w = next; w.done {
		next.Close()
	}
	w.view = view
	w.after, w.cursor = "", cursorOf(w.view.Status().Revision)
}

// resync tells that something was missed and shows the state anew.
func (w *watch) resync() {
	w.begin()
	w.queue = append(w.queue[:0], client.Event{Type: client.EventResync})
}

func cursorOf(rev machine.Revision) client.Cursor {
	return client.Cursor(strconv.FormatUint(uint64(rev), 10))
}

// Next implements client.Watch.
func (w *watch) Next(ctx context.Context) (client.Event, error) {
	for {
		watcher, done := w.watcher()
		if done {
			return client.Event{}, client.ErrClosed
		}
		if len(w.queue) > 0 {
			ev := w.queue[0]
			w.queue = w.queue[1:]
			return ev, nil
		}
		if w.view != nil {
			if err := w.page(); err != nil {
				return client.Event{}, err
			}
			continue
		}
		changes, err := watcher.Next(ctx)
		switch {
		case errors.Is(err, machine.ErrCompacted) && !w.exact:
			w.resync()
		case errors.Is(err, replica.ErrWatchClosed):
			if _, done := w.watcher(); done {
				return client.Event{}, client.ErrClosed
			}
			return client.Event{}, failure(err) // the replica is gone: the keyspace is served elsewhere
		case err != nil && ctx.Err() != nil:
			return client.Event{}, ctx.Err()
		case err != nil:
			return client.Event{}, failure(err)
		default:
			w.take(changes)
		}
	}
}

// page takes the next entries of the snapshot, and synced after the last.
func (w *watch) page() error {
	get := machine.Get{Span: machine.Prefix(w.prefix), Limit: listPage}
	if w.after != "" {
		get.Span.Key = w.after + "\x00"
	}
	res, err := w.view.Range(&get)
	if err != nil {
		return failure(err)
	}
	for _, e := range res.Entries {
		w.queue = append(w.queue, client.Event{Type: client.EventPut, Entry: entryOf(e)})
		w.after = e.Key
	}
	if !res.More {
		w.view = nil
		w.queue = append(w.queue, client.Event{Type: client.EventSynced, Cursor: w.cursor})
	}
	return nil
}

// take turns changes into events. Those of one transaction stay together.
func (w *watch) take(changes []*machine.Change) {
	for i, c := range changes {
		ev := client.Event{Type: client.EventPut, More: i+1 < len(changes) && changes[i+1].Revision == c.Revision}
		if c.Next != nil {
			ev.Entry = entryOf(c.Next)
		} else {
			ev.Type, ev.Reason = client.EventDelete, client.ReasonDeleted
			ev.Entry = client.Entry{Key: c.Prev.Key, Version: versionOf(c.Revision)}
		}
		if c.Prev != nil {
			prev := entryOf(c.Prev)
			ev.Prev = &prev
		}
		if !ev.More {
			w.cursor = cursorOf(c.Revision)
		}
		ev.Cursor = w.cursor
		w.queue = append(w.queue, ev)
	}
}

// Close implements client.Watch.
func (w *watch) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.done = true
	w.w.Close()
	return nil
}

// watcher is the present one, and whether w was closed.
func (w *watch) watcher() (*replica.Watcher, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.w, w.done
}
