package mesh

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/hashicorp/serf/serf"
)

const (
	controlTick   = 200 * time.Millisecond
	maxDialing    = 256 // dials in progress
	joinQueue     = 64
	conflictQueue = 16
	byeTimeout    = 2 * time.Second // who does not take our farewell by then is given up

	broadcastTimeout = 1500 * time.Millisecond
)

// Mesh is one node's membership and links. Its methods may be called from any goroutine.
type Mesh struct {
	cfg       Config
	self      hello // its inc is that of the start; see identity
	me        Member
	count     counters
	transport *transport
	liblog    *libraryLog

	out       chan MemberEvent
	links     chan *Link
	wake      chan struct{} // an event or link waits
	joins     chan string
	conflicts chan conflict
	serfOut   chan serf.Event
	recalled  []former               // members whom earlier processes knew
	dialing   atomic.Int64           // dials in progress
	removing  sync.WaitGroup         // uses of serf by ForceLeave and SetInc
	meta      atomic.Pointer[[]byte] // what membership tells of this node since SetInc

	mu       sync.Mutex // protects the fields below
	phase    phase
	roster   *roster
	byName   map[string]*Link
	newLinks []*Link // not yet delivered
	api      port
	server   port
	serf     *serf.Serf

	leaveMu sync.Mutex // held by a leave in progress; serf must not be shut down under it
}

type phase uint8

const (
	phaseNew phase = iota
	phaseRunning
	phaseEnded
)

// New binds the addresses. A node that is not run is to be closed.
func New(cfg Config) (*Mesh, error) {
	if err := cfg.prepare(); err != nil {
		return nil, err
	}
	m := &Mesh{
		cfg: cfg, byName: make(map[string]*Link),
		out: make(chan MemberEvent), links: make(chan *Link), wake: make(chan struct{}, 1),
		joins: make(chan string, joinQueue), conflicts: make(chan conflict, conflictQueue),
		serfOut: make(chan serf.Event, 256),
	}
	m.api = port{what: "API", kind: kindAPI, limit: cfg.MaxAPIConns, conns: make(chan net.Conn, cfg.MaxAPIConns), count: &m.count.api}
	m.server = port{what: "consensus", kind: kindServer, limit: maxServerConns, conns: make(chan net.Conn, maxServerConns), count: &m.count.server}
	m.liblog = &libraryLog{log: cfg.Logger, dropped: &m.count.warningsDropped}
	t, err := newTransport(cfg.Network, cfg.Bind, &m.count, cfg.Timings.DialTimeout)
	if err != nil {
		return nil, err
	}
	m.transport = t
	if t.ip, t.port, err = advertised(cfg.Advertise, cfg.Bind, t.tcp.Addr()); err != nil {
		t.Shutdown()
		return nil, err
	}
	addr := net.JoinHostPort(t.ip.String(), strconv.Itoa(t.port))
	m.self = hello{cluster: cfg.Cluster, name: cfg.Name, inc: cfg.Inc, addr: addr}
	m.me = Member{Name: cfg.Name, Addr: addr, APIAddr: cfg.APIAddr, Status: StatusAlive, Zone: cfg.Zone, Roles: cfg.Roles, Inc: cfg.Inc}
	if cfg.SnapshotPath != "" {
		if err := m.recall(); err != nil {
			t.Shutdown()
			return nil, err
		}
	}
	m.roster = newRoster(m.self, m.cfg.Join, cfg.Timings, rand.New(rand.NewPCG(cfg.Inc, uint64(t.port))))
	m.roster.limit = cfg.MaxLinks
	m.roster.remember(m.recalled)
	b, err := encodeTags(tagsOf(m.me, cfg.Cluster))
	if err == nil && len(b) > memberlist.MetaMaxSize {
		err = fmt.Errorf("%w: zone, roles, API address and cluster take %d bytes together, %d are allowed", ErrConfig, len(b), memberlist.MetaMaxSize)
	}
	if err != nil {
		t.Shutdown()
		return nil, err
	}
	return m, nil
}

