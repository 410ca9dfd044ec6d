package calls

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// idleWorkers is how many goroutines of a connection wait for the next call.
	idleWorkers = 64
	// keptBody is the longest body whose memory is used again.
	keptBody = 64 << 10
	// keptGroups is how many names of groups a connection remembers, to save memory only.
	keptGroups = 1024
)

// A service is one connection of a server.
type service struct {
	*sender
	server  *Server
	ctx     context.Context // of all calls; ends with the connection
	work    chan *task      // without room: taken only by a worker that waits
	idle    atomic.Int32    // workers that wait, or are about to
	workers sync.WaitGroup

	// Owned by read.
	last   uint64
	groups map[string]string

	// Protected by the sender's mutex.
	running   map[uint64]*task // sender.open is their number and sequenced
	sequenced int              // calls that a Sequencer took
	bytes     int              // the bodies of both
}

// A task is a call that is carried out.
type task struct {
	id     uint64
	ctx    context.Context
	cancel context.CancelFunc
	group  string
	kind   Kind
	body   []byte
	kept   []byte // memory for a body
}

// read starts calls until an error, which it returns.
func (v *service) read(conn net.Conn) error {
	in := newFrameReader(heardConn{conn, v.sender})
	for {
		f, owned, err := in.next()
		if err != nil {
			return err
		}
		switch f.kind {
		case frameRequest:
			if f.call <= v.last {
				return ErrMalformed
			}
			v.last = f.call
			if err := v.start(f, owned); err != nil {
				return err
			}
		case frameCancel:
			v.mu.Lock()
			t := v.running[f.call]
			if t != nil {
				t.cancel()
			}
			v.mu.Unlock()
		case framePing:
			v.answerPing()
		case framePong, frameVoid:
		default:
			return ErrMalformed
		}
	}
}

// start gives a call to a worker, or refuses it for overload. The error is that of stop.
func (v *service) start(f frame, owned bool) error {
	opt := &v.server.opt
	v.mu.Lock()
	if len(v.running)+v.sequenced >= opt.MaxCalls || v.bytes >= opt.MaxBytes {
		v.mu.Unlock()
		v.server.stats.overloaded.Add(1)
		// This waits for room with everything that follows: who does not read answers is
		// not read from.
		if err := v.lockWithRoom(v.ctx); err != nil {
			return err
		}
		v.buf = appendHead(v.buf, 0, frameOverload, f.call)
		v.mu.Unlock()
		signal(v.wake)
		return nil
	}
	if v.sequence(f) {
		v.server.stats.calls.Add(1)
		return nil
	}
	t := v.server.spare.Get().(*task)
	t.id, t.kind, t.group = f.call, f.ask, v.group(f.group)
	if t.body = f.body; !owned {
		t.kept = append(t.kept[:0], f.body...)
		t.body = t.kept
	}
	if f.timeout > 0 {
		t.ctx, t.cancel = context.WithTimeout(v.ctx, f.timeout)
	} else {
		t.ctx, t.cancel = context.WithCancel(v.ctx)
	}
	v.running[t.id] = t
	v.bytes += len(t.body)
	v.opened()
	v.mu.Unlock()
	v.server.stats.calls.Add(1)
	select {
	case v.work <- t:
	default:
		v.workers.Go(func() { v.worker(t) })
	}
	return nil
}

// sequence offers a call to the Sequencer, if the handler is one. It is called with mu held,
// and releases it if the call was taken.
func (v *service) sequence(f frame) bool {
	s, ok := v.server.handler.(Sequencer)
	if !ok {
		return false
	}
	size, call := len(f.body), f.call // and not f, which has the body
	v.sequenced++
	v.bytes += size
	v.opened()
	v.mu.Unlock()
	taken := s.Take(v.group(f.group), f.ask, f.body, func(answer []byte, err error) {
		v.answer(call, answer, err)
		v.sequenced--
		v.bytes -= size
		v.closed()
		v.unlock(v.open == 0)
	})
	if taken {
		return true
	}
	v.mu.Lock()
	v.sequenced--
	v.bytes -= size
	v.closed()
	return false
}

// answer queues the answer to a call, when there is room. It returns with mu held.
func (v *service) answer(call uint64, answer []byte, err error) {
	if err == nil && len(answer) > MaxBody {
		err = fmt.Errorf("answer of %d bytes", len(answer))
	}
	roomErr := v.lockWithRoom(v.ctx)
	if roomErr != nil {
		v.mu.Lock()
	}
	switch {
	case roomErr != nil: // the connection ended
	case err == nil:
		v.buf = appendAnswer(v.buf, call, answer)
	default:
		v.buf = appendError(v.buf, call, err)
	}
}

// closed counts a call that was answered: of its client nothing more is to be heard. The
// caller holds mu.
func (v *service) closed() {
	if v.open--; v.open == 0 {
		v.busy = time.Time{}
	}
}

// group is a name without memory of its own if it was there before.
func (v *service) group(b []byte) string {
	if name, ok := v.groups[string(b)]; ok {
		return name
	}
	name := string(b)
	if len(v.groups) < keptGroups {
		v.groups[name] = name
	}
	return name
}

// worker carries out t and then others, until there are none and enough workers wait.
func (v *service) worker(t *task) {
	for t != nil {
		v.carryOut(t)
		if v.idle.Add(1) > idleWorkers {
			v.idle.Add(-1)
			return
		}
		t = <-v.work // nil at the end
		v.idle.Add(-1)
	}
}

// carryOut asks the handler and sends what it says.
func (v *service) carryOut(t *task) {
	answer, err := v.server.handler.Serve(t.ctx, t.group, t.kind, t.body)
	t.cancel()
	v.answer(t.id, answer, err)
	delete(v.running, t.id)
	v.closed()
	v.bytes -= len(t.body)
	v.unlock(v.open == 0)
	kept := t.kept
	if cap(kept) > keptBody {
		kept = nil
	}
	*t = task{kept: kept}
	v.server.spare.Put(t)
}

func appendError(b []byte, call uint64, err error) []byte {
	if refusal, ok := errors.AsType[*Refusal](err); ok {
		return appendRefusal(b, call, refusal.Code, refusal.Detail)
	}
	return appendFailure(b, call, err.Error())
}
