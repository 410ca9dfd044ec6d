package heartbeat

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Errors of heartbeats. Match with errors.Is.
var (
	// ErrUnanswered: the replica there gave no answer, or there is none.
	ErrUnanswered = errors.New("heartbeat was not answered")
	// ErrClosed: the line or the coalescer is closed.
	ErrClosed = errors.New("heartbeats are closed")
	// ErrTaken: the group has a line already.
	ErrTaken = errors.New("group has its heartbeats already")
	// ErrName: names of groups have 1 to 255 bytes.
	ErrName = errors.New("invalid name of a group")
)

// A Caller makes a call to a node: what Coalescer.Serve returns there for body, or an
// error. It keeps no body.
type Caller func(ctx context.Context, node string, body []byte) ([]byte, error)

// Options of a Coalescer; nil and zero are the defaults.
type Options struct {
	// Window is the time between two messages to a node. It must be short beside an
	// election timeout. Default 150 ms.
	Window time.Duration
	// Hold is how long Send keeps an answer to itself, at least; at most it is a window
	// more. With the 100 ms between two calls of Send it must be less than the 500 ms
	// after which a leader that hears nobody steps down. With what it is by default Raft,
	// which asks again 50 to 100 ms after an answer, gets one in each second window.
	// Default 130 ms.
	Hold time.Duration
	// Timeout bounds a call; what it carried is then sent by the groups themselves. With
	// a window and the 100 ms between two calls of Send it must be less than these 500 ms
	// likewise. Default 140 ms.
	Timeout time.Duration
}

const (
	defaultWindow  = 150 * time.Millisecond
	defaultHold    = 130 * time.Millisecond
	defaultTimeout = 140 * time.Millisecond
	// lapse is with how many messages in a row a heartbeat goes that nobody waits for, until
	// it ends: who leads no more asks no more, and Raft asks again within 100 ms.
	lapse = 2
	// stale is after how many windows an answer says nothing any more: Raft takes it for one
	// that came just now.
	stale = 2
)

// A Coalescer sends and answers the heartbeats of a node's groups. Safe for concurrent
// use.
type Coalescer struct {
	call                  Caller
	window, hold, timeout time.Duration

	ctx    context.Context // of the calls; ends with Close
	cancel context.CancelFunc
	work   sync.WaitGroup // repeat, and the calls that are under way

	beats, messages, malformed atomic.Uint64

	mu       sync.Mutex // protects the fields below, and those of each standing
	closed   bool
	lines    map[string]*Line
	standing map[string]map[*Line]*standing // by node; none is empty
	repeats  bool                           // repeat runs: it does while anything stands
}

// A standing heartbeat is sent with every message to its node.
type standing struct {
	addressed
	line   *Line
	last   *Answer    // the newest one that was told or is not news; nil: none yet
	at     time.Time  // when the call that last answers began
	waiter chan reply // of the newest Send, or nil; of capacity 1
	asked  time.Time  // by the newest Send
	held   bool       // last answers a call that began after that
	since  time.Time  // when the hold begins: asked, or a window after a message whose answer was taken
	lone   int        // messages in a row that it went with while nobody waited
}

// end answers whoever waits for s. It is called with mu held.
func (s *standing) end(a Answer, err error) {
	if s.waiter != nil {
		s.waiter <- reply{a, err}
		s.waiter = nil
	}
}

type reply struct {
	answer Answer
	err    error
}

// New is a Coalescer without groups.
func New(call Caller, o *Options) *Coalescer {
	c := &Coalescer{
		call: call, window: defaultWindow, hold: defaultHold, timeout: defaultTimeout,
		lines: make(map[string]*Line), standing: make(map[string]map[*Line]*standing),
	}
	if o != nil && o.Window != 0 {
		c.window = o.Window
	}
	if o != nil && o.Hold != 0 {
		c.hold = o.Hold
	}
	if o != nil && o.Timeout != 0 {
		c.timeout = o.Timeout
	}
	c.ctx, c.cancel = context.WithCancel(context.Background()) // until Close
	return c
}