// advertised finds the address that others shall use.
func advertised(advertise, bind string, bound net.Addr) (net.IP, int, error) {
	_, boundPort, err := net.SplitHostPort(bound.String())
	if err != nil {
		return nil, 0, fmt.Errorf("%w: bound to %v: %w", ErrConfig, bound, err)
	}
	host, port := "", ""
	if advertise != "" {
		if host, port, err = net.SplitHostPort(advertise); err != nil {
			host, port = advertise, "" // a port may be left out
		}
	} else if host, _, err = net.SplitHostPort(bind); err != nil {
		return nil, 0, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	if port == "" || port == "0" {
		port = boundPort
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, 0, fmt.Errorf("%w: advertised port %q", ErrConfig, port)
	}
	var ip netip.Addr
	if host != "" {
		if ip, err = resolveOne(host); err != nil {
			return nil, 0, fmt.Errorf("%w: advertised host %q: %w", ErrConfig, host, err)
		}
	}
	if !ip.IsValid() || ip.IsUnspecified() {
		if ip, err = privateAddr(); err != nil {
			return nil, 0, err
		}
	}
	return net.IP(ip.Unmap().AsSlice()), int(n), nil
}

func resolveOne(host string) (netip.Addr, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return netip.Addr{}, err
	}
	return ips[0], nil
}

// privateAddr is the first address of the machine that others may reach, a private one if there is.
func privateAddr() (netip.Addr, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return netip.Addr{}, fmt.Errorf("mesh: addresses of this machine: %w", err)
	}
	var found netip.Addr
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err != nil || !p.Addr().IsGlobalUnicast() {
			continue
		}
		if p.Addr().IsPrivate() && p.Addr().Is4() {
			return p.Addr(), nil
		}
		if !found.IsValid() {
			found = p.Addr()
		}
	}
	if !found.IsValid() {
		return found, fmt.Errorf("%w: bound to every address and none of them is for others: set the advertised address", ErrConfig)
	}
	return found, nil
}

// Addr is the advertised host:port.
func (m *Mesh) Addr() string { return m.self.addr }

// Close frees the addresses of a Mesh that was never run. After Run it does nothing.
func (m *Mesh) Close() error {
	m.mu.Lock()
	first := m.phase == phaseNew
	if first {
		m.phase = phaseEnded
	}
	m.mu.Unlock()
	if first {
		return m.transport.Shutdown()
	}
	return nil
}

// Run takes part until ctx ends, and closes then without leaving, so that the others find this node
// failed. It can be called once. The error is nil if ctx ended it.
// Events, Links and APIConns are closed when it returns.
func (m *Mesh) Run(ctx context.Context) error {
	m.mu.Lock()
	if m.phase != phaseNew {
		m.mu.Unlock()
		return ErrNotRunning
	}
	m.phase = phaseRunning
	m.mu.Unlock()

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var work sync.WaitGroup // everything but the event consumer, which must outlive serf
	m.transport.onLink = func(c net.Conn) { m.answer(ctx, c) }
	config := m.serfConfig()
	m.transport.prepare = func() {
		c := config.MemberlistConfig
		c.Delegate = &gateDelegate{Delegate: c.Delegate, count: &m.count, meta: &m.meta}
		c.Conflict = &conflictGate{count: &m.count, out: m.conflicts}
	}
	consumed := make(chan struct{})
	serfEnded := make(chan struct{})
	go func() {
		defer close(consumed)
		m.consume(serfEnded)
	}()
	m.transport.start()
	s, err := serf.Create(config)
	if err != nil {
		cancel(err)
		m.transport.Shutdown()
		err = fmt.Errorf("mesh: start membership: %w", err)
	} else {
		m.advance(s)
		m.mu.Lock()
		m.serf = s
		m.tellMembership() // SetInc was faster
		m.mu.Unlock()
		work.Go(func() { m.deliver(ctx) })
		work.Go(func() { m.join(ctx, s) })
		if m.cfg.SnapshotPath != "" {
			work.Go(func() { m.keepKnown(ctx) })
		}
		work.Go(func() { m.control(ctx, cancel, &work) })
		<-ctx.Done()
		m.liblog.quiet.Store(true)
		if cause := context.Cause(ctx); errors.Is(cause, ErrNameTaken) {
			err = cause
		}
		m.leaveMu.Lock() // a leave in progress ends first
		if e := s.Shutdown(); e != nil && err == nil {
			err = fmt.Errorf("mesh: stop membership: %w", e)
		}
		m.leaveMu.Unlock()
		m.mu.Lock()
		m.serf = nil // nobody begins to use it
		m.mu.Unlock()
		m.removing.Wait()
		work.Wait()
	}
	close(serfEnded)
	<-consumed
	m.mu.Lock()
	m.phase = phaseEnded
	m.mu.Unlock()
	close(m.out)
	close(m.links)
	close(m.api.conns)
	close(m.server.conns)
	return err
}

