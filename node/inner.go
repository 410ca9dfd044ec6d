package node

import (
	"context"
	"errors"
	"net"
	"sync"
)

// serveMembers serves requests that other nodes forward, over the mesh port.
func (n *Node) serveMembers(ctx context.Context) {
	ln := &meshListener{conns: n.mesh.APIConns(), addr: meshAddr(n.MeshAddr()), closed: make(chan struct{})}
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	if err := n.inner.Serve(ln); err != nil && !errors.Is(err, net.ErrClosed) {
		n.log.Warn("other nodes are not served", "err", err)
	}
}

// A meshListener gives the connections of other nodes to an API server.
type meshListener struct {
	conns  <-chan net.Conn
	addr   meshAddr
	once   sync.Once
	closed chan struct{}
}

// Accept implements net.Listener.
func (l *meshListener) Accept() (net.Conn, error) {
	select {
	case c, ok := <-l.conns:
		if !ok {
			return nil, net.ErrClosed
		}
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *meshListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr implements net.Listener.
func (l *meshListener) Addr() net.Addr { return l.addr }

type meshAddr string

func (meshAddr) Network() string  { return "tcp" }
func (a meshAddr) String() string { return string(a) }
