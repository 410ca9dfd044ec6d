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
	// strongTimeout bounds a call whose context has no deadline, beside its Wait.
	strongTimeout = 10 * time.Second
	// attemptTimeout bounds one attempt of a call, beside its Wait: the node or the
	// leader that took it may have stopped to answer.
	attemptTimeout = 5 * time.Second
	// maxSessions bounds the sessions that a handle keeps alive.
	maxSessions = 4096

	minStrongPause = 5 * time.Millisecond // between two attempts, doubled each time
	maxStrongPause = 500 * time.Millisecond
)

// A StrongHandle is a Strong and what whoever made it must do in the end.
type StrongHandle interface {
	Strong
	// Close ends all sessions of the handle, those of locks included, and returns once
	// they are ended or ctx is. Calls of the handle fail with ErrClosed afterwards. It
	// may be called twice.
	Close(ctx context.Context) error
}

// NewStrong makes a Strong of the keyspace ks out of the primitive calls. What ks offers
// is passed on. A keyspace should have one handle for a caller: its default session is
// that of the handle.
func NewStrong(caller StrongCaller, ks Keyspace) StrongHandle {
	return newStrong(caller, ks, sinceNow())
}

// A strongHandle implements Strong over a StrongCaller. It repeats calls that were not
// carried out, and those of which that is not known under their Request, within the time
// of the caller.
type strongHandle struct {
	Keyspace
	caller   StrongCaller
	now      func() moment
	requests requests
	shared   chan *session // holds the default session, or nil, while nobody looks at it
	closed   chan struct{}
	working  sync.WaitGroup // keep-alives, and what is given up in the background

	mu       sync.Mutex            // protects the fields below
	sessions map[*session]struct{} // that are kept alive
	isClosed bool                  // closed is
}

func newStrong(caller StrongCaller, ks Keyspace, now func() moment) *strongHandle {
	s := &strongHandle{
		Keyspace: ks, caller: caller, now: now,
		shared: make(chan *session, 1), closed: make(chan struct{}), sessions: make(map[*session]struct{}),
	}
	s.shared <- nil
	return s
}

// background runs f and makes Close wait for it; false if the handle is closed.
func (s *strongHandle) background(f func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.isClosed {
		return false
	}
	s.working.Go(f)
	return true
}

// Close implements StrongHandle.
func (s *strongHandle) Close(ctx context.Context) error {
	s.mu.Lock()
	if !s.isClosed {
		s.isClosed = true
		close(s.closed)
	}
	sessions := s.sessions
	s.sessions = nil
	s.mu.Unlock()
	var wg sync.WaitGroup
	places := make(chan struct{}, 64) // revocations at a time
	errs := make(chan error, len(sessions))
	for x := range sessions {
		places <- struct{}{}
		wg.Go(func() {
			errs <- x.revoke(ctx)
			<-places
		})
	}
	wg.Wait()
	close(errs)
	s.working.Wait() // closed and the loss of the sessions end it
	var all []error
	for err := range errs {
		all = append(all, err)
	}
	return errors.Join(all...)
}

// named reports whether a call carries a Request, so that it takes effect once. A claim
// is idempotent by itself, and a repetition must learn of a grant meanwhile.
func (c *StrongCall) named() bool {
	switch c.Kind {
	case CallAcquire, CallKeepAlive, CallCompact:
		return false
	}
	return c.Changes()
}

// call carries out c under a Request of its own.
func (s *strongHandle) call(ctx context.Context, c *StrongCall) (StrongReply, error) {
	if c.named() {
		r := s.requests.begin()
		defer s.requests.end(r)
		c.Request = r.text()
	}
	return s.repeat(ctx, c)
}

// repeat carries out c, again after what passes, until ctx ends. The outcome is unknown
// only if it was when that happened.
func (s *strongHandle) repeat(ctx context.Context, c *StrongCall) (StrongReply, error) {
	wait := time.Duration(c.Wait) * time.Millisecond
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, strongTimeout+wait)
		defer cancel()
	}
	if err := ctx.Err(); err != nil {
		return StrongReply{}, ended(err)
	}
	changes := c.Changes()
	var open error // of an attempt of which it is not known whether it took effect
	for backoff := minStrongPause; ; backoff = min(2*backoff, maxStrongPause) {
		select {
		case <-s.closed:
			return StrongReply{}, unsettled(open, ErrClosed)
		default:
		}
		attempt, cancel := context.WithTimeout(ctx, attemptTimeout+wait)
		reply, err := s.caller.StrongCall(attempt, s.Name(), c)
		cancel()
		if err == nil {
			return reply, nil
		}
		late := errors.Is(err, ErrTimeout) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
		unknown := errors.Is(err, ErrUnknownOutcome) || changes && late
		switch {
		case unknown:
			open = err
		case late, passing(err):
		case settles(err):
			return StrongReply{}, err
		default:
			return StrongReply{}, unsettled(open, err)
		}
		if s.pause(ctx, backoff/2+rand.N(backoff/2)) != nil {
			if late && !unknown {
				err = ended(err)
			}
			return StrongReply{}, unsettled(open, err)
		}
	}
}

// pause waits, until the handle is closed at most. Only the end of ctx is an error.
func (s *strongHandle) pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return ctx.Err()
	case <-s.closed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// passing reports whether a call that ended with err was not carried out and may succeed
// later.
func passing(err error) bool {
	for _, target := range [...]error{ErrUnavailable, ErrNoQuorum, ErrOverloaded, ErrDraining, ErrJoining} {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

// settles reports whether err is the keyspace's answer to a request, whichever attempt
// it took effect with.
func settles(err error) bool {
	for _, target := range [...]error{
		ErrConflict, ErrSessionLost, ErrNotHeld, ErrCompacted, ErrFutureRevision, ErrPoolExhausted, ErrBadRequest, ErrTooLarge, ErrNotFound,
	} {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

// unsettled is the error of a call that ended with err after an attempt that ended with
// open, unless that is nil.
func unsettled(open, err error) error {
	switch {
	case open == nil:
		return err
	case errors.Is(open, ErrUnknownOutcome):
		return open
	}
	return fmt.Errorf("%w: %w", ErrUnknownOutcome, open)
}

// Txn implements Strong.
func (s *strongHandle) Txn(ctx context.Context, txn *Txn) (TxnResult, error) {
	if txn == nil {
		return TxnResult{}, fmt.Errorf("%w: no transaction", ErrBadRequest)
	}
	if err := txn.Check(); err != nil {
		return TxnResult{}, err
	}
	reply, err := s.call(ctx, &StrongCall{Kind: CallTxn, Txn: txn})
	return reply.Txn, err
}

// LockInfo implements Strong.
func (s *strongHandle) LockInfo(ctx context.Context, name string) (LockInfo, error) {
	if err := checkStrongName("lock", name); err != nil {
		return LockInfo{}, err
	}
	reply, err := s.call(ctx, &StrongCall{Kind: CallLockInfo, Name: name})
	if err != nil {
		return LockInfo{}, err
	}
	return LockInfo{Name: name, Holders: reply.Holders, Waiting: reply.Waiting, Revision: reply.Revision}, nil
}