func (m *Mesh) serfConfig() *serf.Config {
	t, lib := m.cfg.Timings, m.liblog.logger()

	ml := memberlist.DefaultLANConfig()
	ml.Transport = m.transport
	ml.BindPort, ml.AdvertisePort = m.transport.port, m.transport.port
	ml.Logger, ml.LogOutput = lib, nil
	ml.EnableCompression = false // 8 MiB of push/pull cost 1 s of CPU and 735 MiB
	ml.UDPBufferSize = 1400
	ml.TCPTimeout = 5 * time.Second
	ml.ProbeInterval, ml.ProbeTimeout = t.ProbeInterval, t.ProbeTimeout
	ml.SuspicionMult, ml.SuspicionMaxTimeoutMult = t.SuspicionMult, t.SuspicionMaxMult
	ml.AwarenessMaxMultiplier = 4 // a busy node slows its probes to 2.4 s, not more
	ml.GossipInterval, ml.PushPullInterval = t.GossipInterval, t.PushPullInterval
	// A failed member's name may come from another address at once; from a live one's never.
	ml.DeadNodeReclaimTime = time.Millisecond

	c := serf.DefaultConfig()
	c.MemberlistConfig = ml
	c.NodeName = m.cfg.Name
	c.Tags = tagsOf(m.me, m.cfg.Cluster)
	c.EventCh = m.serfOut
	c.Logger, c.LogOutput = lib, nil
	c.ReapInterval = min(max(m.cfg.ReapAfter/4, 100*time.Millisecond), 15*time.Second)
	c.ReconnectTimeout, c.TombstoneTimeout = m.cfg.ReapAfter, m.cfg.ReapAfter
	c.SnapshotPath = m.cfg.SnapshotPath
	c.RejoinAfterLeave = true // who starts a node that left wants it back
	c.BroadcastTimeout = broadcastTimeout
	c.LeavePropagateDelay = 500 * time.Millisecond
	c.EnableNameConflictResolution = false // see conflictGate
	c.Merge = &clusterGuard{cluster: m.cfg.Cluster, count: &m.count}
	return c
}

// consume takes serf's events. serf sends them under its own locks, so nothing here may call serf, and
// the reading goes on until serf's goroutines have nothing left to send.
func (m *Mesh) consume(ended <-chan struct{}) {
	for {
		select {
		case e := <-m.serfOut:
			m.heed(e)
		case <-ended:
			for {
				select {
				case <-m.serfOut:
				case <-time.After(20 * time.Millisecond):
					return
				}
			}
		}
	}
}

func (m *Mesh) heed(e serf.Event) {
	me, ok := e.(serf.MemberEvent)
	if !ok {
		return
	}
	status := StatusAlive
	switch me.Type {
	case serf.EventMemberLeave:
		status = StatusLeft
	case serf.EventMemberFailed:
		status = StatusFailed
	case serf.EventMemberReap:
		status = StatusReaped
	}
	m.mu.Lock()
	for _, sm := range me.Members {
		addr := net.JoinHostPort(sm.Addr.String(), strconv.Itoa(int(sm.Port)))
		now := time.Now()
		if absurd(now, sm.Tags) {
			m.count.incsAbsurd.Add(1)
		}
		if l := m.byName[sm.Name]; l != nil && status == StatusFailed {
			m.roster.heard(now, sm.Name, l.Heard())
		}
		m.roster.membership(now, memberOf(sm.Name, addr, sm.Tags, status))
	}
	m.mu.Unlock()
	m.poke()
}

func (m *Mesh) poke() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// deliver hands out events and links, in two lines so that neither waits for the other's reader.
func (m *Mesh) deliver(ctx context.Context) {
	var (
		event     MemberEvent
		link      *Link
		eventOut  chan<- MemberEvent
		linkOut   chan<- *Link
		haveEvent bool
	)
	for {
		m.mu.Lock()
		if !haveEvent {
			if event, haveEvent = m.roster.takeEvent(); haveEvent {
				m.cfg.Logger.Info("member", "peer", event.Member.Name, "status", event.Member.Status.String(),
					"addr", event.Member.Addr, "peer_inc", fmt.Sprintf("%016x", event.Member.Inc))
			}
		}
		for link == nil && len(m.newLinks) > 0 {
			link, m.newLinks = m.newLinks[0], m.newLinks[1:]
			if link.Err() != nil {
				link = nil // replaced before anybody saw it
			}
		}
		m.mu.Unlock()
		eventOut, linkOut = nil, nil
		if haveEvent {
			eventOut = m.out
		}
		var gone <-chan struct{}
		if link != nil {
			linkOut, gone = m.links, link.Done()
		}
		select {
		case <-ctx.Done():
			return
		case <-m.wake:
		case eventOut <- event:
			haveEvent = false
		case linkOut <- link:
			link = nil
		case <-gone:
			link = nil
		}
	}
}