// Stats count since the start.
type Stats struct {
	Beats     uint64 // sent
	Messages  uint64 // that they went with
	Malformed uint64 // messages that came and were not of this protocol
}

// Stats are the counts now.
func (c *Coalescer) Stats() Stats {
	return Stats{Beats: c.beats.Load(), Messages: c.messages.Load(), Malformed: c.malformed.Load()}
}

// Close ends what is under way; Send returns ErrClosed from now on. It may be called
// twice.
func (c *Coalescer) Close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.cancel()
	c.work.Wait()
}

// Line is the share of the group called name, until it is closed. The error matches
// ErrTaken, ErrName or ErrClosed.
func (c *Coalescer) Line(name string) (*Line, error) {
	if name == "" || len(name) > 255 {
		return nil, fmt.Errorf("%w: %d bytes", ErrName, len(name))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		return nil, ErrClosed
	case c.lines[name] != nil:
		return nil, ErrTaken
	}
	l := &Line{coalescer: c, name: name, done: make(chan struct{}), takers: make(map[string]*taker)}
	c.lines[name] = l
	return l, nil
}

// A Line is the heartbeats of one group.
type Line struct {
	coalescer *Coalescer
	name      string
	done      chan struct{}

	mu      sync.RWMutex              // protects the fields below; read-locked while handler runs
	handler func(Beat) (Answer, bool) // nil: nobody answers
	closed  bool

	takers map[string]*taker // by node; protected by the coalescer's mu
}

// A taker is told of answers, see Line.Take.
type taker struct {
	take func(Beat, Answer) bool
}

// Take has take told of each answer from a node that says that the replica follows as
// before, until stop is called or Take again; it may be called once more after that. It
// must not block, and reports whether it has told Raft, which Send then needs not to do:
// its Options.Hold begins anew with the next message. With stop Send returns what it holds.
func (l *Line) Take(node string, take func(Beat, Answer) bool) (stop func()) {
	t := &taker{take}
	l.coalescer.mu.Lock()
	defer l.coalescer.mu.Unlock()
	l.takers[node] = t
	return func() {
		l.coalescer.mu.Lock()
		defer l.coalescer.mu.Unlock()
		if l.takers[node] != t {
			return
		}
		delete(l.takers, node)
		if s := l.coalescer.standing[node][l]; s != nil && s.held {
			s.end(*s.last, nil)
		}
	}
}

// Handle sets who answers what comes in from now on. It must be quick, and say false
// if it cannot.
func (l *Line) Handle(h func(Beat) (Answer, bool)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.handler = h
	}
}

// answer is that of the handler, if there is one and it can.
func (l *Line) answer(b Beat) (Answer, bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.handler == nil {
		return Answer{}, false
	}
	return l.handler(b)
}

// Close ends Send, and lets heartbeats that come in go unanswered; it waits until the
// handler is not running any more. It may be called twice.
func (l *Line) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	l.closed, l.handler = true, nil
	close(l.done)
	l.coalescer.mu.Lock()
	defer l.coalescer.mu.Unlock()
	delete(l.coalescer.lines, l.name)
	for node, beats := range l.coalescer.standing {
		if s := beats[l]; s != nil {
			l.coalescer.drop(node, s)
		}
	}
}

// Send lets b stand: every message to the node carries it, as long as Send is called
// again within a few windows, until there is another one for the node. It returns an
// answer to a message that was sent after the call: the first one at once if there was
// none before, or if it is not that the replica follows as before; otherwise the newest
// one, when Options.Hold is over and the next message is due, unless Take has others told
// of it. So Raft, which asks again
// after each answer, is woken less often than followers are told, for all groups at the
// same time, and no message that hangs keeps it from an answer that is here.
//
// It takes a hold and a window at most after the last answer that was taken, or a window and a call, if
// there are none. A line sends a node one heartbeat at a time. The error matches
// ErrUnanswered or ErrClosed, or is that of the call; the heartbeat may have been
// received, and does not stand any more. It takes no context because Raft's transport
// has none: Close ends it.
func (l *Line) Send(node string, b Beat) (Answer, error) {
	w := make(chan reply, 1)
	if err := l.coalescer.stand(node, l, b, w); err != nil {
		return Answer{}, err
	}
	return l.wait(w)
}

