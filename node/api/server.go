package api

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/internal/nowait"
)

// A Backend is the node that is served.
type Backend interface {
	client.Cluster
	// Lookup is the keyspace of that name if the node holds it; unlike Keyspace
	// it makes none. client.ErrNotFound if there is none, client.ErrBadRequest
	// if the name is invalid. It is asked by every read and must be cheap.
	Lookup(name string) (client.Keyspace, error)
	// Warnings is what an operator should look at though the node is ready.
	Warnings() []string
	// NotReady says what the readiness of the node waits for; empty when it is
	// ready. It is asked often and must be cheap.
	NotReady() []string
}

// Options of a Server. Zero values are usable.
type Options struct {
	// Registry is shown at /metrics and receives the server's own metrics. One
	// registry serves one Server. Default: a registry of its own.
	Registry *prometheus.Registry
	// Logger receives debug records of connections that misbehave. Default: discard.
	Logger *slog.Logger
	// Timeout bounds an HTTP call that names none. Default 10s.
	Timeout time.Duration
	// Heartbeat is the silence after which an HTTP watch says that it lives.
	// Default 15s.
	Heartbeat time.Duration
	// IdleTimeout ends connections over which nothing comes: HTTP ones between
	// requests, native ones at all (their clients ping). Default 60s.
	IdleTimeout time.Duration
	// WriteTimeout ends connections whose client does not read. Default 30s.
	WriteTimeout time.Duration
	// MaxConns bounds the connections that Serve holds; further ones are
	// closed at once. Default 4096.
	MaxConns int
	// MaxWatches bounds the watches over all connections; further ones are
	// refused as overloaded. Default 10,000.
	MaxWatches int
	// MaxInflight bounds the requests in flight of one native connection; it
	// is read no further until one ends. Default 1024.
	MaxInflight int
	// MaxInflightBytes bounds the bytes of all requests in flight; further
	// ones are refused as overloaded. Default 256 MiB.
	MaxInflightBytes int64
}

