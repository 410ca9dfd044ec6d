package faultnet

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"
)

// Network is the cable between all nodes. Use New. Safe for concurrent use.
type Network struct {
	mu      sync.Mutex        // protects the fields below
	owner   map[string]string // "tcp host:port" or "udp host:port" → node
	group   map[string]int    // of a partition; a node in none is in group 0
	ways    map[way]Traffic   // cut ways
	latency time.Duration
	pair    map[[2]string]time.Duration
	loss    float64
	rand    *rand.Rand
	changed chan struct{} // closed and replaced at every change of the faults
	linger  []*conn       // closed by their ends while cut off: the others must not notice yet
}

// New is a network without faults. seed drives packet loss.
func New(seed uint64) *Network {
	return &Network{
		owner: make(map[string]string), group: make(map[string]int), ways: make(map[way]Traffic), pair: make(map[[2]string]time.Duration),
		rand: rand.New(rand.NewPCG(seed, 0xFA)), changed: make(chan struct{}),
	}
}

// Node is the network as the node of that name has it. It implements mesh.Network.
func (n *Network) Node(name string) *Endpoint { return &Endpoint{net: n, name: name} }

// Partition lets only nodes of one group reach each other. Nodes that are in no group are
// together in one of their own. It replaces the partition that there was. It fails, and changes
// nothing, if a node is in two groups.
func (n *Network) Partition(groups ...[]string) error {
	group := make(map[string]int)
	for i, g := range groups {
		for _, name := range g {
			if at, ok := group[name]; ok && at != i+1 {
				return fmt.Errorf("faultnet: %q is in two groups", name)
			}
			group[name] = i + 1
		}
	}
	n.change(func() { n.group = group })
	return nil
}

// Traffic is a set of protocols.
type Traffic uint8

// The protocols that can be cut.
const (
	Packets Traffic = 1 << iota // UDP
	Streams                     // TCP
	All     = Packets | Streams
)

// way is one direction between two nodes. "" is every node.
type way struct{ from, to string }

// Cut drops what goes from one node to another, in this direction and of these protocols only, beside the
// partition that there may be. "" stands for every node. A stream whose one direction is cut goes on in the other (up to what a
// buffer takes a real one would, too); a dial needs both.
func (n *Network) Cut(from, to string, what Traffic) {
	n.change(func() { n.ways[way{from, to}] |= what })
}

// Mend undoes Cut with the same nodes.
func (n *Network) Mend(from, to string, what Traffic) {
	n.change(func() {
		if n.ways[way{from, to}] &^= what; n.ways[way{from, to}] == 0 {
			delete(n.ways, way{from, to})
		}
	})
}

// cut says whether the way is. mu is held.
func (n *Network) cut(from, to string, what Traffic) bool {
	if from == to {
		return false
	}
	if n.group[from] != n.group[to] {
		return true
	}
	if len(n.ways) == 0 {
		return false
	}
	return (n.ways[way{from, to}]|n.ways[way{from, ""}]|n.ways[way{"", to}])&what != 0
}

// Heal ends the partition, all cuts, all latency and all loss.
func (n *Network) Heal() {
	n.change(func() {
		n.group, n.ways, n.pair = make(map[string]int), make(map[way]Traffic), make(map[[2]string]time.Duration)
		n.latency, n.loss = 0, 0
	})
}

// SetLatency delays everything between different nodes by d in each direction, except between
// pairs that have their own.
func (n *Network) SetLatency(d time.Duration) { n.change(func() { n.latency = max(d, 0) }) }

// SetPairLatency delays everything between a and b by d in each direction.
func (n *Network) SetPairLatency(a, b string, d time.Duration) {
	n.change(func() { n.pair[pairOf(a, b)] = max(d, 0) })
}

// SetLoss loses each packet between different nodes with probability p. Streams lose nothing.
func (n *Network) SetLoss(p float64) { n.change(func() { n.loss = p }) }

