package wire

import (
	"context"
	"net"
	"runtime"
	"sync"
	"time"

	"github.com/meshkv/meshkv/internal/nowait"
)

const (
	// senderLimit is how many bytes may wait before Send blocks. One frame more
	// than that is taken.
	senderLimit = 1 << 20
	// writeChunk is what must be written within one timeout.
	writeChunk = 256 << 10
	// keptBuffer is the largest buffer that is kept while nothing is sent.
	keptBuffer = 256 << 10
	// atOnce is the longest frame that is written by who sends it.
	atOnce = 16 << 10
)

// A Sender is the sending half of a connection. Frames of many goroutines
// gather in a buffer, which Run writes whenever it is not empty: no timer, and
// one system call for all that came together. A frame that is alone is written by who
// sends it, if there is room: waking Run would take longer. Safe for concurrent use.
type Sender struct {
	wake chan struct{} // holds one token while buf may be non-empty or err set

	mu    sync.Mutex // protects the fields below
	buf   []byte
	room  chan struct{} // closed when buf was taken; nil if nobody waits
	empty chan struct{} // closed when all is written; nil if nobody waits
	busy  bool          // Run is writing
	err   error
	conn  *nowait.Writer // nil before Run
}

// NewSender makes a Sender. Nothing is written until Run.
func NewSender() *Sender { return &Sender{wake: make(chan struct{}, 1)} }

// SendRequest queues r, blocking while too many bytes wait. An error means that
// it was not queued: that of Close, or of ctx. alone: nobody else is about to send.
func (s *Sender) SendRequest(ctx context.Context, r *Request, alone bool) error {
	if err := s.lockWithRoom(ctx); err != nil {
		return err
	}
	s.buf = AppendRequest(s.buf, r)
	s.unlock(alone)
	return nil
}

// TrySendRequest queues r unless it would have to wait.
func (s *Sender) TrySendRequest(r *Request) bool {
	s.mu.Lock()
	if s.err != nil || len(s.buf) >= senderLimit {
		s.mu.Unlock()
		return false
	}
	s.buf = AppendRequest(s.buf, r)
	s.mu.Unlock()
	s.signal()
	return true
}

// SendReply queues r as SendRequest does, and returns its length as a frame.
func (s *Sender) SendReply(ctx context.Context, r *Reply, alone bool) (int, error) {
	if err := s.lockWithRoom(ctx); err != nil {
		return 0, err
	}
	before := len(s.buf)
	s.buf = AppendReply(s.buf, r)
	n := len(s.buf) - before
	s.unlock(alone)
	return n, nil
}

// unlock has what was queued written: at once if it is alone and there is room, which waits
// for nothing, and by Run otherwise.
func (s *Sender) unlock(alone bool) {
	if alone && !s.busy && len(s.buf) <= atOnce {
		n := s.conn.Write(s.buf)
		s.buf = append(s.buf[:0], s.buf[n:]...)
		if len(s.buf) == 0 {
			release(&s.empty)
			s.mu.Unlock()
			return
		}
	}
	s.mu.Unlock()
	s.signal()
}

func (s *Sender) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *Sender) lockWithRoom(ctx context.Context) error {
	for {
		s.mu.Lock()
		if s.err != nil {
			err := s.err
			s.mu.Unlock()
			return err
		}
		if len(s.buf) < senderLimit {
			return nil
		}
		if s.room == nil {
			s.room = make(chan struct{})
		}
		room := s.room
		s.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Close makes Run return and all sends fail with err. The first error counts.
func (s *Sender) Close(err error) {
	s.mu.Lock()
	if s.err == nil {
		s.err = err
	}
	release(&s.room)
	release(&s.empty)
	s.mu.Unlock()
	s.signal()
}

func release(c *chan struct{}) {
	if *c != nil {
		close(*c)
		*c = nil
	}
}

// Flush waits until what was queued before is written, Close, or ctx ends.
func (s *Sender) Flush(ctx context.Context) {
	s.mu.Lock()
	if s.err != nil || len(s.buf) == 0 && !s.busy {
		s.mu.Unlock()
		return
	}
	if s.empty == nil {
		s.empty = make(chan struct{})
	}
	empty := s.empty
	s.mu.Unlock()
	select {
	case <-empty:
	case <-ctx.Done():
	}
}

// Run writes to conn until Close or an error of conn, which it returns. Each
// 256 KiB must be taken by the other end within timeout.
func (s *Sender) Run(conn net.Conn, timeout time.Duration) error {
	var spare []byte
	var armed time.Time // when the write deadline was last set
	s.mu.Lock()
	s.conn = nowait.NewWriter(conn)
	s.mu.Unlock()
	for range s.wake {
		for {
			runtime.Gosched() // those who are about to send join in
			s.mu.Lock()
			if s.err != nil {
				s.mu.Unlock()
				return s.err
			}
			batch := s.buf
			s.buf = spare[:0]
			s.busy = len(batch) > 0
			release(&s.room)
			if !s.busy {
				release(&s.empty)
			}
			s.mu.Unlock()
			if len(batch) == 0 {
				spare = batch
				break
			}
			for rest := batch; len(rest) > 0; {
				// Renewed at half time only: setting it costs as much as sending a small frame.
				if now := time.Now(); now.Sub(armed) > timeout/2 || len(batch) > writeChunk {
					armed = now
					if err := conn.SetWriteDeadline(now.Add(timeout + timeout/2)); err != nil {
						return err
					}
				}
				n, err := conn.Write(rest[:min(len(rest), writeChunk)])
				if err != nil {
					return err
				}
				rest = rest[n:]
			}
			if spare = batch; cap(spare) > keptBuffer {
				spare = nil
			}
		}
	}
	return nil
}
