package calls

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"
)

// A link is one connection of a client, from before it is open until after its end.
type link struct {
	*sender
	opt   *Options
	spare *sync.Pool // of *call: the client's

	// Protected by the sender's mutex.
	last    uint64           // number of the last call
	pending map[uint64]*call // those that wait; sender.open is their number
	proved  bool             // a frame came
}

// A call waits for its answer. Whoever takes it out of pending, under the mutex, gives it
// the result.
type call struct {
	done   chan struct{}                  // holds one
	finish func(answer []byte, err error) // called instead, if it is set
	at     uint64                         // where its frame begins in all that was queued
	answer []byte
	err    error
}

func newLink(o *Options, spare *sync.Pool) *link {
	return &link{sender: newSender(o.Silence), opt: o, spare: spare, pending: make(map[uint64]*call)}
}

// do is one call.
func (l *link) do(ctx context.Context, group string, kind Kind, body []byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, notSent(err)
	}
	timeout := time.Duration(0)
	if deadline, ok := ctx.Deadline(); ok {
		timeout = max(time.Until(deadline), 1)
	}
	id, w, err := l.send(nil, timeout, group, kind, body)
	if err != nil {
		return nil, err
	}
	select {
	case <-w.done:
	case <-ctx.Done():
		if err := l.withdraw(id, w); err != nil {
			l.recycle(w)
			return nil, fmt.Errorf("%w: %w", err, context.Cause(ctx))
		}
		<-w.done // the answer was first
	}
	answer, err := w.answer, w.err
	l.recycle(w)
	return answer, err
}

// send queues a call. timeout 0 is none.
func (l *link) send(finish func([]byte, error), timeout time.Duration, group string, kind Kind, body []byte) (uint64, *call, error) {
	l.mu.Lock()
	if l.err != nil {
		err := l.err
		l.mu.Unlock()
		return 0, nil, notSent(err)
	}
	if len(l.pending) >= l.opt.MaxCalls || len(l.buf) >= l.opt.MaxBytes {
		l.mu.Unlock()
		return 0, nil, ErrOverloaded
	}
	w := l.spare.Get().(*call)
	l.last++
	w.at, w.finish = l.taken+uint64(len(l.buf)), finish
	l.buf = appendRequest(l.buf, l.last, timeout, group, kind, body)
	id := l.last
	l.pending[id] = w
	l.opened()
	l.unlock(len(l.pending) == 1)
	return id, w, nil
}

// recycle makes a call that nobody else refers to any more available to others.
func (l *link) recycle(w *call) {
	*w = call{done: w.done}
	l.spare.Put(w)
}

// withdraw takes back a call: what was not written yet becomes void, otherwise the other
// end is told. It returns ErrNotSent or ErrLost, or nil if the call has its result.
func (l *link) withdraw(id uint64, w *call) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.pending[id] != w {
		return nil
	}
	l.remove(id)
	if w.at >= l.taken {
		l.buf[w.at-l.taken+lengthBytes] = byte(frameVoid)
		return ErrNotSent
	}
	// At most one for each call in flight when the buffer was taken.
	l.buf = appendHead(l.buf, 0, frameCancel, id)
	signal(l.wake)
	return ErrLost
}

// remove takes a call off the list. The caller holds the mutex.
func (l *link) remove(id uint64) {
	delete(l.pending, id)
	l.open--
}

// run opens the connection and carries calls until it ends, which gives the reason.
func (l *link) run(ctx context.Context, dial func(ctx context.Context) (net.Conn, error)) error {
	conn, err := l.connect(ctx, dial)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	defer func() { _ = conn.Close() }()
	defer wg.Wait()
	defer cancel(nil)
	// Whoever learns of the end first closes the connection, which tells the others.
	context.AfterFunc(ctx, func() {
		l.end(context.Cause(ctx))
		_ = conn.Close()
	})
	wg.Go(func() { cancel(l.write(conn)) })
	wg.Go(func() {
		if err := l.look(ctx); err != nil {
			cancel(err)
		}
	})
	cancel(l.read(conn))
	return context.Cause(ctx)
}

func (l *link) connect(ctx context.Context, dial func(ctx context.Context) (net.Conn, error)) (net.Conn, error) {
	dialing, cancel := context.WithTimeout(ctx, l.opt.DialTimeout)
	defer cancel()
	conn, err := dial(dialing)
	if ctx.Err() != nil {
		if err == nil {
			_ = conn.Close()
		}
		return nil, context.Cause(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("dial: %w", err)
	}
	stop := context.AfterFunc(dialing, func() { _ = conn.Close() })
	if err := greet(conn, true, l.opt.ClusterID(), l.opt.DialTimeout); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("greeting: %w", err)
	}
	if !stop() {
		return nil, fmt.Errorf("greeting: %w", context.Cause(dialing))
	}
	return conn, nil
}

// read gives calls their results until an error, which it returns.
func (l *link) read(conn net.Conn) error {
	in := newFrameReader(heardConn{conn, l.sender})
	for {
		f, owned, err := in.next()
		if err != nil {
			return err
		}
		switch f.kind {
		case framePing:
			l.answerPing()
			continue
		case framePong:
			continue
		case frameAnswer, frameRefusal, frameFailure, frameOverload:
		default:
			return ErrMalformed
		}
		l.mu.Lock()
		issued := f.call <= l.last
		w := l.pending[f.call]
		if w != nil {
			l.remove(f.call)
			l.proved = true
		}
		l.mu.Unlock()
		if !issued {
			return ErrMalformed
		}
		switch {
		case w == nil: // it was withdrawn
		case w.finish != nil:
			finish := w.finish
			l.recycle(w)
			finish(result(f, true)) // it keeps nothing
		default:
			w.answer, w.err = result(f, owned)
			w.done <- struct{}{}
		}
	}
}

func result(f frame, owned bool) ([]byte, error) {
	switch f.kind {
	case frameRefusal:
		return nil, &Refusal{Code: f.code, Detail: string(f.body)}
	case frameFailure:
		return nil, fmt.Errorf("%w: %s", ErrLost, f.body)
	case frameOverload:
		return nil, ErrOverloaded
	}
	if owned {
		return f.body, nil
	}
	return append([]byte(nil), f.body...), nil
}

// worked reports whether an answer came.
func (l *link) worked() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.proved
}

// fail ends all calls, when nothing is written any more.
func (l *link) fail(why error) {
	l.mu.Lock()
	l.stop(why)
	var started []*call
	for id, w := range l.pending {
		l.remove(id)
		if w.at >= l.taken {
			w.err = notSent(why)
		} else {
			w.err = lost(why)
		}
		if w.finish != nil {
			started = append(started, w)
			continue
		}
		w.done <- struct{}{} // has room
	}
	l.mu.Unlock()
	slices.SortFunc(started, func(a, b *call) int { return cmp.Compare(a.at, b.at) })
	for _, w := range started {
		w.finish(nil, w.err)
	}
}
