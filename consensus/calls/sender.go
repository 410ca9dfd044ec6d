package calls

import (
	"context"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/meshkv/meshkv/internal/nowait"
)

const (
	// roomLimit is how many bytes of answers may wait before more of them do. One frame
	// more than that is taken.
	roomLimit = 1 << 20
	// writeChunk is what the other end must take within writeTimeout.
	writeChunk   = 256 << 10
	writeTimeout = 10 * time.Second
	// keptBuffer is the largest buffer that is kept while nothing is sent.
	keptBuffer = 256 << 10
	// atOnce is the longest frame that is written by who sends it.
	atOnce = 16 << 10
)

// A sender is what both ends of a connection have: frames of many goroutines gather in a
// buffer, which write sends whenever it is not empty, and watch looks after the other end
// while calls are open. A frame that is alone is written by who sends it, if there is room:
// waking write would take longer.
type sender struct {
	silence time.Duration // see Options
	wake    chan struct{} // holds one token while write may have something to do
	watch   chan struct{} // holds one token if watch must begin
	began   time.Time
	heard   atomic.Int64 // when something was read, after began

	mu    sync.Mutex     // protects the fields below
	conn  *nowait.Writer // nil before write
	flush bool           // write is writing
	buf   []byte
	taken uint64        // how many bytes were in buf and are no more
	room  chan struct{} // closed when buf was taken; nil if nobody waits
	ping  bool          // one is to be sent
	pong  bool          // likewise
	err   error         // why nothing is sent any more

	open     int       // calls
	busy     time.Time // since when something is to be heard; of the past once it was
	watching bool
	asked    time.Time // when the last ping was queued; zero if there was none
	tested   time.Time // when it was written; zero if it is not yet
}

func newSender(silence time.Duration) *sender {
	return &sender{silence: silence, wake: make(chan struct{}, 1), watch: make(chan struct{}, 1), began: time.Now()}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// lastHeard is when something was read, or the connection began.
func (s *sender) lastHeard() time.Time { return s.began.Add(time.Duration(s.heard.Load())) }

// opened counts a call that is open. The caller holds mu. Calls that were withdrawn while
// nothing was heard count as open for busy: otherwise one after the other might wait in
// vain, each for less than silence.
func (s *sender) opened() {
	if s.open++; s.open == 1 && !s.busy.After(s.lastHeard()) {
		s.busy = time.Now()
	}
	if !s.watching {
		s.watching = true
		signal(s.watch)
	}
}

// lockWithRoom locks mu when few enough bytes wait. An error means that it did not: that
// of stop, or of ctx.
func (s *sender) lockWithRoom(ctx context.Context) error {
	for {
		s.mu.Lock()
		if s.err != nil {
			err := s.err
			s.mu.Unlock()
			return err
		}
		if len(s.buf) < roomLimit {
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

// stop makes write and those who send end with err. The first error counts. The caller
// holds mu.
func (s *sender) stop(err error) {
	if s.err == nil {
		s.err = err
	}
	s.makeRoom()
	signal(s.wake)
}

func (s *sender) makeRoom() {
	if s.room != nil {
		close(s.room)
		s.room = nil
	}
}

// unlock has what was queued written: at once if it is alone and there is room, which waits
// for nothing, and by write otherwise. alone: nobody else is about to send.
func (s *sender) unlock(alone bool) {
	if alone && !s.flush && s.err == nil && len(s.buf) <= atOnce {
		n := s.conn.Write(s.buf)
		s.taken += uint64(n)
		s.buf = append(s.buf[:0], s.buf[n:]...)
	}
	left := len(s.buf) > 0
	s.mu.Unlock()
	if left {
		signal(s.wake)
	}
}

// end is stop for those who do not hold mu.
func (s *sender) end(err error) {
	s.mu.Lock()
	s.stop(err)
	s.mu.Unlock()
}

// write sends what gathers until stop or an error of conn, which it returns.
func (s *sender) write(conn net.Conn) error {
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
			s.taken += uint64(len(batch))
			s.makeRoom()
			ping := s.ping
			if s.ping {
				batch = appendHead(batch, 0, framePing, 0)
			}
			if s.pong {
				batch = appendHead(batch, 0, framePong, 0)
			}
			s.ping, s.pong = false, false
			s.flush = len(batch) > 0
			s.mu.Unlock()
			if len(batch) == 0 {
				spare = batch
				break
			}
			for rest := batch; len(rest) > 0; {
				// Renewed at half time only: setting it costs as much as sending a small frame.
				if now := time.Now(); now.Sub(armed) > writeTimeout/2 || len(batch) > writeChunk {
					armed = now
					if err := conn.SetWriteDeadline(now.Add(writeTimeout + writeTimeout/2)); err != nil {
						return err
					}
				}
				n, err := conn.Write(rest[:min(len(rest), writeChunk)])
				if err != nil {
					return err
				}
				rest = rest[n:]
			}
			if ping {
				s.mu.Lock()
				s.tested = time.Now()
				s.mu.Unlock()
			}
			if spare = batch; cap(spare) > keptBuffer {
				spare = nil
			}
		}
	}
	return nil
}

// look after the other end until ctx is done, or give ErrSilent. It wakes up only while
// calls are open, or nothing was heard since one was, and once after that.
func (s *sender) look(ctx context.Context) error {
	timer := time.NewTimer(s.silence)
	defer timer.Stop()
	for {
		select {
		case <-s.watch:
		case <-ctx.Done():
			return nil
		}
		for wait := s.silence; wait > 0; {
			timer.Reset(wait)
			select {
			case <-timer.C:
			case <-ctx.Done():
				return nil
			}
			var err error
			if wait, err = s.examine(time.Now()); err != nil {
				return err
			}
		}
	}
}

// examine says when to look again; 0 if nothing is waited for.
func (s *sender) examine(now time.Time) (time.Duration, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	last := s.lastHeard()
	waits := s.open > 0
	if s.busy.After(last) {
		last, waits = s.busy, true
	}
	quiet := now.Sub(last)
	switch {
	case !waits:
		s.watching = false
		return 0, nil
	case quiet < s.silence:
		return s.silence - quiet, nil
	case !s.asked.After(last): // it was answered, or there was none
		s.asked, s.tested, s.ping = now, time.Time{}, true
		signal(s.wake)
		return s.silence, nil
	case s.tested.IsZero(): // the write stands still, and its own timeout runs
		return s.silence, nil
	case now.Sub(s.tested) < s.silence:
		return s.silence - now.Sub(s.tested), nil
	}
	return 0, ErrSilent
}

// answerPing queues a pong, one for all pings that were not answered yet.
func (s *sender) answerPing() {
	s.mu.Lock()
	s.pong = true
	s.mu.Unlock()
	signal(s.wake)
}

// A heardConn notes when something was read.
type heardConn struct {
	net.Conn
	s *sender
}

func (c heardConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 {
		c.s.heard.Store(int64(time.Since(c.s.began)))
	}
	return n, err
}