// Rest ends what stands: who leads no more tells nobody that it does. Send returns, if it
// waits.
func (l *Line) Rest() {
	c := l.coalescer
	c.mu.Lock()
	defer c.mu.Unlock()
	for node, beats := range c.standing {
		s := beats[l]
		if s == nil {
			continue
		}
		if s.last != nil {
			s.end(*s.last, nil)
		}
		s.end(Answer{}, ErrUnanswered)
		c.drop(node, s)
	}
}

// Ask sends b alone, at once: for a leader who must know that it still is.
func (l *Line) Ask(node string, b Beat) (Answer, error) {
	w := make(chan reply, 1)
	if err := l.coalescer.start(b, func() {
		answers, err := l.coalescer.send(node, []addressed{{l.name, b}})
		if err == nil && answers[0] == nil {
			err = ErrUnanswered
		}
		if err != nil {
			w <- reply{err: err}
			return
		}
		w <- reply{answer: *answers[0]}
	}); err != nil {
		return Answer{}, err
	}
	return l.wait(w)
}

// wait waits for an answer.
func (l *Line) wait(w <-chan reply) (Answer, error) {
	select {
	case r := <-w:
		return r.answer, r.err
	case <-l.done:
		return Answer{}, ErrClosed
	}
}

// start runs fn, which sends b, unless the coalescer is closed.
func (c *Coalescer) start(b Beat, fn func()) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.refuses(b); err != nil {
		return err
	}
	c.work.Go(fn)
	return nil
}

// refuses says why b cannot be sent. It is called with mu held.
func (c *Coalescer) refuses(b Beat) error {
	if c.closed {
		return ErrClosed
	}
	if len(b.Leader) > maxText || len(b.Addr) > maxText {
		return ErrMalformed
	}
	return nil
}

// stand lets b stand in the place of the line's last one for the node, and w wait for
// its answer.
func (c *Coalescer) stand(node string, l *Line, b Beat, w chan reply) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.refuses(b); err != nil {
		return err
	}
	if c.lines[l.name] != l {
		return ErrClosed
	}
	s := c.standing[node][l]
	if s != nil {
		s.end(Answer{}, ErrUnanswered)
	}
	if s == nil || s.Beat != b {
		s = &standing{addressed: addressed{l.name, b}, line: l}
		if c.standing[node] == nil {
			c.standing[node] = make(map[*Line]*standing)
		}
		c.standing[node][l] = s
	}
	s.waiter, s.asked, s.held, s.lone = w, time.Now(), false, 0
	s.since = s.asked
	if !c.repeats {
		c.repeats = true
		c.work.Go(c.repeat)
	}
	return nil
}

// drop ends s. It is called with mu held.
func (c *Coalescer) drop(node string, s *standing) {
	if beats := c.standing[node]; beats[s.line] == s {
		if delete(beats, s.line); len(beats) == 0 {
			delete(c.standing, node)
		}
	}
}

// A batch goes to one node with one message.
type batch struct {
	node  string
	beats []*standing // at most maxBeats
}

// repeat sends what stands once in each window, to all nodes at the same time, until
// nothing does. A call that hangs keeps no later one waiting. Windows end at the same
// time on all nodes, as far as their clocks agree: a node that is awake to send hears
// the others.
func (c *Coalescer) repeat() {
	timer := time.NewTimer(c.rest(time.Now()))
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-c.ctx.Done():
		}
		batches, more := c.due(time.Now())
		for _, b := range batches {
			c.work.Go(func() { c.round(b) }) // within repeat, which work counts too
		}
		if !more {
			return
		}
		timer.Reset(c.rest(time.Now()))
	}
}

// rest is what is left of the window at now, more than nothing.
func (c *Coalescer) rest(now time.Time) time.Duration {
	return c.window - time.Duration(now.UnixNano()%int64(c.window))
}