// Events gives the newest state of every member that changed, this node excepted: never lossy, but
// states in between may be left out. An event is fixed when it becomes the next to be read.
func (m *Mesh) Events() <-chan MemberEvent { return m.out }

// Links gives every link that was established. The reader owns it: it must read frames until an
// error. A link to a peer that has one already replaces that one, which has ended by then: its Err is
// not nil and its Done closed before the new one is given.
func (m *Mesh) Links() <-chan *Link { return m.links }

// Members are all known members by name, this node among them.
func (m *Mesh) Members() []Member {
	m.mu.Lock()
	defer m.mu.Unlock()
	members := append(m.roster.members(), m.me)
	for i := len(members) - 1; i > 0 && members[i].Name < members[i-1].Name; i-- {
		members[i], members[i-1] = members[i-1], members[i]
	}
	for i := range members {
		if l := m.byName[members[i].Name]; l != nil {
			members[i].RTT = l.RTT()
		}
	}
	return members
}

// Stats gives the counters.
func (m *Mesh) Stats() Stats {
	s := m.count.stats()
	for _, mem := range m.Members() {
		switch mem.Status {
		case StatusAlive:
			s.Alive++
		case StatusSuspect:
			s.Suspect++
		case StatusFailed:
			s.Failed++
		case StatusLeft:
			s.Left++
		}
	}
	m.mu.Lock()
	s.Links = len(m.byName)
	s.APIConns, s.ServerConns = m.api.open, m.server.open
	sf := m.serf
	m.mu.Unlock()
	if sf != nil {
		s.HealthScore = sf.Memberlist().GetHealthScore()
	}
	return s
}

// sayBye tells every peer, over its link, that this node leaves. serf's notice goes by UDP and its
// queue may lose it; then the others would take a node that left for one that failed.
func (m *Mesh) sayBye() {
	m.mu.Lock()
	links := slices.Collect(maps.Values(m.byName))
	m.mu.Unlock()
	var told sync.WaitGroup
	for _, l := range links {
		told.Go(func() { // at once to all: a peer that stalls must not keep the others waiting
			giveUp := time.AfterFunc(byeTimeout, func() { l.Close() })
			defer giveUp.Stop()
			if err := l.writeAny(frameBye, nil); err != nil {
				m.cfg.Logger.Debug("no farewell", "peer", l.Peer.Name, "err", err)
			}
		})
	}
	told.Wait()
}

// Leave tells the others that this node leaves for good. It stays connected until Run ends, but
// dials nobody any more. If ctx ends first, the leave still goes on, for a few seconds at most.
func (m *Mesh) Leave(ctx context.Context) error {
	m.leaveMu.Lock()
	m.mu.Lock()
	s := m.serf
	var peer string // somebody who answers
	if s != nil {
		m.roster.left = true
		m.me.Status = StatusLeft
		for _, l := range m.byName {
			peer = l.Peer.Addr
			break
		}
	}
	m.mu.Unlock()
	if s == nil || s.State() == serf.SerfShutdown {
		m.leaveMu.Unlock()
		return ErrNotRunning
	}
	done := make(chan error, 1)
	go func() {
		defer m.leaveMu.Unlock()
		// serf's clock is at 1 after a start. A leave before it has heard of the others' clocks would be
		// older than the join of this node's former self, and be ignored.
		if peer != "" {
			if _, err := s.Join([]string{peer}, true); err != nil {
				m.cfg.Logger.Debug("no join before the leave", "addr", peer, "err", err)
			}
		}
		err := s.Leave()
		if err == nil {
			m.sayBye()
		}
		done <- err
	}()
	select {
	case err := <-done:
		if err != nil {
			return fmt.Errorf("mesh: leave: %w", err)
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
