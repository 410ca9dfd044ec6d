package mesh

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/serf/serf"
)

const (
	helloTimeout   = 3 * time.Second
	resolveTimeout = 2 * time.Second
	conflictPace   = time.Second
)

// control carries out what the roster decides. It starts goroutines in work.
func (m *Mesh) control(ctx context.Context, cancel context.CancelCauseFunc, work *sync.WaitGroup) {
	ticker := time.NewTicker(controlTick)
	defer ticker.Stop()
	checking := make(chan struct{}, 1) // one check of our name at a time
	for {
		m.mu.Lock()
		m.hearDoubted(time.Now())
		acts := m.roster.tick(time.Now(), maxDialing-int(m.dialing.Load()))
		m.mu.Unlock()
		m.poke() // the tick may have made somebody suspect
		for _, a := range acts {
			m.act(ctx, a, work)
		}
		select {
		case <-ctx.Done():
			return
		case c := <-m.conflicts:
			if c.name != m.self.name {
				m.cfg.Logger.Debug("two addresses claim one name", "peer", c.name, "addr", c.known.addr, "other", c.told.addr)
				m.mu.Lock()
				if m.roster.claimed(time.Now(), c.name, c.told) {
					m.count.claims.Add(1)
				}
				m.mu.Unlock()
				continue
			}
			select {
			case checking <- struct{}{}:
				work.Go(func() {
					defer func() { <-checking }()
					if err := m.contest(ctx, c.told); err != nil {
						cancel(err)
					}
				})
			default:
			}
		case <-ticker.C:
		}
	}
}

func (m *Mesh) act(ctx context.Context, a action, work *sync.WaitGroup) {
	switch a.kind {
	case actJoin:
		m.askJoin(a.addr)
	case actDrop, actSurplus:
		if a.kind == actSurplus {
			m.count.linksSurplus.Add(1)
		}
		m.mu.Lock()
		l := m.byName[a.name]
		m.mu.Unlock()
		if l != nil {
			l.Close()
		}
	case actDial, actProbe, actSeed, actFormer:
		work.Go(func() {
			if l := m.dialFor(ctx, a); l != nil {
				m.serve(ctx, l)
			}
		})
	}
}

// hearDoubted tells the roster when it last heard of members that membership calls failed. mu is held.
func (m *Mesh) hearDoubted(now time.Time) {
	for _, name := range m.roster.doubts() {
		if l := m.byName[name]; l != nil {
			m.roster.heard(now, name, l.Heard())
		}
	}
}

// dialFor dials as a says and reports to the roster. The link is the caller's to serve.
func (m *Mesh) dialFor(ctx context.Context, a action) *Link {
	m.dialing.Add(1)
	defer m.dialing.Add(-1)
	start := time.Now()
	switch a.kind {
	case actDial, actFormer:
		l, err := m.dial(ctx, a.addr)
		answered := ""
		var refused *refusedError
		if l != nil {
			answered = l.Peer.Name
		} else if errors.As(err, &refused) {
			answered = refused.name
		}
		full := refused != nil && refused.code == refusedFull
		if full && answered == a.name {
			m.joinIfFailed(a)
		}
		m.mu.Lock()
		if a.kind == actDial && full && answered == a.name {
			m.roster.dialRefused(start, a.name)
		} else if a.kind == actDial {
			m.roster.dialed(start, a.name, err == nil && answered == a.name)
		} else {
			m.roster.formerDialed(start, a.name, answered)
		}
		m.mu.Unlock()
		return l
	case actProbe:
		ok := m.knock(ctx, a.addr) == nil
		if ok {
			m.askJoin(a.addr)
		}
		m.mu.Lock()
		m.roster.dialed(start, a.name, false) // the next try comes after Redial
		m.mu.Unlock()
		return nil
	default:
		l, resolved, name := m.dialSeed(ctx, a.addr)
		m.mu.Lock()
		m.roster.seedDialed(start, a.addr, resolved, name)
		m.mu.Unlock()
		return l
	}
}

// joinIfFailed makes a member known that is there and takes no link more.
func (m *Mesh) joinIfFailed(a action) {
	m.mu.Lock()
	rec := m.roster.records[a.name]
	known := rec != nil && rec.member.Status == StatusAlive
	m.mu.Unlock()
	if !known {
		m.askJoin(a.addr)
	}
}

// dialSeed tries a seed's addresses in turn until one answers.
func (m *Mesh) dialSeed(ctx context.Context, seed string) (l *Link, resolved []string, name string) {
	resolved, err := resolve(ctx, seed)
	if err != nil {
		m.cfg.Logger.Debug("seed not resolved", "addr", seed, "err", err)
		return nil, nil, ""
	}
	for _, addr := range resolved {
		if addr == m.self.addr {
			return nil, resolved, m.self.name
		}
		l, err := m.dial(ctx, addr)
		if err == nil {
			m.askJoin(addr)
			return l, resolved, l.Peer.Name
		}
		var refused *refusedError
		if errors.As(err, &refused) {
			switch refused.code {
			case refusedSelf:
				return nil, resolved, m.self.name
			case refusedFull: // it can still make us known
				m.askJoin(addr)
			}
			return nil, resolved, refused.name
		}
		if !errors.Is(err, errDial) {
			m.askJoin(addr) // somebody is there who does not know our hello: a stock serf node
			return nil, resolved, ""
		}
	}
	return nil, resolved, ""
}