// due is what is to be sent now, and whether anything stands. It gives the answers that
// were held for long enough.
func (c *Coalescer) due(now time.Time) (batches []batch, more bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for node, beats := range c.standing {
		all := make([]*standing, 0, len(beats))
		for _, s := range beats {
			switch {
			case c.closed:
				s.end(Answer{}, ErrClosed)
				c.drop(node, s)
				continue
			case s.waiter == nil && s.lone == lapse:
				c.drop(node, s)
				continue
			case s.waiter == nil:
				s.lone++
			case s.held && now.Sub(s.at) > stale*c.window:
				s.last, s.held = nil, false // this process stood still: the next answer is told at once
			case s.held && now.Sub(s.since) >= c.hold:
				s.end(*s.last, nil)
			}
			all = append(all, s)
		}
		for part := range slices.Chunk(all, maxBeats) {
			batches = append(batches, batch{node, part})
		}
	}
	c.repeats = len(batches) > 0
	return batches, c.repeats
}

// round sends a batch and gives the answers to whom they are for, or keeps them.
func (c *Coalescer) round(b batch) {
	begun := time.Now()
	beats := make([]addressed, len(b.beats))
	for i, s := range b.beats {
		beats[i] = s.addressed
	}
	answers, err := c.send(b.node, beats)
	var told []telling
	c.mu.Lock()
	for i, s := range b.beats {
		before := begun.Before(s.asked) // it says nothing to whoever waits
		switch {
		case err == nil && answers[i] != nil:
			news := s.last == nil || !answers[i].follows(s.Beat, s.last)
			if news && (before || s.waiter == nil) {
				break // the next one is news still, to whoever waits then
			}
			if s.last, s.at, s.held = answers[i], begun, s.held || !before; news {
				s.end(*s.last, nil)
			}
			if t := s.line.takers[b.node]; t != nil && !news && s.waiter != nil && c.standing[b.node][s.line] == s {
				told = append(told, telling{s, t, *s.last})
			}
		case !before:
			s.end(Answer{}, cmp.Or(err, ErrUnanswered))
			c.drop(b.node, s)
		}
	}
	c.mu.Unlock()
	told = slices.DeleteFunc(told, func(t telling) bool { return !t.take(t.Beat, t.answer) })
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, t := range told {
		t.since = begun.Add(c.window) // of the next answer that nobody takes, Send tells
	}
}

// A telling is an answer for a taker.
type telling struct {
	*standing
	*taker
	answer Answer
}

// follows reports whether a replica still does what it did when it answered before.
func (a *Answer) follows(b Beat, before *Answer) bool {
	return a.OK && a.Term == b.Term && a.Commit >= before.Commit
}

// send makes one call; the answers are nil for those that have none.
func (c *Coalescer) send(node string, beats []addressed) ([]*Answer, error) {
	c.beats.Add(uint64(len(beats)))
	c.messages.Add(1)
	ctx, cancel := context.WithTimeout(c.ctx, c.timeout)
	defer cancel()
	body, err := c.call(ctx, node, appendBeats(nil, beats))
	if err != nil {
		return nil, err
	}
	return decodeAnswers(body, len(beats))
}

// Serve answers a call that another node's Coalescer made. The error matches
// ErrMalformed.
func (c *Coalescer) Serve(body []byte) ([]byte, error) {
	beats, err := decodeBeats(body)
	if err != nil {
		c.malformed.Add(1)
		return nil, err
	}
	lines := make([]*Line, len(beats))
	c.mu.Lock()
	for i, b := range beats {
		lines[i] = c.lines[b.group]
	}
	c.mu.Unlock()
	answers := make([]byte, 1, 1+16*len(beats))
	answers[0] = version
	for i, b := range beats {
		var a Answer
		var ok bool
		if lines[i] != nil {
			a, ok = lines[i].answer(b.Beat)
		}
		answers = appendAnswer(answers, a, ok)
	}
	return answers, nil
}
