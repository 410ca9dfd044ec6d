package mesh

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	sniffTimeout = 5 * time.Second
	maxSniffing  = 256
	udpBuffer    = 64 << 10
	udpRecvSpace = 2 << 20
)

// transport is memberlist's Transport on the mesh's one port. It gives memberlist the packets and
// streams that begin as memberlist's do, and ours to onLink.
type transport struct {
	network     Network
	count       *counters
	dialTimeout time.Duration
	tcp         net.Listener
	udp         net.PacketConn
	ip          net.IP // advertised
	port        int

	// prepare is called when memberlist first asks for its address: after serf has set its
	// delegates in memberlist's configuration and before memberlist starts goroutines that use them.
	prepare  func()
	prepared bool

	onLink   func(net.Conn) // in the stream's goroutine; the magic byte is read already
	packets  chan *memberlist.Packet
	streams  chan net.Conn
	sniffing chan struct{}

	ctx    context.Context // ends with cancel, at Shutdown
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu    sync.Mutex // protects conns
	conns map[*libraryConn]struct{}
}

var _ memberlist.Transport = (*transport)(nil)

// listen binds TCP and UDP to the same port.
func listen(n Network, bind string) (net.Listener, net.PacketConn, error) {
	_, port, err := net.SplitHostPort(bind)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	for attempt := 0; ; attempt++ {
		tcp, err := n.ListenTCP(bind)
		if err != nil {
			return nil, nil, bindError(bind, "TCP", err)
		}
		udp, err := n.ListenUDP(tcp.Addr().String())
		if err == nil {
			if c, ok := udp.(interface{ SetReadBuffer(int) error }); ok {
				for size := udpRecvSpace; size > 0 && c.SetReadBuffer(size) != nil; size /= 2 {
				}
			}
			return tcp, udp, nil
		}
		tcp.Close()
		// The kernel's choice for TCP may be taken for UDP.
		if port != "0" || attempt == 16 || !errors.Is(err, syscall.EADDRINUSE) {
			return nil, nil, bindError(bind, "UDP", err)
		}
	}
}

func bindError(bind, what string, err error) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%w: %s %s: stop the process that has it, or bind the mesh to another port", ErrAddrInUse, what, bind)
	}
	return fmt.Errorf("mesh: listen on %s %s: %w", what, bind, err)
}

func newTransport(n Network, bind string, count *counters, dialTimeout time.Duration) (*transport, error) {
	tcp, udp, err := listen(n, bind)
	if err != nil {
		return nil, err
	}
	t := &transport{
		network: n, count: count, dialTimeout: dialTimeout, tcp: tcp, udp: udp,
		packets: make(chan *memberlist.Packet, 64), streams: make(chan net.Conn),
		sniffing: make(chan struct{}, maxSniffing), conns: make(map[*libraryConn]struct{}),
	}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	return t, nil
}

// start begins to accept. prepare and onLink are set by then.
func (t *transport) start() {
	t.wg.Go(t.acceptStreams)
	t.wg.Go(t.readPackets)
}

func (t *transport) acceptStreams() {
	var pause time.Duration
	for {
		conn, err := t.tcp.Accept()
		if err != nil {
			pause = min(max(2*pause, 5*time.Millisecond), time.Second) // out of descriptors, most likely
			select {
			case <-t.ctx.Done():
				return
			case <-time.After(pause):
			}
			continue
		}
		pause = 0
		select {
		case t.sniffing <- struct{}{}:
			t.wg.Go(func() { t.sniff(conn) })
		default:
			t.count.streamsOverLimit.Add(1)
			conn.Close()
		}
	}
}