func (o Options) withDefaults() Options {
	setDefault(&o.Timeout, 10*time.Second)
	setDefault(&o.Heartbeat, 15*time.Second)
	setDefault(&o.IdleTimeout, 60*time.Second)
	setDefault(&o.WriteTimeout, 30*time.Second)
	setDefault(&o.MaxConns, 4096)
	setDefault(&o.MaxWatches, 10_000)
	setDefault(&o.MaxInflight, 1024)
	setDefault(&o.MaxInflightBytes, 256<<20)
	if o.Registry == nil {
		o.Registry = prometheus.NewRegistry()
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

func setDefault[T int | int64 | time.Duration](v *T, def T) {
	if *v <= 0 {
		*v = def
	}
}

// A Server serves one backend. Safe for concurrent use.
type Server struct {
	backend  Backend
	strong   StrongBackend           // nil if the backend has no strong keyspaces
	operator client.KeyspaceOperator // nil if the backend is none
	opts     Options
	log      *slog.Logger
	metrics  *metrics
	draining chan struct{} // closed by Shutdown

	watches       atomic.Int64 // open, over all connections
	inflightBytes atomic.Int64 // of requests, over all connections

	mu       sync.Mutex // protects the fields below
	drained  bool       // draining is closed
	requests int        // in flight over HTTP, without watches and leave
	idle     chan struct{}
	native   map[*nativeConn]struct{}
	servers  map[*http.Server]struct{}
	conns    sync.WaitGroup // one for each of native
}

// NewServer makes a server; it listens nowhere until Serve or Handler is used.
func NewServer(b Backend, o Options) *Server {
	o = o.withDefaults()
	strong, _ := b.(StrongBackend)
	operator, _ := b.(client.KeyspaceOperator)
	return &Server{
		backend:  b,
		strong:   strong,
		operator: operator,
		opts:     o,
		log:      o.Logger,
		metrics:  newMetrics(o.Registry),
		draining: make(chan struct{}),
		native:   make(map[*nativeConn]struct{}),
		servers:  make(map[*http.Server]struct{}),
	}
}

// Handler serves the HTTP API and, at /v1/native, upgrades to the native
// protocol.
func (s *Server) Handler() http.Handler { return http.HandlerFunc(s.serveHTTP) }

// Serve accepts connections on ln until Shutdown or an error of ln, and closes
// ln. After Shutdown it returns nil, possibly before Shutdown has returned.
func (s *Server) Serve(ln net.Listener) error {
	srv := &http.Server{
		Handler:           s.Handler(),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       s.opts.IdleTimeout,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	s.mu.Lock()
	if s.drained {
		s.mu.Unlock()
		ln.Close()
		return nil
	}
	s.servers[srv] = struct{}{}
	s.mu.Unlock()
	err := srv.Serve(&boundedListener{Listener: ln, max: int64(s.opts.MaxConns), metrics: s.metrics})
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	s.mu.Lock()
	delete(s.servers, srv)
	s.mu.Unlock()
	return err
}

// Shutdown stops serving. Requests that come from now on are refused as
// draining and watches end with that error; requests in flight have until ctx
// ends, after which their connections are cut and the error of ctx is returned.
// It may be called twice.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	if !s.drained {
		s.drained = true
		close(s.draining)
	}
	var idle chan struct{}
	if s.requests > 0 {
		if s.idle == nil {
			s.idle = make(chan struct{})
		}
		idle = s.idle
	}
	native := make([]*nativeConn, 0, len(s.native))
	for c := range s.native {
		native = append(native, c)
	}
	servers := make([]*http.Server, 0, len(s.servers))
	for srv := range s.servers {
		servers = append(servers, srv)
	}
	s.mu.Unlock()

	var wg sync.WaitGroup
	defer wg.Wait()
	for _, srv := range servers {
		wg.Go(func() {
			if srv.Shutdown(ctx) != nil {
				srv.Close()
			}
		})
	}
	for _, c := range native {
		wg.Go(func() { c.drain(ctx) })
	}
	if idle != nil {
		select {
		case <-idle:
		case <-ctx.Done():
		}
	}
	wg.Wait()
	s.conns.Wait()
	return ctx.Err()
}

// isDraining reports whether Shutdown was called.
func (s *Server) isDraining() bool {
	select {
	case <-s.draining:
		return true
	default:
		return false
	}
}

// begin counts a request in, unless the server drains.
func (s *Server) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.drained {
		return false
	}
	s.requests++
	return true
}

func (s *Server) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests--
	if s.requests == 0 && s.idle != nil {
		close(s.idle)
		s.idle = nil
	}
}

// admitWatch counts a watch in, unless there are too many.
func (s *Server) admitWatch(t transport) error {
	if s.watches.Add(1) > int64(s.opts.MaxWatches) {
		s.watches.Add(-1)
		s.metrics.rejected(rejectWatches)
		return errTooManyWatches
	}
	s.metrics.watches[t].Inc()
	return nil
}

func (s *Server) releaseWatch(t transport) {
	s.watches.Add(-1)
	s.metrics.watches[t].Dec()
}

// boundedListener closes connections beyond max at once: a client sees them
// reset, and those that are served are not harmed.
type boundedListener struct {
	net.Listener
	max     int64
	open    atomic.Int64
	metrics *metrics
}

func (l *boundedListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if l.open.Add(1) > l.max {
			l.open.Add(-1)
			l.metrics.rejected(rejectConns)
			c.Close()
			continue
		}
		l.metrics.connections.Inc()
		return &countedConn{Conn: c, listener: l}, nil
	}
}

type countedConn struct {
	net.Conn
	listener *boundedListener
	closed   atomic.Bool
}

// SyscallConn implements syscall.Conn.
func (c *countedConn) SyscallConn() (syscall.RawConn, error) { return nowait.SyscallConn(c.Conn) }

func (c *countedConn) Close() error {
	if c.closed.CompareAndSwap(false, true) {
		c.listener.open.Add(-1)
		c.listener.metrics.connections.Dec()
	}
	return c.Conn.Close()
}