func resolve(ctx context.Context, addr string) ([]string, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return []string{net.JoinHostPort(ip.Unmap().String(), port)}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, ip := range ips[:min(len(ips), maxResolved)] {
		out = append(out, net.JoinHostPort(ip.Unmap().String(), port))
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

var errDial = errors.New("mesh: dial")

// knock sees whether addr accepts a connection.
func (m *Mesh) knock(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, m.cfg.Timings.DialTimeout)
	defer cancel()
	conn, err := m.cfg.Network.DialTCP(ctx, addr)
	if err != nil {
		return err
	}
	return conn.Close()
}

// greet dials addr, says hello or api, and takes the answer.
func (m *Mesh) greet(ctx context.Context, kind byte, addr string, self hello) (net.Conn, hello, error) {
	dctx, cancel := context.WithTimeout(ctx, m.cfg.Timings.DialTimeout)
	conn, err := m.cfg.Network.DialTCP(dctx, addr)
	cancel()
	if err != nil {
		return nil, hello{}, fmt.Errorf("%w %s: %w", errDial, addr, err)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	conn.SetDeadline(time.Now().Add(helloTimeout))
	if _, err = conn.Write(appendGreeting(nil, kind, self)); err == nil {
		var peer hello
		if peer, err = readHello(conn); err == nil {
			if err = conn.SetDeadline(time.Time{}); err == nil {
				return conn, peer, nil
			}
		}
	}
	conn.Close()
	return nil, hello{}, fmt.Errorf("mesh: hello with %s: %w", addr, err)
}

// dial makes a link to whoever is at addr.
func (m *Mesh) dial(ctx context.Context, addr string) (*Link, error) {
	m.count.dials.Add(1)
	self := m.identity()
	conn, peer, err := m.greet(ctx, kindHello, addr, self)
	if err == nil {
		var l *Link
		if l, err = m.register(ctx, conn, self, peer, true); err == nil {
			return l, nil
		}
	}
	m.count.dialFailures.Add(1)
	m.cfg.Logger.Debug("no link", "addr", addr, "err", err)
	return nil, err
}

// answer is the accepting end of dial and of DialAPI. It serves the link.
func (m *Mesh) answer(ctx context.Context, conn net.Conn) {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	conn.SetDeadline(time.Now().Add(helloTimeout))
	kind, peer, err := readOpening(io.MultiReader(bytes.NewReader([]byte{magicByte}), conn))
	if err != nil {
		var refused *refusedError // their version
		if errors.As(err, &refused) && refused.code == refusedVersion {
			m.refuse(conn, refusedVersion, peer)
		} else {
			m.count.streamsUnknown.Add(1)
		}
		conn.Close()
		return
	}
	if p := m.portOf(kind); p != nil {
		m.answerPort(ctx, p, conn, peer)
		return
	}
	m.mu.Lock()
	verdict := m.roster.offer(time.Now(), peer, false)
	m.mu.Unlock()
	if verdict != accepted {
		m.refuse(conn, verdict, peer)
		conn.Close()
		return
	}
	self := m.identity()
	_, err = conn.Write(appendHello(nil, self))
	if err == nil {
		err = conn.SetDeadline(time.Time{})
	}
	if err != nil {
		conn.Close()
		return
	}
	if l, err := m.register(ctx, conn, self, peer, false); err == nil {
		m.serve(ctx, l)
	}
}

func (m *Mesh) refuse(conn net.Conn, code refusal, peer hello) {
	m.count.refused(code)
	m.sendRefusal(conn, code, peer)
}

func (m *Mesh) sendRefusal(conn net.Conn, code refusal, peer hello) {
	m.cfg.Logger.Debug("connection refused", "peer", peer.name, "addr", peer.addr, "reason", code.String())
	conn.Write(appendRefusal(nil, refusedError{code: code, name: m.self.name}))
}

// register makes conn the link to peer, to whom this node said self, unless that has become wrong meanwhile: then
// conn is closed.
func (m *Mesh) register(ctx context.Context, conn net.Conn, self, peer hello, dialed bool) (*Link, error) {
	m.mu.Lock()
	verdict := m.roster.offer(time.Now(), peer, dialed)
	if ctx.Err() != nil || self.inc != m.roster.self.inc {
		verdict = refusedClosing
	}
	if verdict != accepted {
		m.mu.Unlock()
		m.count.refused(verdict)
		conn.Close()
		return nil, &refusedError{code: verdict, name: peer.name}
	}
	p := Member{Name: peer.name, Inc: peer.inc, Addr: peer.addr, Status: StatusAlive}
	if rec := m.roster.records[peer.name]; rec != nil && rec.member.Inc == peer.inc {
		p.APIAddr, p.Zone, p.Roles = rec.member.APIAddr, rec.member.Zone, rec.member.Roles
	}
	l := newLink(conn, p, m.cfg.Timings)
	l.wanted.Store(m.roster.wants(peer.name))
	old := m.byName[peer.name]
	var spare *Link
	if old != nil { // in the same step, so that it has ended when anybody gets the new one
		old.end(ErrLinkClosed)
	} else if len(m.byName) >= m.cfg.MaxLinks { // offer has seen that there is one to spare
		spare = m.byName[m.roster.spare(time.Now())]
	}
	m.byName[peer.name] = l
	m.roster.linkUp(time.Now(), peer, dialed)
	m.newLinks = append(m.newLinks, l)
	m.mu.Unlock()
	if old != nil {
		old.Close()
	}
	if spare != nil {
		m.count.linksSurplus.Add(1)
		spare.Close()
	}
	m.count.linksMade.Add(1)
	m.cfg.Logger.Debug("link up", "peer", peer.name, "peer_inc", fmt.Sprintf("%016x", peer.inc), "addr", l.Addr(), "dialed", dialed)
	m.poke()
	return l, nil
}

// serve keeps the link alive until it ends, and takes it off the books.
func (m *Mesh) serve(ctx context.Context, l *Link) {
	bye := func() {
		m.mu.Lock()
		m.roster.farewell(l.Peer.Name, l.Peer.Inc)
		m.mu.Unlock()
		m.poke()
	}
	l.keep(ctx, linkNews{
		bye: bye,
		want: func(yes bool) {
			m.mu.Lock()
			if m.byName[l.Peer.Name] == l {
				m.roster.peerWants(l.Peer.Name, yes)
			}
			m.mu.Unlock()
		},
		gone: func(r removal) { m.removed(r, l.Peer.Name) },
	})
	select {
	case <-l.byes: // its last word, just before the end
		bye()
	default:
	}
	m.mu.Lock()
	if m.byName[l.Peer.Name] == l {
		delete(m.byName, l.Peer.Name)
		m.roster.linkDown(time.Now(), l.Peer.Name)
	}
	m.newLinks = slices.DeleteFunc(m.newLinks, func(o *Link) bool { return o == l })
	m.mu.Unlock()
	m.count.linksLost.Add(1)
	m.count.sent.Add(l.SentBytes())
	m.count.received.Add(l.RecvBytes())
	m.count.removalsLost.Add(l.goneLost.Load())
	m.cfg.Logger.Debug("link down", "peer", l.Peer.Name, "err", l.Err())
	m.poke()
}

func (m *Mesh) askJoin(addr string) {
	select {
	case m.joins <- addr:
	default: // the roster asks again
	}
}

// join runs the push/pulls. After a partition each side has the other dead at an equal SWIM
// incarnation, so that the first exchange only makes each refute its death, and the second one
// brings the refutations.
func (m *Mesh) join(ctx context.Context, s *serf.Serf) {
	for {
		select {
		case <-ctx.Done():
			return
		case addr := <-m.joins:
			for range 2 {
				if ctx.Err() != nil {
					return
				}
				m.count.joins.Add(1)
				if _, err := s.Join([]string{addr}, true); err != nil {
					m.count.joinFailures.Add(1)
					m.cfg.Logger.Debug("no join", "addr", addr, "err", err)
					break
				}
			}
		}
	}
}

// contest finds out whether another live process has this node's name, told to be at c. A
// former self of ours does not answer. Of two live ones the younger gives up after NameGrace, within
// which a predecessor may still be shutting down.
func (m *Mesh) contest(ctx context.Context, c claim) error {
	since, met := time.Now(), false
	for {
		self := m.identity()
		conn, _, err := m.greet(ctx, kindHello, c.addr, self)
		late := time.Since(since) >= m.cfg.Timings.NameGrace
		var refused *refusedError
		switch {
		case err == nil:
			conn.Close() // a node of another name lives there now
			return nil
		case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, errDial) && late:
			return nil // nobody is there
		case errors.Is(err, errDial): // that may be our own trouble
		case !errors.As(err, &refused) || refused.code != refusedName:
			return nil
		case self.inc < c.inc:
			m.cfg.Logger.Error("another node started under the name of this one; it should give up soon", "addr", c.addr)
			return nil
		case late:
			return fmt.Errorf("%w: a live node at %s is %q: stop it, or give this one another name", ErrNameTaken, c.addr, m.self.name)
		case !met:
			met = true
			m.cfg.Logger.Warn("another live node has the name of this one", "addr", c.addr)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(min(conflictPace, m.cfg.Timings.NameGrace/4)):
		}
	}
}
