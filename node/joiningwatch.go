package node

import (
	"context"

	"github.com/meshkv/meshkv/client"
)

// A joiningWatch is a watch of a keyspace that this node is joining: its synced
// is held back until the keyspace has been joined, and all that came by then has
// been shown.
type joiningWatch struct {
	client.Watch // of this node's replica
	of           *holding

	held   bool // synced is to be told
	cursor client.Cursor
}

// Next implements client.Watch.
func (w *joiningWatch) Next(ctx context.Context) (client.Event, error) {
	for {
		ev, err := w.next(ctx)
		switch {
		case err != nil:
			return ev, err
		case ev.Type == client.EventSynced && !closed(w.of.settled):
			w.held, w.cursor = true, ev.Cursor
			continue
		case ev.Type == client.EventResync, ev.Type == client.EventSynced:
			w.held = false // another snapshot, with a synced of its own
		case w.held && ev.Cursor != "":
			w.cursor = ev.Cursor
		}
		return ev, nil
	}
}

func (w *joiningWatch) next(ctx context.Context) (client.Event, error) {
	if !w.held {
		return w.Watch.Next(ctx)
	}
	// Something of the replica, or its joining, whichever comes first.
	either, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-w.of.settled:
			cancel()
		case <-stop:
		}
	}()
	ev, err := w.Watch.Next(either) // what is there comes before the end of the context
	close(stop)
	<-done
	if err == nil || ctx.Err() != nil || !closed(w.of.settled) || either.Err() == nil {
		return ev, err
	}
	if ev, err := w.Watch.Next(either); err == nil { // it came between the two
		return ev, nil
	}
	if w.of.gone.Load() { // it settled because it ended
		return client.Event{}, w.of.ended(client.ErrDraining)
	}
	w.held = false
	return client.Event{Type: client.EventSynced, Cursor: w.cursor}, nil
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
