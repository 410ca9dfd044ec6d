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
	defaultSessionTTL = 15 * time.Second
	// The wall clock is looked at this often, beside every use of the session: timers
	// stand still while a machine is suspended.
	minSessionCheck, maxSessionCheck = 100 * time.Millisecond, time.Second
)

// A moment is one instant by both clocks: the monotonic one, which may stand still
// while the machine is suspended, and the wall clock, which may be set.
type moment struct {
	mono time.Duration
	wall time.Time
}

func sinceNow() func() moment {
	start := time.Now()
	return func() moment {
		t := time.Now()
		return moment{t.Sub(start), t.Round(0)}
	}
}

func (m moment) add(d time.Duration) moment { return moment{m.mono + d, m.wall.Add(d)} }

// until is the time from m to n by the clock that says less.
func (m moment) until(n moment) time.Duration { return min(n.mono-m.mono, n.wall.Sub(m.wall)) }

// A session is kept alive from its grant until it is lost, closed or not acknowledged in
// time. The server counts its TTL from when it hears of the owner, which is after the
// owner has sent; so it lives at the server at least until the deadline here.
type session struct {
	s    *strongHandle
	id   SessionID
	ttl  time.Duration
	lost chan struct{}
	stop context.CancelFunc // ends the keep-alives

	mu       sync.Mutex // protects the fields below
	deadline moment
	over     bool                   // lost is closed
	timer    *time.Timer            // looks whether the deadline has passed
	attached map[*attached]struct{} // what ends with the session
	closing  *settlement            // of Close
}

// attached is a function that is called, once, when a session is lost.
type attached struct{ f func() }

var _ Session = (*session)(nil)

// NewSession implements Strong.
func (s *strongHandle) NewSession(ctx context.Context, o *SessionOptions) (Session, error) {
	ttl := defaultSessionTTL
	if o != nil && o.TTL != 0 {
		ttl = o.TTL
	}
	x, err := s.newSession(ctx, ttl)
	if err != nil {
		return nil, err
	}
	return x, nil
}

func (s *strongHandle) newSession(ctx context.Context, ttl time.Duration) (*session, error) {
	if err := checkTTL(ttl); err != nil {
		return nil, err
	}
	sent := s.now()
	reply, err := s.call(ctx, &StrongCall{Kind: CallGrant, TTL: ttl.Milliseconds()})
	if err != nil {
		return nil, fmt.Errorf("begin a session: %w", err)
	}
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	x := &session{
		s: s, id: reply.Session, ttl: time.Duration(reply.TTL) * time.Millisecond, lost: make(chan struct{}), stop: stop,
		attached: make(map[*attached]struct{}),
	}
	if x.ttl <= 0 || x.ttl > ttl {
		x.ttl = ttl
	}
	x.deadline = sent.add(x.safe())
	s.mu.Lock()
	switch {
	case s.isClosed:
		err = ErrClosed
	case len(s.sessions) >= maxSessions:
		err = fmt.Errorf("%w: a handle keeps at most %d sessions alive; let locks share one", ErrOverloaded, maxSessions)
	default:
		s.sessions[x] = struct{}{}
		s.working.Go(func() { x.keepAlive(life, sent) })
	}
	s.mu.Unlock()
	if err != nil {
		stop()
		x.over = true // and nobody but the server's clock ends it
		return nil, err
	}
	x.mu.Lock()
	if !x.over {
		x.timer = time.AfterFunc(x.nextCheck(s.now()), func() { x.check() })
	}
	x.mu.Unlock()
	if x.check() {
		return nil, fmt.Errorf("%w: it took longer than its TTL to begin it", ErrSessionLost)
	}
	return x, nil
}

// safe is how long after a sign of its owner the session is trusted: a thousandth less
// than the TTL, since no two clocks run alike.
func (x *session) safe() time.Duration { return x.ttl - x.ttl/1000 }

// ID implements Session.
func (x *session) ID() SessionID { return x.id }

// TTL implements Session.
func (x *session) TTL() time.Duration { return x.ttl }

// Lost implements Session.
func (x *session) Lost() <-chan struct{} {
	x.check()
	return x.lost
}

// nextCheck is when to look at the clocks again; x.mu is held.
func (x *session) nextCheck(now moment) time.Duration {
	return max(min(now.until(x.deadline), max(x.ttl/10, minSessionCheck), maxSessionCheck), 0)
}

// check declares the session lost if its time is over, and reports whether it is.
func (x *session) check() (over bool) {
	now := x.s.now()
	x.mu.Lock()
	over = x.over
	late := now.until(x.deadline) <= 0
	if !over && !late && x.timer != nil {
		x.timer.Reset(x.nextCheck(now))
	}
	x.mu.Unlock()
	if !over && late {
		x.lose()
	}
	return over || late
}

