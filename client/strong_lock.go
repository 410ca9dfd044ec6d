package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

const (
	// lockWait is how long one call waits at the server for a lock. Each is a command.
	lockWait = 30 * time.Second
	// lockMargin is left of the caller's time for the answer to come back.
	lockMargin = 50 * time.Millisecond
	// lockPause is between two questions where the server does not wait, doubled each
	// time up to maxLockPause.
	lockPause, maxLockPause = 100 * time.Millisecond, 2 * time.Second
	// abortPatience is how long a call that gives up waits until its claim is taken
	// back; that goes on in the background.
	abortPatience = 500 * time.Millisecond
)

// Lock implements Strong.
func (s *strongHandle) Lock(ctx context.Context, name string, o *LockOptions) (Held, error) {
	return held(s.acquire(ctx, &StrongCall{Name: name, Mode: Exclusive}, o))
}

// TryLock implements Strong.
func (s *strongHandle) TryLock(ctx context.Context, name string, o *LockOptions) (Held, error) {
	return held(s.acquire(ctx, &StrongCall{Name: name, Mode: Exclusive, Try: true}, o))
}

// RLock implements Strong.
func (s *strongHandle) RLock(ctx context.Context, name string, o *LockOptions) (Held, error) {
	return held(s.acquire(ctx, &StrongCall{Name: name, Mode: Shared}, o))
}

// Semaphore implements Strong.
func (s *strongHandle) Semaphore(ctx context.Context, name string, places int, o *LockOptions) (Held, error) {
	if places < 1 {
		return nil, fmt.Errorf("%w: a semaphore has at least one place, not %d", ErrBadRequest, places)
	}
	return held(s.acquire(ctx, &StrongCall{Name: name, Mode: Place, Places: uint64(places)}, o))
}

// held keeps a nil pointer from becoming a Held that is not nil.
func held(h *heldLock, err error) (Held, error) {
	if err != nil {
		return nil, err
	}
	return h, nil
}

// lockSession is the session that o asks for, and whether it was made for the lock alone.
func (s *strongHandle) lockSession(ctx context.Context, o *LockOptions) (x *session, own bool, err error) {
	switch {
	case o.Session != nil && o.TTL != 0:
		return nil, false, fmt.Errorf("%w: a lock has either a Session or a TTL for one of its own", ErrBadRequest)
	case o.Session != nil:
		x, ok := o.Session.(*session)
		if !ok || x.s.Name() != s.Name() {
			return nil, false, fmt.Errorf("%w: the session is not one of keyspace %s; make it with NewSession of the same keyspace", ErrBadRequest, s.Name())
		}
		return x, false, nil
	case o.TTL != 0:
		x, err := s.newSession(ctx, o.TTL)
		return x, true, err
	}
	x, err = s.sharedSession(ctx)
	return x, false, err
}

// acquire claims a lock and waits for it until ctx ends or the session is lost. Without
// success nothing is left behind: the claim is taken back, with what it may have been
// granted meanwhile, or ends with its session.
func (s *strongHandle) acquire(ctx context.Context, claim *StrongCall, o *LockOptions) (*heldLock, error) {
	if o == nil {
		o = &LockOptions{}
	}
	if err := checkStrongName("lock", claim.Name); err != nil {
		return nil, err
	}
	if len(o.Value) > maxStrongValue {
		return nil, fmt.Errorf("%w: a value of %d bytes, at most %d", ErrTooLarge, len(o.Value), maxStrongValue)
	}
	if o.Delay < 0 || o.Delay > MaxSessionTTL {
		return nil, fmt.Errorf("%w: the delay of a lock is from 0 to %s, not %s", ErrBadRequest, MaxSessionTTL, o.Delay)
	}
	x, own, err := s.lockSession(ctx, o)
	if err != nil {
		return nil, err
	}
	claim.Kind, claim.Session, claim.Value = CallAcquire, x.id, o.Value
	claim.Delay = (o.Delay + time.Millisecond - 1).Milliseconds()
	claim.Claim = rand.Uint64() // handles of one session do not know each other's
	h := &heldLock{s: s, x: x, own: own, name: claim.Name, lost: make(chan struct{})}
	token, placed, err := s.awaitGrant(ctx, x, claim)
	if err == nil {
		h.token = token
		h.mu.Lock()
		h.attached = x.attach(h.lose)
		if h.attached == nil {
			err = ErrSessionLost
		}
		h.mu.Unlock()
	}
	switch {
	case err == nil:
		return h, nil
	case own:
		settleSoon(ctx, func(ctx context.Context) error { return x.Close(ctx) })
	case placed:
		p := s.giveUp(x, &StrongCall{Kind: CallAbort, Name: claim.Name, Session: x.id, Claim: claim.Claim})
		settleSoon(ctx, p.await)
	}
	return nil, err
}

