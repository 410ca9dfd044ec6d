package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/meshkv/meshkv/bench/peer/voter"
	"github.com/meshkv/meshkv/bench/rawraft/wire"
)

// errConnection: the connection to a member broke.
var errConnection = errors.New("connection broke")

// A raftStore talks to the leader alone, whichever member a call names: the
// others would only say who leads.
type raftStore struct {
	specs  []voter.Spec
	leads  atomic.Int32
	mu     sync.Mutex // protects conns
	conns  [members]*raftConn
	closed bool
}

func connectRaft(_ context.Context, specs []voter.Spec) (store, error) {
	return &raftStore{specs: specs}, nil
}

func (s *raftStore) create(_ context.Context, spaces []string) error {
	if len(spaces) > 1 {
		return errNotOffered
	}
	return nil
}

func (s *raftStore) put(ctx context.Context, _ place, key string, value []byte) error {
	_, err := s.ask(ctx, wire.Put, key, value)
	return err
}

func (s *raftStore) get(ctx context.Context, _ place, key string) ([]byte, error) {
	f, err := s.ask(ctx, wire.Get, key, nil)
	return f.Value, err
}

func (s *raftStore) leader(ctx context.Context) (int, error) {
	f, err := s.ask(ctx, wire.Leader, "", nil)
	if err != nil {
		return 0, err
	}
	if i := s.number(f.Value); i >= 0 {
		return i, nil
	}
	return 0, errNoLeader
}

func (s *raftStore) number(name []byte) int {
	for i, spec := range s.specs {
		if spec.Name == string(name) {
			return i
		}
	}
	return -1
}

func (s *raftStore) locker(context.Context, int) (locker, error) { return nil, errNotOffered }

// ask goes to where the leader was seen last, and on until ctx ends.
func (s *raftStore) ask(ctx context.Context, op wire.Op, key string, value []byte) (wire.Frame, error) {
	for at := int(s.leads.Load()); ; {
		f, err := s.askOne(ctx, at, wire.Frame{Code: uint8(op), Key: []byte(key), Value: value})
		switch {
		case ctx.Err() != nil:
			return f, ctx.Err()
		case err == nil && wire.Status(f.Code) == wire.OK:
			s.leads.Store(int32(at))
			return f, nil
		case err == nil && wire.Status(f.Code) == wire.NotLeader:
			if i := s.number(f.Value); i >= 0 && i != at {
				at = i
				continue
			}
		case err == nil:
			return f, fmt.Errorf("status %d", f.Code)
		case errors.Is(err, errConnection):
			return f, err
		}
		at = (at + 1) % members
		if err := pause(ctx, 5*time.Millisecond); err != nil {
			return wire.Frame{}, err
		}
	}
}

func (s *raftStore) askOne(ctx context.Context, at int, f wire.Frame) (wire.Frame, error) {
	c, err := s.conn(ctx, at)
	if err != nil {
		return wire.Frame{}, err
	}
	return c.ask(ctx, f)
}

// conn is the connection to a member, made if there is none that works.
func (s *raftStore) conn(ctx context.Context, at int) (*raftConn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, net.ErrClosed
	}
	if c := s.conns[at]; c != nil && c.works() {
		return c, nil
	}
	var d net.Dialer
	nc, err := d.DialContext(ctx, "tcp", s.specs[at].Client)
	if err != nil {
		return nil, err
	}
	s.conns[at] = newRaftConn(nc)
	return s.conns[at], nil
}

func (s *raftStore) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for _, c := range s.conns {
		if c != nil {
			c.nc.Close()
			<-c.read
			<-c.written
		}
	}
}

// A raftConn multiplexes requests over one connection.
type raftConn struct {
	nc            net.Conn
	out           chan wire.Frame
	read, written chan struct{} // closed when that direction has ended
	mu            sync.Mutex    // protects the fields below
	last          uint64
	waiting       map[uint64]chan<- wire.Frame
}

func newRaftConn(nc net.Conn) *raftConn {
	c := &raftConn{nc: nc, out: make(chan wire.Frame, 256), read: make(chan struct{}), written: make(chan struct{}), waiting: make(map[uint64]chan<- wire.Frame)}
	go c.readAll()
	go c.writeAll()
	return c
}

func (c *raftConn) works() bool {
	select {
	case <-c.read:
		return false
	default:
		return true
	}
}

func (c *raftConn) readAll() {
	defer close(c.read)
	defer c.nc.Close()
	for r := bufio.NewReaderSize(c.nc, 64<<10); ; {
		f, err := wire.Read(r)
		if err != nil {
			return
		}
		c.mu.Lock()
		answer := c.waiting[f.ID]
		delete(c.waiting, f.ID)
		c.mu.Unlock()
		if answer != nil {
			answer <- f
		}
	}
}

func (c *raftConn) writeAll() {
	defer close(c.written)
	w := bufio.NewWriterSize(c.nc, 64<<10)
	for {
		select {
		case f := <-c.out:
			err := wire.Write(w, f)
			if err == nil && len(c.out) == 0 {
				err = w.Flush()
			}
			if err != nil {
				c.nc.Close() // ends the reader, and then us
			}
		case <-c.read:
			return
		}
	}
}

func (c *raftConn) ask(ctx context.Context, f wire.Frame) (wire.Frame, error) {
	answer := make(chan wire.Frame, 1)
	c.mu.Lock()
	c.last++
	f.ID = c.last
	c.waiting[f.ID] = answer
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.waiting, f.ID)
		c.mu.Unlock()
	}()
	select {
	case c.out <- f:
	case <-c.read:
		return f, errConnection
	case <-ctx.Done():
		return f, ctx.Err()
	}
	select {
	case got := <-answer:
		return got, nil
	case <-c.read:
		return f, errConnection
	case <-ctx.Done():
		return f, ctx.Err()
	}
}