// sniff reads the first byte of a stream and gives it to who speaks so.
func (t *transport) sniff(conn net.Conn) {
	stop := context.AfterFunc(t.ctx, func() { conn.Close() })
	var first [1]byte
	conn.SetReadDeadline(time.Now().Add(sniffTimeout))
	_, err := io.ReadFull(conn, first[:])
	conn.SetReadDeadline(time.Time{})
	stop()
	<-t.sniffing
	switch {
	case err != nil, t.ctx.Err() != nil:
		conn.Close()
		if !errors.Is(err, io.EOF) { // a mere connect is how others see whether we are there
			t.count.streamsUnknown.Add(1)
		}
	case first[0] == magicByte:
		t.onLink(conn)
	case isMemberlist(first[0]):
		c := t.track(conn, first[:])
		select {
		case t.streams <- c:
		case <-t.ctx.Done():
			c.Close()
		}
	default:
		t.count.streamsUnknown.Add(1)
		conn.Close()
	}
}

// isMemberlist knows the message types, the version byte of encryption and the label byte.
func isMemberlist(b byte) bool { return b <= 13 || b == 244 }

func (t *transport) readPackets() {
	buf := make([]byte, udpBuffer)
	for {
		n, from, err := t.udp.ReadFrom(buf)
		at := time.Now()
		if err != nil {
			select {
			case <-t.ctx.Done():
				return
			case <-time.After(5 * time.Millisecond): // an ICMP error of an earlier write
			}
			continue
		}
		switch {
		case n > 0 && isMemberlist(buf[0]):
			p := &memberlist.Packet{Buf: bytes.Clone(buf[:n]), From: from, Timestamp: at}
			select {
			case t.packets <- p:
			default:
				t.count.packetsDropped.Add(1)
			}
		case n > 0 && buf[0] == magicByte:
			t.count.packetsOurs.Add(1)
		default:
			t.count.packetsUnknown.Add(1)
		}
	}
}

// FinalAdvertiseAddr implements memberlist.Transport.
func (t *transport) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	if !t.prepared {
		t.prepared = true
		t.prepare()
	}
	return t.ip, t.port, nil
}

// WriteTo implements memberlist.Transport.
func (t *transport) WriteTo(b []byte, addr string) (time.Time, error) {
	ap, err := netip.ParseAddrPort(addr)
	if err != nil {
		return time.Time{}, err
	}
	_, err = t.udp.WriteTo(b, net.UDPAddrFromAddrPort(ap))
	return time.Now(), err
}

// PacketCh implements memberlist.Transport.
func (t *transport) PacketCh() <-chan *memberlist.Packet { return t.packets }

// StreamCh implements memberlist.Transport.
func (t *transport) StreamCh() <-chan net.Conn { return t.streams }

// DialTimeout implements memberlist.Transport.
func (t *transport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(t.ctx, min(timeout, t.dialTimeout))
	defer cancel()
	conn, err := t.network.DialTCP(ctx, addr)
	if err != nil {
		return nil, err
	}
	return t.track(conn, nil), nil
}

// Shutdown implements memberlist.Transport: nothing is open and no goroutine runs afterwards.
func (t *transport) Shutdown() error {
	t.cancel()
	t.tcp.Close()
	t.udp.Close()
	t.mu.Lock()
	conns := make([]*libraryConn, 0, len(t.conns))
	for c := range t.conns {
		conns = append(conns, c)
	}
	t.mu.Unlock()
	for _, c := range conns { // memberlist's goroutines on them end
		c.Close()
	}
	t.wg.Wait()
	return nil
}

// libraryConn is a stream that memberlist owns.
type libraryConn struct {
	net.Conn
	t     *transport
	first []byte // read already
}

func (t *transport) track(conn net.Conn, first []byte) *libraryConn {
	c := &libraryConn{Conn: conn, t: t, first: bytes.Clone(first)}
	t.mu.Lock()
	t.conns[c] = struct{}{}
	t.mu.Unlock()
	if t.ctx.Err() != nil { // Shutdown may have passed already
		c.Close()
	}
	return c
}

func (c *libraryConn) Read(b []byte) (int, error) {
	if len(c.first) > 0 {
		n := copy(b, c.first)
		c.first = c.first[n:]
		return n, nil
	}
	return c.Conn.Read(b)
}

func (c *libraryConn) Close() error {
	c.t.mu.Lock()
	delete(c.t.conns, c)
	c.t.mu.Unlock()
	return c.Conn.Close()
}
