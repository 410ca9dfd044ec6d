package client

import (
	"context"
	"sync"

	"github.com/meshkv/meshkv/client/wire"
)

// A stream is a watch on one connection: a queue that the node fills as far as
// it has credit.
type stream struct {
	conn   *conn
	id     uint64
	window int           // bytes of credit in all
	ready  chan struct{} // holds a token when there is something in queue, or err

	mu     sync.Mutex // protects the fields below
	opened bool
	queue  []queuedEvent
	err    error // why it ended; what is in the queue comes first

	owed int // bytes taken and not granted anew; owned by the one that calls next
}

type queuedEvent struct {
	event Event
	bytes int
}

func (s *stream) deliver(r *wire.Reply, size int) {
	s.mu.Lock()
	switch r.Type {
	case wire.Opened:
		s.opened = true
	case wire.Error:
		s.err = remoteError(r)
	case wire.Happened:
		for i := range r.Events {
			q := queuedEvent{event: eventOf(&r.Events[i])}
			if i == len(r.Events)-1 {
				q.bytes = size
			}
			s.queue = append(s.queue, q)
		}
	}
	s.mu.Unlock()
	s.signal()
}

func (s *stream) signal() {
	select {
	case s.ready <- struct{}{}:
	default:
	}
}

func (s *stream) end(err error) {
	s.mu.Lock()
	if s.err == nil {
		s.err = err
	}
	s.mu.Unlock()
	s.signal()
}

// ended reports whether nothing comes from the stream any more.
func (s *stream) ended() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err != nil && len(s.queue) == 0
}

// awaitOpened returns once the node has accepted or refused the watch.
func (s *stream) awaitOpened(ctx context.Context, closed <-chan struct{}) error {
	for {
		s.mu.Lock()
		opened, err := s.opened, s.err
		s.mu.Unlock()
		switch {
		case opened:
			s.signal()
			return nil
		case err != nil:
			return err
		}
		if err := s.wait(ctx, closed); err != nil {
			return err
		}
	}
}

func (s *stream) wait(ctx context.Context, closed <-chan struct{}) error {
	select {
	case <-s.ready:
		return nil
	case <-closed:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

// next takes an event and gives its credit back, half a window at a time.
func (s *stream) next(ctx context.Context, closed <-chan struct{}) (Event, error) {
	for {
		s.mu.Lock()
		if len(s.queue) > 0 {
			q := s.queue[0]
			s.queue[0] = queuedEvent{}
			s.queue = s.queue[1:]
			if len(s.queue) == 0 {
				s.queue = nil
			}
			s.mu.Unlock()
			s.owed += q.bytes
			if s.owed >= s.window/2 {
				grant := wire.Request{ID: s.id, Type: wire.Credit, Limit: uint64(s.owed)}
				// A connection that failed needs none; one that is full gets it
				// with the next event.
				if s.conn.sender.TrySendRequest(&grant) {
					s.owed = 0
				}
			}
			return q.event, nil
		}
		err := s.err
		s.mu.Unlock()
		if err != nil {
			return Event{}, err
		}
		if s.owed > 0 && s.owed >= s.window/2 {
			if err := s.conn.sender.SendRequest(ctx, &wire.Request{ID: s.id, Type: wire.Credit, Limit: uint64(s.owed)}, false); err == nil {
				s.owed = 0
			}
		}
		if err := s.wait(ctx, closed); err != nil {
			return Event{}, err
		}
	}
}

// close releases the stream at both ends.
func (s *stream) close() {
	cn := s.conn
	cn.mu.Lock()
	_, open := cn.streams[s.id]
	delete(cn.streams, s.id)
	cn.mu.Unlock()
	if open {
		cn.sender.TrySendRequest(&wire.Request{ID: s.id, Type: wire.Cancel})
	}
	cn.hangUpIfDrained()
}
