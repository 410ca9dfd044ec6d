package mesh

import (
	"context"
	"net"
)

// A Network opens the sockets of one node. Addresses are host:port.
type Network interface {
	ListenTCP(addr string) (net.Listener, error)
	ListenUDP(addr string) (net.PacketConn, error)
	DialTCP(ctx context.Context, addr string) (net.Conn, error)
}

// machineNetwork is the operating system's network.
type machineNetwork struct{}

func (machineNetwork) ListenTCP(addr string) (net.Listener, error) { return net.Listen("tcp", addr) }
func (machineNetwork) ListenUDP(addr string) (net.PacketConn, error) {
	return net.ListenPacket("udp", addr)
}

func (machineNetwork) DialTCP(ctx context.Context, addr string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", addr)
}
