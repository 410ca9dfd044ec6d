// Package streams lets the Raft groups of a node share one listener. Each stream
// begins with the name of the group that it is for:
//
//	version u8 (1), length of the name u8, name
//
// A Mux hands streams that were accepted to the Layer of their group; a Layer is
// what Raft's network transport dials and listens on. Whoever made the listener
// has authenticated the peer.
package streams

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/raft"
	"github.com/meshkv/meshkv/internal/nowait"
)

// Errors of this package. Match with errors.Is.
var (
	// ErrTaken: the group has a layer already.
	ErrTaken = errors.New("group has its streams already")
	// ErrName: names of groups have 1 to 255 bytes.
	ErrName = errors.New("invalid name of a group")
)

const (
	version = 1
	// greeting is how long a peer has to say which group it wants.
	greeting = 5 * time.Second
	// maxGreeting is how many may be doing that; more are refused.
	maxGreeting = 64
	// backlog is how many streams may wait for a group; more are refused.
	backlog = 64
)

// A Dialer opens a stream to the node at addr.
type Dialer func(ctx context.Context, addr string) (net.Conn, error)

// A Mux shares a listener among groups. Safe for concurrent use.
type Mux struct {
	ln      net.Listener
	dial    Dialer
	refused atomic.Uint64

	mu     sync.Mutex // protects the fields below
	layers map[string]*Layer
}

// New is a Mux of what ln accepts. Nothing is accepted until Run is called.
func New(ln net.Listener, dial Dialer) *Mux {
	return &Mux{ln: ln, dial: dial, layers: make(map[string]*Layer)}
}

// Refused counts the streams that were closed because their greeting was
// malformed or late, because nobody here has their group, or because too many
// waited.
func (m *Mux) Refused() uint64 { return m.refused.Load() }

// Run accepts streams until ctx is done, and returns nil, or until the listener
// fails. It closes the listener. Layers go on with the streams that they have.
func (m *Mux) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var greeted sync.WaitGroup
	defer greeted.Wait()
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = m.ln.Close() })()
	places := make(chan struct{}, maxGreeting)
	for {
		conn, err := m.ln.Accept()
		if ctx.Err() != nil {
			if err == nil {
				_ = conn.Close()
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("accept: %w", err)
		}
		select {
		case places <- struct{}{}:
		default:
			m.refuse(conn)
			continue
		}
		greeted.Go(func() {
			defer func() { <-places }()
			// A stream that is closed reads no more: Run ends at once.
			stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
			l := m.greet(conn)
			if !stop() || l == nil || !l.offer(conn) {
				m.refuse(conn)
			}
		})
	}
}

func (m *Mux) refuse(conn net.Conn) {
	m.refused.Add(1)
	_ = conn.Close()
}

// greet reads which group conn is for; nil if there is none.
func (m *Mux) greet(conn net.Conn) *Layer {
	var head [2]byte
	if conn.SetReadDeadline(time.Now().Add(greeting)) != nil {
		return nil
	}
	if _, err := io.ReadFull(conn, head[:]); err != nil || head[0] != version || head[1] == 0 {
		return nil
	}
	name := make([]byte, head[1])
	if _, err := io.ReadFull(conn, name); err != nil || conn.SetReadDeadline(time.Time{}) != nil {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.layers[string(name)]
}

// Layer is where the group called name gets its streams, until it is closed. The
// error matches ErrTaken or ErrName.
func (m *Mux) Layer(name string) (*Layer, error) {
	if name == "" || len(name) > 255 {
		return nil, fmt.Errorf("%w: %d bytes", ErrName, len(name))
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.layers[name] != nil {
		return nil, ErrTaken
	}
	l := &Layer{mux: m, name: name, accepted: make(chan net.Conn, backlog), open: make(map[*stream]struct{})}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	m.layers[name] = l
	return l, nil
}

// A Layer is the streams of one group: a raft.StreamLayer.
type Layer struct {
	mux      *Mux
	name     string
	accepted chan net.Conn
	// ctx ends when the layer is closed: raft.StreamLayer gives Dial none.
	ctx    context.Context
	cancel context.CancelFunc

	mu   sync.Mutex // protects the fields below
	open map[*stream]struct{}
	done bool
}

var _ raft.StreamLayer = (*Layer)(nil)

// A stream takes itself off the list of its layer when it is closed.
type stream struct {
	net.Conn
	layer *Layer
}

// SyscallConn implements syscall.Conn.
func (s *stream) SyscallConn() (syscall.RawConn, error) { return nowait.SyscallConn(s.Conn) }

func (s *stream) Close() error {
	s.layer.mu.Lock()
	delete(s.layer.open, s)
	s.layer.mu.Unlock()
	return s.Conn.Close()
}

// offer gives conn to whoever accepts, and reports whether it was taken.
func (l *Layer) offer(conn net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.done {
		return false
	}
	select {
	case l.accepted <- conn:
		return true
	default:
		return false
	}
}

// adopt makes conn end with the layer.
func (l *Layer) adopt(conn net.Conn) (net.Conn, error) {
	s := &stream{conn, l}
	l.mu.Lock()
	done := l.done
	if !done {
		l.open[s] = struct{}{}
	}
	l.mu.Unlock()
	if done {
		return nil, errors.Join(net.ErrClosed, conn.Close())
	}
	return s, nil
}

// Accept is the next stream to this group. The error matches net.ErrClosed once
// the layer is closed.
func (l *Layer) Accept() (net.Conn, error) {
	select {
	case <-l.ctx.Done():
		return nil, net.ErrClosed
	case conn := <-l.accepted:
		return l.adopt(conn)
	}
}

// Dial opens a stream to the same group of the node at addr. Whether that node has
// the group shows only when something is read.
func (l *Layer) Dial(addr raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	return l.DialLayer(l.name, string(addr), timeout)
}

// DialLayer is Dial to the layer of another name. The stream ends with l all the same.
func (l *Layer) DialLayer(name, addr string, timeout time.Duration) (net.Conn, error) {
	if name == "" || len(name) > 255 {
		return nil, fmt.Errorf("%w: %d bytes", ErrName, len(name))
	}
	ctx, cancel := context.WithCancel(l.ctx) // the layer may be closed meanwhile
	defer cancel()
	if timeout > 0 {
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	conn, err := l.mux.dial(ctx, addr)
	if err == nil {
		deadline, _ := ctx.Deadline() // none: the zero time
		err = conn.SetWriteDeadline(deadline)
		if err == nil {
			_, err = conn.Write(append([]byte{version, byte(len(name))}, name...))
		}
		if err = errors.Join(err, conn.SetWriteDeadline(time.Time{})); err != nil {
			err = errors.Join(err, conn.Close())
		}
	}
	if err != nil {
		return nil, fmt.Errorf("open stream: %w", err)
	}
	return l.adopt(conn)
}

// Addr is the address of the shared listener.
func (l *Layer) Addr() net.Addr { return l.mux.ln.Addr() }

// Close ends all streams of the group. It may be called twice.
func (l *Layer) Close() error {
	l.mu.Lock()
	if l.done {
		l.mu.Unlock()
		return nil
	}
	l.done = true
	l.cancel()
	open := l.open
	l.open = make(map[*stream]struct{})
	l.mu.Unlock()

	l.mux.mu.Lock()
	delete(l.mux.layers, l.name)
	l.mux.mu.Unlock()
	for s := range open {
		_ = s.Conn.Close() // its reader and writer learn it
	}
	for {
		select {
		case conn := <-l.accepted:
			_ = conn.Close()
		default:
			return nil
		}
	}
}