// settleSoon gives what goes on in the background some time, so that what follows meets
// no remains.
func settleSoon(ctx context.Context, await func(context.Context) error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortPatience)
	defer cancel()
	_ = await(ctx) // it goes on without us
}

// awaitGrant makes the claim until it is granted. placed says that the claim may be in
// the queue, or granted.
func (s *strongHandle) awaitGrant(ctx context.Context, x *session, claim *StrongCall) (token FencingToken, placed bool, err error) {
	waiting, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	a := x.attach(func() { cancel(ErrSessionLost) })
	if a == nil {
		return 0, false, ErrSessionLost
	}
	defer x.detach(a)
	for backoff := lockPause; ; {
		wait := lockWait
		if deadline, ok := ctx.Deadline(); ok {
			wait = min(wait, time.Until(deadline)-lockMargin)
		}
		if claim.Try {
			wait = 0
		}
		claim.Wait = max(wait, 0).Milliseconds()
		asked := s.now()
		reply, err := s.call(waiting, claim)
		switch {
		case errors.Is(context.Cause(waiting), ErrSessionLost), errors.Is(err, ErrSessionLost):
			x.lose()
			return 0, true, fmt.Errorf("lock: %w", ErrSessionLost)
		case err == nil && reply.Token != 0:
			return reply.Token, true, nil
		case err == nil:
			placed = true
			if took := s.now().mono - asked.mono; took < wait/2 || wait <= 0 {
				pause := backoff/2 + rand.N(backoff/2)
				backoff = min(2*backoff, maxLockPause)
				if s.pause(waiting, pause) == nil {
					continue
				}
			}
			if ctx.Err() != nil {
				return 0, true, fmt.Errorf("lock: %w", ended(ctx.Err()))
			}
		case ctx.Err() != nil && errors.Is(err, ErrUnknownOutcome):
			return 0, true, fmt.Errorf("lock: %w", ended(ctx.Err())) // the claim is taken back: there is nothing unknown
		default:
			return 0, placed || errors.Is(err, ErrUnknownOutcome), err
		}
	}
}

// giveUp makes a call in the background that gives something of the session up, until it
// has an answer, or the session, and with it all that there was, has ended.
func (s *strongHandle) giveUp(x *session, c *StrongCall) *settlement {
	p := newSettlement()
	work := func() {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		a := x.attach(cancel)
		if a == nil {
			p.settle(ErrSessionLost)
			return
		}
		defer x.detach(a)
		r := s.requests.begin()
		defer s.requests.end(r)
		c.Request = r.text()
		for {
			_, err := s.repeat(ctx, c)
			switch {
			case err == nil, settles(err), errors.Is(err, ErrClosed):
				p.settle(err)
				return
			case ctx.Err() != nil:
				p.settle(ErrSessionLost)
				return
			}
			if s.pause(ctx, maxStrongPause) != nil {
				p.settle(ErrSessionLost)
				return
			}
		}
	}
	if !s.background(work) {
		p.settle(ErrClosed)
	}
	return p
}

// A heldLock implements Held.
type heldLock struct {
	s     *strongHandle
	x     *session
	own   bool // the session is the lock's alone
	name  string
	token FencingToken
	lost  chan struct{}

	mu       sync.Mutex // protects the fields below
	attached *attached  // to the session
	over     bool       // lost is closed
	given    bool       // Unlock was called
	giving   *settlement
}

// Token implements Held.
func (h *heldLock) Token() FencingToken { return h.token }

// Session implements Held.
func (h *heldLock) Session() SessionID { return h.x.id }

// Lost implements Held.
func (h *heldLock) Lost() <-chan struct{} {
	h.check()
	return h.lost
}

// check declares the lock lost if its session is. It does not wait for its turn among all
// that is attached to the session: who looks must be told, however late the others are.
func (h *heldLock) check() {
	if h.x.check() {
		h.lose()
	}
}

func (h *heldLock) lose() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.over {
		h.over = true
		close(h.lost)
	}
}

// Unlock implements Held. An Unlock that has begun goes on when ctx ends.
func (h *heldLock) Unlock(ctx context.Context) error {
	h.check()
	h.mu.Lock()
	first := !h.given
	if first && h.over {
		h.mu.Unlock()
		return ErrSessionLost
	}
	h.given = true
	if first && !h.own {
		h.giving = h.s.giveUp(h.x, &StrongCall{Kind: CallRelease, Name: h.name, Token: h.token})
	}
	p, a := h.giving, h.attached
	h.mu.Unlock()
	h.lose()
	if h.own {
		return h.x.Close(ctx)
	}
	h.x.detach(a)
	err := p.await(ctx)
	if errors.Is(err, ErrNotHeld) {
		return fmt.Errorf("%w: the lock was not held any more", ErrSessionLost)
	}
	return err
}
