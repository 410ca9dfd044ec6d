package client

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/meshkv/meshkv/client/wire"
)

// Watch implements Keyspace. It returns once the node has accepted the watch.
func (k *remoteKeyspace) Watch(ctx context.Context, prefix string, o *WatchOptions) (Watch, error) {
	var opts WatchOptions
	if o != nil {
		opts = *o
	}
	if err := k.checkSize(&wire.Request{Keyspace: k.name, Key: prefix, After: string(opts.From)}); err != nil {
		return nil, err
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, k.c.opts.Timeout)
		defer cancel()
	}
	w := &remoteWatch{k: k, prefix: prefix, view: newView(opts), closed: make(chan struct{})}
	for {
		err := w.connect(ctx)
		switch {
		case err == nil:
			return Filter(w, o), nil // not at the node: the view needs all of it
		case errors.Is(err, errNotSent), errors.Is(err, errLost):
		default:
			w.Close()
			return nil, ended(err)
		}
	}
}

// A remoteWatch needs no goroutine: Next reads from the stream of the present
// connection, and opens another one when that has ended.
type remoteWatch struct {
	k      *remoteKeyspace
	prefix string
	once   sync.Once
	closed chan struct{}

	// interrupted is when the connection was lost, in Unix nanoseconds; 0: the node has taken
	// the watch up again, and what was missed has been made up for.
	interrupted atomic.Int64

	mu     sync.Mutex // protects stream
	stream *stream    // nil: to be opened

	// Owned by the one that calls Next.
	view    *view
	pending []Event // to be returned
	failed  error   // for good
	backoff time.Duration
}

// Next implements Watch.
func (w *remoteWatch) Next(ctx context.Context) (Event, error) {
	for {
		select {
		case <-w.closed:
			return Event{}, ErrClosed
		default:
		}
		if len(w.pending) > 0 {
			ev := w.pending[0]
			w.pending[0] = Event{}
			w.pending = w.pending[1:]
			if len(w.pending) == 0 {
				w.pending = nil
			}
			return ev, nil
		}
		if w.failed != nil {
			return Event{}, w.failed
		}
		ev, err := w.fromNode(ctx)
		switch {
		case err == nil:
			w.backoff = 0
			w.pending = w.view.step(ev, w.pending)
			w.resumed()
		case errors.Is(err, errReopened):
		case errors.Is(err, errNotSent), errors.Is(err, errLost):
			if ctx.Err() != nil {
				return Event{}, ctx.Err()
			}
		case ctx.Err() != nil && passes(err) && !errors.Is(err, ctx.Err()):
			return Event{}, ctx.Err() // the next call goes on; this one is not to say that the watch failed
		case ctx.Err() != nil && !errors.Is(err, ErrClosed):
			return Event{}, err
		case passes(err) && w.k.c.opts.FailFast:
			return Event{}, err
		case passes(err):
			w.k.c.opts.Logger.Debug("watch interrupted", "keyspace", w.k.name, "err", err)
			if err := w.rest(ctx); err != nil {
				return Event{}, err
			}
		case errors.Is(err, errGaveUp):
			return Event{}, err
		default:
			w.failed = err
		}
	}
}

// errReopened says that there is a new stream, and errGaveUp that there is none.
var (
	errReopened = errors.New("reopened")
	errGaveUp   = fmt.Errorf("%w for too long", ErrUnavailable)
)

// passes reports whether a watch that ended with err may succeed later.
func passes(err error) bool {
	if errors.Is(err, errGaveUp) {
		return false // though the last attempt may have been refused by a node that stops
	}
	return errors.Is(err, ErrDraining) || errors.Is(err, ErrOverloaded) || errors.Is(err, ErrJoining) || errors.Is(err, ErrUnavailable) || errors.Is(err, ErrNoQuorum)
}

// rest waits before the watch is opened again at a node that refused it.
func (w *remoteWatch) rest(ctx context.Context) error {
	w.backoff = min(max(2*w.backoff, minBackoff), w.k.c.opts.MaxBackoff)
	t := time.NewTimer(w.backoff)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-w.closed:
		return ErrClosed
	case <-w.k.c.done:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

// fromNode returns the next event of the stream. When that has ended, it is
// dropped, and the next call opens another.
func (w *remoteWatch) fromNode(ctx context.Context) (Event, error) {
	w.mu.Lock()
	s := w.stream
	w.mu.Unlock()
	if s == nil {
		if err := w.reconnect(ctx); err != nil {
			return Event{}, err
		}
		return Event{}, errReopened
	}
	ev, err := s.next(ctx, w.closed)
	if err != nil && s.ended() { // it, and not only the reader's time: or its end would be found again and again
		w.drop(s)
	}
	return ev, err
}

// resumed notes that the watch is live, if it is.
func (w *remoteWatch) resumed() {
	if w.view.phase == phaseLive && w.interrupted.Load() != 0 {
		w.interrupted.Store(0)
	}
}

func (w *remoteWatch) drop(s *stream) {
	w.interrupted.CompareAndSwap(0, time.Now().UnixNano())
	w.mu.Lock()
	if w.stream == s {
		w.stream = nil
	}
	w.mu.Unlock()
	s.close()
}

func (w *remoteWatch) reconnect(ctx context.Context) error {
	patience := w.k.c.opts.GiveUpAfter
	if patience <= 0 {
		return w.connect(ctx)
	}
	bounded, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := w.connect(bounded)
	if err != nil && bounded.Err() != nil && ctx.Err() == nil {
		return fmt.Errorf("%w: %w", errGaveUp, err)
	}
	return err
}

// connect opens a stream on the present connection.
func (w *remoteWatch) connect(ctx context.Context) error {
	c := w.k.c
	cn, err := c.await(ctx)
	if err != nil {
		return err
	}
	var opts WatchOptions
	opts, w.pending = w.view.reopen(w.pending)
	s, err := cn.open(ctx, &wire.Request{
		Type: wire.Watch, Keyspace: w.k.name, Key: w.prefix, After: string(opts.From),
		Flags: flag(opts.UpdatesOnly, wire.UpdatesOnly) | flag(opts.Exact, wire.Exact), Limit: uint64(c.opts.WatchBuffer),
	})
	if err == nil {
		if err = s.awaitOpened(ctx, w.closed); err != nil {
			s.close()
		}
	}
	if err != nil {
		if errors.Is(err, errNotSent) || errors.Is(err, errLost) {
			c.discard(cn)
			if c.isClosed() {
				err = ErrClosed
			}
		}
		return err
	}
	w.view.accepted()
	w.mu.Lock()
	defer w.mu.Unlock()
	select {
	case <-w.closed:
		s.close()
		return ErrClosed
	default:
	}
	w.stream = s
	w.resumed()
	return nil
}

// Close implements Watch.
func (w *remoteWatch) Close() error {
	w.once.Do(func() {
		close(w.closed)
		w.mu.Lock()
		s := w.stream
		w.stream = nil
		w.mu.Unlock()
		if s != nil {
			s.close()
		}
	})
	return nil
}