// extend notes that the server has heard what was sent then.
func (x *session) extend(sent moment) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.deadline = sent.add(x.safe())
}

// lose declares the session lost. Only the first call does something.
func (x *session) lose() {
	x.mu.Lock()
	if x.over {
		x.mu.Unlock()
		return
	}
	x.over = true
	close(x.lost)
	if x.timer != nil {
		x.timer.Stop()
	}
	all := x.attached
	x.attached = nil
	x.mu.Unlock()
	x.stop()
	x.s.mu.Lock()
	delete(x.s.sessions, x)
	x.s.mu.Unlock()
	for a := range all {
		a.f()
	}
}

// attach makes f be called when the session is lost; nil if it is already.
func (x *session) attach(f func()) *attached {
	if x.check() {
		return nil
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.over {
		return nil
	}
	a := &attached{f}
	x.attached[a] = struct{}{}
	return a
}

func (x *session) detach(a *attached) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.attached, a)
}

// keepAlive tells the server of the owner at a third of the TTL, and after a failure
// again until ctx ends, which is when the session is lost.
func (x *session) keepAlive(ctx context.Context, sent moment) {
	defer x.stop()
	next := x.ttl/3 - (x.s.now().mono - sent.mono)
	var backoff time.Duration
	for pause(ctx, max(next, 0)) == nil {
		sent := x.s.now()
		attempt, cancel := context.WithTimeout(ctx, x.ttl/3)
		_, err := x.s.caller.StrongCall(attempt, x.s.Name(), &StrongCall{Kind: CallKeepAlive, Session: x.id})
		cancel()
		switch {
		case err == nil:
			x.extend(sent)
			backoff, next = 0, x.ttl/3-(x.s.now().mono-sent.mono)
		case errors.Is(err, ErrSessionLost), errors.Is(err, ErrNotFound), errors.Is(err, ErrClosed):
			x.lose()
			return
		default:
			backoff = min(max(2*backoff, 20*time.Millisecond), x.ttl/10)
			next = backoff/2 + rand.N(backoff/2)
		}
	}
}

// Close implements Session.
func (x *session) Close(ctx context.Context) error {
	x.mu.Lock()
	if x.closing == nil {
		if x.over {
			x.mu.Unlock()
			return nil // the server ends it, if it has not
		}
		x.closing = newSettlement()
		deadline := x.deadline
		p := x.closing
		if !x.s.background(func() { x.end(p, deadline) }) {
			p.settle(ErrClosed)
		}
	}
	p := x.closing
	x.mu.Unlock()
	x.lose()
	return p.await(ctx)
}

// end revokes the session, as long as it may still live.
func (x *session) end(p *settlement, deadline moment) {
	ctx, cancel := context.WithTimeout(context.Background(), max(x.s.now().until(deadline), time.Millisecond))
	defer cancel()
	_, err := x.s.call(ctx, &StrongCall{Kind: CallRevoke, Session: x.id})
	if errors.Is(err, ErrSessionLost) {
		err = nil
	}
	p.settle(err)
}

// revoke ends the session when the handle is closed: one attempt, within ctx.
func (x *session) revoke(ctx context.Context) error {
	x.lose()
	_, err := x.s.caller.StrongCall(ctx, x.s.Name(), &StrongCall{Kind: CallRevoke, Session: x.id})
	if errors.Is(err, ErrSessionLost) {
		return nil
	}
	return err
}

// sharedSession is the default session of the handle, a new one if there is none that
// lives.
func (s *strongHandle) sharedSession(ctx context.Context) (*session, error) {
	var x *session
	select {
	case x = <-s.shared:
	case <-ctx.Done():
		return nil, ended(ctx.Err())
	}
	defer func() { s.shared <- x }()
	if x != nil && !x.check() {
		return x, nil
	}
	fresh, err := s.newSession(ctx, defaultSessionTTL)
	if err == nil {
		x = fresh
	}
	return fresh, err
}

// A settlement is the outcome of something that goes on in the background.
type settlement struct {
	done chan struct{}
	err  error // once done is closed
}

func newSettlement() *settlement { return &settlement{done: make(chan struct{})} }

func (p *settlement) settle(err error) {
	p.err = err
	close(p.done)
}

// await is the outcome, unknown if ctx ends before there is one.
func (p *settlement) await(ctx context.Context) error {
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
	}
	select {
	case <-p.done:
		return p.err
	default:
		return fmt.Errorf("%w: it goes on: %w", ErrUnknownOutcome, ended(ctx.Err()))
	}
}