// Reachable says whether no partition is between a and b. It does not look at Cut.
func (n *Network) Reachable(a, b string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.group[a] == n.group[b]
}

func pairOf(a, b string) [2]string {
	p := [2]string{a, b}
	slices.SortFunc(p[:], cmp.Compare[string])
	return p
}

func (n *Network) change(f func()) {
	n.mu.Lock()
	f()
	close(n.changed)
	n.changed = make(chan struct{})
	linger := n.linger
	n.linger = nil
	n.mu.Unlock()
	for _, c := range linger {
		c.finish()
	}
}

// keepCut holds a connection that its end has closed until the next change, if the way is cut.
func (n *Network) keepCut(c *conn) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	to, ok := n.owner["tcp "+c.RemoteAddr().String()]
	if !ok || !n.cut(c.end.name, to, Streams) {
		return false
	}
	n.linger = append(n.linger, c)
	return true
}

// path is the state of the way from a node to an address. changed is closed when it may be otherwise.
type path struct {
	cut     bool
	cutBack bool // what comes from there
	delay   time.Duration
	lossy   bool
	changed <-chan struct{}
}

func (n *Network) path(from, network, addr string) path {
	n.mu.Lock()
	defer n.mu.Unlock()
	p := path{changed: n.changed}
	to, ok := n.owner[network+" "+addr]
	if !ok || to == from {
		return p
	}
	what := Packets
	if network == "tcp" {
		what = Streams
	}
	p.cut, p.cutBack = n.cut(from, to, what), n.cut(to, from, what)
	if p.delay, ok = n.pair[pairOf(from, to)]; !ok {
		p.delay = n.latency
	}
	p.lossy = network == "udp" && n.loss > 0 && n.rand.Float64() < n.loss
	return p
}

func (n *Network) claim(network, addr, name string) {
	n.mu.Lock()
	n.owner[network+" "+addr] = name
	n.mu.Unlock()
}

// release forgets an address, unless somebody else has claimed it by now.
func (n *Network) release(network, addr, name string) {
	n.mu.Lock()
	if n.owner[network+" "+addr] == name {
		delete(n.owner, network+" "+addr)
	}
	n.mu.Unlock()
}

// Endpoint opens the sockets of one node.
type Endpoint struct {
	net  *Network
	name string
}

// ListenTCP implements mesh.Network.
func (e *Endpoint) ListenTCP(addr string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	e.net.claim("tcp", l.Addr().String(), e.name)
	return &listener{Listener: l, end: e}, nil
}

// ListenUDP implements mesh.Network.
func (e *Endpoint) ListenUDP(addr string) (net.PacketConn, error) {
	c, err := net.ListenPacket("udp", addr)
	if err != nil {
		return nil, err
	}
	e.net.claim("udp", c.LocalAddr().String(), e.name)
	return newPacketConn(c, e), nil
}

// DialTCP implements mesh.Network. Across a partition it waits for the end of that or of ctx, and a
// latency costs one round trip.
func (e *Endpoint) DialTCP(ctx context.Context, addr string) (net.Conn, error) {
	for {
		p := e.net.path(e.name, "tcp", addr)
		if p.cut || p.cutBack {
			select {
			case <-p.changed:
				continue
			case <-ctx.Done():
				return nil, &net.OpError{Op: "dial", Net: "tcp", Err: ctx.Err()}
			}
		}
		if !wait(ctx, 2*p.delay) {
			return nil, &net.OpError{Op: "dial", Net: "tcp", Err: ctx.Err()}
		}
		break
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	local := c.LocalAddr().String()
	e.net.claim("tcp", local, e.name)
	return newConn(c, e, func() { e.net.release("tcp", local, e.name) }), nil
}

func wait(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

type listener struct {
	net.Listener
	end  *Endpoint
	once sync.Once
}

func (l *listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return newConn(c, l.end, func() {}), nil
}

func (l *listener) Close() error {
	l.once.Do(func() { l.end.net.release("tcp", l.Addr().String(), l.end.name) })
	return l.Listener.Close()
}
