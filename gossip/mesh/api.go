package mesh

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/meshkv/meshkv/internal/nowait"
)

// A port is a service of this node to others, beside links, on connections of its own. mesh.mu protects open.
type port struct {
	what  string // for errors
	kind  byte   // of the greeting
	limit int    // of inbound connections that are open
	open  int
	conns chan net.Conn
	count *portCounters
}

// An APIConn is a connection from [Mesh.APIConns] or [Mesh.ServerConns], on which nothing was read but the
// peer's greeting.
type APIConn struct {
	net.Conn
	// Peer is who dialed: Name, Inc and Addr are set.
	Peer Member

	once   sync.Once
	closed func()
}

// SyscallConn implements syscall.Conn.
func (c *APIConn) SyscallConn() (syscall.RawConn, error) { return nowait.SyscallConn(c.Conn) }

// Close closes the connection and makes room for another. It may be called twice.
func (c *APIConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(c.closed)
	return err
}

// DialAPI connects with the API of another member through its mesh port. The connection is the caller's; it does
// not end with this Mesh.
//
// The errors: ErrUnknownMember, also for a member without an incarnation; ErrRefused, with the reason, if there are
// too many such connections there, or another process is at its address; ErrNotRunning.
func (m *Mesh) DialAPI(ctx context.Context, name string) (net.Conn, error) {
	return m.dialPort(ctx, &m.api, name)
}

// DialServer connects with the consensus of another member, which is a server, as DialAPI does with its API.
func (m *Mesh) DialServer(ctx context.Context, name string) (net.Conn, error) {
	return m.dialPort(ctx, &m.server, name)
}

func (m *Mesh) dialPort(ctx context.Context, p *port, name string) (net.Conn, error) {
	m.mu.Lock()
	running := m.phase == phaseRunning
	addr, err := m.roster.apiAddr(name)
	m.mu.Unlock()
	if !running {
		return nil, ErrNotRunning
	}
	if err != nil {
		return nil, fmt.Errorf("connect with the %s of %s: %w", p.what, name, err)
	}
	p.count.dials.Add(1)
	conn, peer, err := m.greet(ctx, p.kind, addr, m.identity())
	if err == nil && peer.name != name {
		conn.Close()
		err = fmt.Errorf("%w: %s at %s is not it", ErrRefused, peer.name, addr)
	}
	if err != nil {
		p.count.dialFailures.Add(1)
		return nil, fmt.Errorf("connect with the %s of %s: %w", p.what, name, err)
	}
	return conn, nil
}

// APIConns gives the connections that others make by DialAPI, as *APIConn. The reader owns them. Those that are open
// when Run ends are closed; the channel is closed then.
func (m *Mesh) APIConns() <-chan net.Conn { return m.api.conns }

// ServerConns gives the connections that others make by DialServer, as APIConns does.
func (m *Mesh) ServerConns() <-chan net.Conn { return m.server.conns }

// portOf is the port of a kind of greeting, or nil.
func (m *Mesh) portOf(kind byte) *port {
	switch kind {
	case kindAPI:
		return &m.api
	case kindServer:
		return &m.server
	}
	return nil
}

// answerPort takes a connection whose greeting was read. The greeting is held to the rules for links; that
// there is one already is no objection.
func (m *Mesh) answerPort(ctx context.Context, p *port, conn net.Conn, peer hello) {
	m.mu.Lock()
	verdict := m.roster.admit(time.Now(), peer)
	if verdict == accepted && p.open >= p.limit {
		verdict = refusedFull
	}
	if verdict == accepted {
		p.open++
	}
	m.mu.Unlock()
	if verdict != accepted {
		p.count.refused.Add(1)
		m.sendRefusal(conn, verdict, peer)
		conn.Close()
		return
	}
	c := &APIConn{Conn: conn, Peer: Member{Name: peer.name, Inc: peer.inc, Addr: peer.addr, Status: StatusAlive}}
	life, end := context.WithCancel(ctx)
	c.closed = func() { // set before ctx can close c
		end()
		m.mu.Lock()
		p.open--
		m.mu.Unlock()
	}
	context.AfterFunc(life, func() { c.Close() })
	_, err := conn.Write(appendHello(nil, m.identity()))
	if err == nil {
		err = conn.SetDeadline(time.Time{})
	}
	if err != nil || ctx.Err() != nil {
		c.Close()
		return
	}
	p.count.made.Add(1)
	select { // there is room for all that may be open
	case p.conns <- c:
	case <-ctx.Done():
		c.Close()
	}
}

var errStock = errors.New("it speaks serf only")

// apiAddr is where the member's mesh is.
func (r *roster) apiAddr(name string) (string, error) {
	if name == r.self.name {
		return "", fmt.Errorf("%w: it is this node itself", ErrUnknownMember)
	}
	rec := r.records[name]
	if rec == nil {
		return "", ErrUnknownMember
	}
	switch v := r.view(rec); {
	case v.Status == StatusUnknown && rec.link != nil: // membership follows
		return rec.link.peer.addr, nil
	case v.Status == StatusUnknown, v.Status == StatusReaped:
		return "", ErrUnknownMember
	case v.Inc == 0:
		return "", fmt.Errorf("%w: %w", ErrUnknownMember, errStock)
	default:
		return v.Addr, nil
	}
}
