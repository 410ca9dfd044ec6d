package calls

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
)

// A Server carries out the calls of connections that were accepted. Safe for concurrent
// use.
type Server struct {
	handler Handler
	opt     Options
	stats   serverCounts
	spare   sync.Pool // of *task
}

type serverCounts struct{ conns, refused, calls, overloaded, malformed atomic.Uint64 }

// ServerStats count since the start.
type ServerStats struct {
	// Conns were served. Refused of them were of another cluster or version or did not
	// greet at all, Malformed ended since what came was not of the protocol.
	Conns, Refused, Malformed uint64
	// Calls were carried out, Overloaded were not.
	Calls, Overloaded uint64
}

// Stats are the counts now.
func (s *Server) Stats() ServerStats {
	n := &s.stats
	return ServerStats{
		Conns: n.conns.Load(), Refused: n.refused.Load(), Malformed: n.malformed.Load(),
		Calls: n.calls.Load(), Overloaded: n.overloaded.Load(),
	}
}

// NewServer is a server of h.
func NewServer(h Handler, o *Options) *Server {
	s := &Server{handler: h, opt: o.orDefaults()}
	s.spare.New = func() any { return new(task) }
	return s
}

// ServeConn serves conn until it ends, closes it and waits for the handlers of its calls.
// It returns nil if the other side closed it or ctx ended; otherwise the reason, see
// ErrCluster and those that follow it.
func (s *Server) ServeConn(ctx context.Context, conn net.Conn) error {
	s.stats.conns.Add(1)
	ended := ctx
	ctx, cancel := context.WithCancelCause(ctx)
	v := &service{sender: newSender(s.opt.Silence), server: s, ctx: ctx, running: make(map[uint64]*task), groups: make(map[string]string), work: make(chan *task)}
	var wg sync.WaitGroup
	defer func() { _ = conn.Close() }()
	defer wg.Wait()
	defer cancel(nil)
	// Whoever learns of the end first closes the connection, which tells the others.
	context.AfterFunc(ctx, func() {
		v.end(context.Cause(ctx))
		_ = conn.Close()
	})
	if err := greet(conn, false, s.opt.ClusterID(), s.opt.DialTimeout); err != nil {
		if ended.Err() != nil {
			return nil
		}
		s.stats.refused.Add(1)
		return fmt.Errorf("greeting: %w", err)
	}
	wg.Go(func() { cancel(v.write(conn)) })
	wg.Go(func() {
		if err := v.look(ctx); err != nil {
			cancel(err)
		}
	})
	cancel(v.read(conn))
	close(v.work)
	v.workers.Wait()
	err := context.Cause(ctx)
	switch {
	case ended.Err() != nil, errors.Is(err, io.EOF):
		return nil
	case errors.Is(err, ErrMalformed):
		s.stats.malformed.Add(1)
	}
	return err
}
