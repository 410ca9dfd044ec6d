package heartbeat

import (
	"context"
	"errors"
	"fmt"
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
	// Window is how long a heartbeat waits for others to the same node. It adds to the
	// time between heartbeats, and must be short beside an election timeout. Default
	// 80 ms.
	Window time.Duration
	// Timeout bounds a call; what it carried is then sent by the groups themselves. With
	// a window and 100 ms, which is between two heartbeats, it must be less than the 375
	// ms after which a leader that hears nobody steps down. Default 150 ms.
	Timeout time.Duration
}

const (
	defaultWindow  = 80 * time.Millisecond
	defaultTimeout = 150 * time.Millisecond
)

// A Coalescer sends and answers the heartbeats of a node's groups. Safe for concurrent
// use.
type Coalescer struct {
	call            Caller
	window, timeout time.Duration

	ctx    context.Context // of the calls; ends with Close
	cancel context.CancelFunc
	work   sync.WaitGroup // the batches that wait or are under way

	beats, messages, malformed atomic.Uint64

	mu      sync.Mutex // protects the fields below
	closed  bool
	lines   map[string]*Line
	waiting map[string][]*waiting // by node: for the end of the window; at most one of a line
}

// waiting is a heartbeat whose Send waits.
type waiting struct {
	addressed
	answer chan reply // of capacity 1
}

type reply struct {
	answer Answer
	err    error
}

// New is a Coalescer without groups.
func New(call Caller, o *Options) *Coalescer {
	c := &Coalescer{call: call, window: defaultWindow, timeout: defaultTimeout, lines: make(map[string]*Line), waiting: make(map[string][]*waiting)}
	if o != nil && o.Window != 0 {
		c.window = o.Window
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
	l := &Line{coalescer: c, name: name, done: make(chan struct{})}
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
}

// Send sends b to the replica of the group at a node, and returns its answer, after a
// window and a call at most. A line sends a node one heartbeat at a time. The error
// matches ErrUnanswered or ErrClosed, or is that of the call; the heartbeat may have
// been received. It takes no context because Raft's transport has none: Close ends it.
func (l *Line) Send(node string, b Beat) (Answer, error) {
	w := &waiting{addressed: addressed{l.name, b}, answer: make(chan reply, 1)}
	if err := l.coalescer.enqueue(node, w); err != nil {
		return Answer{}, err
	}
	return l.wait(w)
}

// Ask is Send at once, without a window: for a leader who must know that it still is.
func (l *Line) Ask(node string, b Beat) (Answer, error) {
	w := &waiting{addressed: addressed{l.name, b}, answer: make(chan reply, 1)}
	if err := l.coalescer.start(w, func() { l.coalescer.send(node, []*waiting{w}) }); err != nil {
		return Answer{}, err
	}
	return l.wait(w)
}

// wait waits for the answer to w.
func (l *Line) wait(w *waiting) (Answer, error) {
	select {
	case r := <-w.answer:
		return r.answer, r.err
	case <-l.done:
		return Answer{}, ErrClosed
	}
}

// start runs fn, which answers w, unless the coalescer is closed.
func (c *Coalescer) start(w *waiting, fn func()) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.refuses(w); err != nil {
		return err
	}
	c.work.Go(fn)
	return nil
}

// refuses says why w cannot be sent. It is called with mu held.
func (c *Coalescer) refuses(w *waiting) error {
	if c.closed {
		return ErrClosed
	}
	if len(w.Leader) > maxText || len(w.Addr) > maxText {
		return ErrMalformed
	}
	return nil
}

// enqueue begins a window if there is none.
func (c *Coalescer) enqueue(node string, w *waiting) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.refuses(w); err != nil {
		return err
	}
	first := len(c.waiting[node]) == 0
	c.waiting[node] = append(c.waiting[node], w)
	if first {
		c.work.Go(func() { c.collect(node) })
	}
	return nil
}

// collect sends what waits for node at the end of a window.
func (c *Coalescer) collect(node string) {
	timer := time.NewTimer(c.window)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-c.ctx.Done():
	}
	c.mu.Lock()
	batch := c.waiting[node]
	delete(c.waiting, node)
	c.mu.Unlock()
	for len(batch) > 0 {
		n := min(len(batch), maxBeats)
		c.send(node, batch[:n])
		batch = batch[n:]
	}
}

// send makes one call and gives everyone their answer.
func (c *Coalescer) send(node string, batch []*waiting) {
	beats := make([]addressed, len(batch))
	for i, w := range batch {
		beats[i] = w.addressed
	}
	c.beats.Add(uint64(len(batch)))
	c.messages.Add(1)
	var answers []*Answer
	ctx, cancel := context.WithTimeout(c.ctx, c.timeout)
	defer cancel()
	body, err := c.call(ctx, node, appendBeats(nil, beats))
	if err == nil {
		answers, err = decodeAnswers(body, len(batch))
	}
	for i, w := range batch {
		switch {
		case err != nil:
			w.answer <- reply{err: err}
		case answers[i] == nil:
			w.answer <- reply{err: ErrUnanswered}
		default:
			w.answer <- reply{answer: *answers[i]}
		}
	}
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
