//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/meshkv/meshkv/examples/overlay/netlab"
	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
)

// pingSize is the payload of one ICMP echo that fills the overlay's MTU.
const pingSize = OverlayMTU - 20 - 8

// A Ping is the result of one pair.
type Ping struct {
	From, To string
	Expected bool // the two hosts can reach each other
	Replied  bool
	RTT      time.Duration
	Err      error // the ping could not be sent
}

// OK reports that the pair behaved as expected.
func (p Ping) OK() bool { return p.Err == nil && p.Replied == p.Expected }

// PingAll pings from every container on a live host to every other container
// and to the gateway of every host, with packets that fill the MTU. A pair
// that is to be reached gets up to attempts echoes; one that is not, one.
func (s *State) PingAll(ctx context.Context, attempts int) []Ping {
	type target struct {
		name, host string
		ip         netip.Addr
	}
	live := map[string]bool{}
	var targets []target
	for _, h := range s.Hosts {
		live[h.Name] = h.Agent.Alive()
		targets = append(targets, target{h.Name, h.Name, h.Node().Gateway()})
	}
	for _, c := range s.Containers {
		targets = append(targets, target{c.Name, c.Host, c.IP})
	}

	results := make([][]Ping, len(s.Containers))
	var wg sync.WaitGroup
	for i, c := range s.Containers {
		if !live[c.Host] {
			continue
		}
		wg.Go(func() {
			for _, t := range targets {
				if t.name == c.Name {
					continue
				}
				p := Ping{From: c.Name, To: t.name}
				p.Expected = t.host == c.Host || live[t.host] && s.connected(c.Host, t.host)
				n := attempts
				if !p.Expected {
					n = 1
				}
				for range n {
					p.RTT, p.Err = ping(ctx, s.namespace(c.Name), t.ip, 500*time.Millisecond)
					p.Replied = p.Err == nil
					if errors.Is(p.Err, os.ErrDeadlineExceeded) {
						p.Err = nil
					}
					if p.Replied || p.Err != nil {
						break
					}
				}
				results[i] = append(results[i], p)
			}
		})
	}
	wg.Wait()
	var all []Ping
	for _, r := range results {
		all = append(all, r...)
	}
	return all
}

// ping sends one echo from inside ns; os.ErrDeadlineExceeded if no reply came.
func ping(ctx context.Context, ns netlab.Namespace, to netip.Addr, wait time.Duration) (time.Duration, error) {
	var conn *icmp.PacketConn
	err := ns.Do(func() (err error) {
		conn, err = icmp.ListenPacket("ip4:icmp", "0.0.0.0")
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("ping from %s: %w", ns.Name, err)
	}
	defer conn.Close()

	start := time.Now()
	deadline := start.Add(wait)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	if err := conn.SetDeadline(deadline); err != nil {
		return 0, err
	}
	// Only one echo is under way in a namespace at a time, so its number
	// tells its reply from late ones.
	id := int(start.UnixNano()/1000) & 0xffff
	echo := icmp.Message{Type: ipv4.ICMPTypeEcho, Body: &icmp.Echo{ID: id, Seq: 1, Data: make([]byte, pingSize)}}
	b, err := echo.Marshal(nil)
	if err != nil {
		return 0, err
	}
	if _, err := conn.WriteTo(b, &net.IPAddr{IP: to.AsSlice()}); err != nil {
		return 0, fmt.Errorf("ping from %s: %w", ns.Name, err)
	}
	buf := make([]byte, 2048)
	for {
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			return 0, err
		}
		m, err := icmp.ParseMessage(1, buf[:n])
		if err != nil || m.Type != ipv4.ICMPTypeEchoReply || from.String() != to.String() {
			continue
		}
		if e, ok := m.Body.(*icmp.Echo); ok && e.ID == id && len(e.Data) == pingSize {
			return time.Since(start), nil
		}
	}
}
