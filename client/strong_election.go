package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

const (
	// observeWait is how long one question of an Observer waits for a change. Its answer
	// is what tells that there is a majority, so it is short.
	observeWait = time.Second
	// observePatience is for how long an Observer believes what it knew.
	observePatience = 2 * time.Second
)

// Campaign implements Strong. An election is an exclusive lock with a value.
func (s *strongHandle) Campaign(ctx context.Context, name string, value []byte, o *LockOptions) (Leadership, error) {
	opts := LockOptions{}
	if o != nil {
		opts = *o
	}
	opts.Value = value
	h, err := s.acquire(ctx, &StrongCall{Name: name, Mode: Exclusive}, &opts)
	if err != nil {
		return nil, err
	}
	return leadership{h}, nil
}

type leadership struct{ *heldLock }

// Proclaim implements Leadership. ErrNotHeld when it was lost.
func (l leadership) Proclaim(ctx context.Context, value []byte) error {
	if len(value) > maxStrongValue {
		return fmt.Errorf("%w: a value of %d bytes, at most %d", ErrTooLarge, len(value), maxStrongValue)
	}
	select {
	case <-l.Lost():
		return fmt.Errorf("%w: the leadership was lost or given up", ErrNotHeld)
	default:
	}
	_, err := l.s.call(ctx, &StrongCall{Kind: CallProclaim, Name: l.name, Token: l.token, Value: value})
	if errors.Is(err, ErrNotHeld) {
		l.lose()
	}
	return err
}

// Observe implements Strong. It asks nothing yet.
func (s *strongHandle) Observe(_ context.Context, name string) (Observer, error) {
	if err := checkStrongName("election", name); err != nil {
		return nil, err
	}
	return &observer{s: s, name: name}, nil
}

// An observer asks as long as somebody waits for the answer, and has no goroutine.
type observer struct {
	s    *strongHandle
	name string

	mu     sync.Mutex // protects the fields below
	closed bool
	cancel context.CancelCauseFunc // of the Next that waits, or nil

	// Owned by the one that calls Next.
	told     bool // there was a Next
	last     Leader
	revision uint64        // of what is known
	doubted  bool          // no majority has answered since asked
	asked    time.Duration // by the monotonic clock
}

// Next implements Observer.
func (w *observer) Next(ctx context.Context) (Leader, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return Leader{}, ErrClosed
	}
	w.cancel = cancel
	w.mu.Unlock()
	for {
		if err := ctx.Err(); err != nil {
			if errors.Is(context.Cause(ctx), ErrClosed) {
				return Leader{}, ErrClosed
			}
			return Leader{}, ended(err)
		}
		began := w.s.now().mono
		leader, known, err := w.ask(ctx)
		switch {
		case known:
			w.doubted = false
			if !w.told || !leader.equal(&w.last) {
				w.told, w.last = true, leader
				return leader, nil
			}
			if w.s.now().mono-began < lockPause { // the server did not wait, or only the queue changed
				_ = w.s.pause(ctx, lockPause) // its end is seen above
			}
			continue
		case ctx.Err() != nil:
			continue
		case err != nil && !passing(err) && !errors.Is(err, ErrTimeout) && !errors.Is(err, ErrUnknownOutcome):
			return Leader{}, err
		}
		if w.s.now().mono-w.asked >= observePatience && (!w.told || w.last.Known) {
			w.told, w.last.Known = true, false
			return w.last, nil
		}
		select {
		case <-w.s.closed:
			return Leader{}, ErrClosed
		default:
		}
		_ = w.s.pause(ctx, maxStrongPause/4+rand.N(maxStrongPause/4)) // its end is seen above
	}
}

// ask asks once who leads; known says that a majority has answered.
func (w *observer) ask(ctx context.Context) (leader Leader, known bool, err error) {
	now := w.s.now().mono
	again := w.doubted // and at once, to know soon
	if !again {
		w.doubted, w.asked = true, now
	}
	c := &StrongCall{Kind: CallLockInfo, Name: w.name}
	if w.told && w.last.Known && !again {
		wait := observeWait
		if deadline, ok := ctx.Deadline(); ok { // it is to answer before, or it would be doubted for nothing
			wait = min(wait, time.Until(deadline)/2)
		}
		c.Revision, c.Wait = w.revision, max(wait, 0).Milliseconds()
	}
	left := max(observePatience-(now-w.asked), observeWait)
	attempt, cancel := context.WithTimeout(ctx, left)
	defer cancel()
	reply, err := w.s.caller.StrongCall(attempt, w.s.Name(), c)
	if err != nil {
		if attempt.Err() != nil {
			err = ended(attempt.Err())
		}
		return Leader{}, false, err
	}
	if !reply.Known {
		return Leader{}, false, nil
	}
	w.revision = reply.Revision
	leader.Known = true
	for i := range reply.Holders {
		if h := &reply.Holders[i]; h.Mode == Exclusive && !h.Delayed {
			leader.Elected, leader.Value, leader.Token, leader.Session = true, h.Value, h.Token, h.Session
			break
		}
	}
	return leader, true, nil
}

func (l *Leader) equal(m *Leader) bool {
	return l.Known == m.Known && l.Elected == m.Elected && l.Token == m.Token && l.Session == m.Session && bytes.Equal(l.Value, m.Value)
}

// Close implements Observer.
func (w *observer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	if w.cancel != nil {
		w.cancel(ErrClosed)
	}
	return nil
}
