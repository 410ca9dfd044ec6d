package fleet

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/meshkv/meshkv/gossip"
)

// Periods of links, as package mesh has them.
const (
	silenceMin, silenceMax = 5 * time.Second, 6 * time.Second // until an end notices that nothing comes
	backoffMin, backoffMax = 100 * time.Millisecond, 2 * time.Second
)

// link is what two nodes have with one another: streams, one after another. The
// lower node is end 0.
type link struct {
	ends    [2]*node
	gen     uint32 // of the present stream
	up      bool
	dialing bool
	backoff time.Duration
	want    [2]bool
	role    [2]gossip.Role
	told    [2]bool // that end's replicator has the link
	peer    [2]gossip.PeerID
	dirs    [2]direction // what end 0, or 1, sends
}

// direction is one way of a stream.
type direction struct {
	freeAt  int64 // until then a frame is being sent
	last    int64 // when the last one arrives
	flying  int   // bytes that the receiver has not taken
	armed   bool  // the writer goes on by itself
	stalled bool  // until the receiver takes something
	held    [][]byte
}

// end is which end of l n is.
func (l *link) end(n *node) int {
	if l.ends[0] == n {
		return 0
	}
	return 1
}

func (l *link) idle() bool {
	return !l.up && !l.dialing && !l.want[0] && !l.want[1] && !l.told[0] && !l.told[1]
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

// want makes n want a link to the node id, in a role.
func (f *Fleet) want(n *node, id int32, role gossip.Role) {
	l := n.links[id]
	if l == nil {
		m := f.nodes[id]
		l = &link{ends: [2]*node{n, m}}
		if id < n.id {
			l.ends = [2]*node{m, n}
		}
		l.role = [2]gossip.Role{gossip.RoleQuiet, gossip.RoleQuiet}
		n.links[id], m.links[n.id] = l, l
	}
	i := l.end(n)
	l.want[i] = true
	f.setRole(l, i, role)
	if !l.up {
		f.dial(l, 0)
	}
}

func (f *Fleet) setRole(l *link, i int, role gossip.Role) {
	if l.role[i] == role {
		return
	}
	l.role[i] = role
	if n := l.ends[i]; l.told[i] {
		n.rep.SetRole(l.peer[i], role)
		f.effects(n)
	}
}

// unwant takes n's wish for l back. A link that nobody wants is closed after a
// while.
func (f *Fleet) unwant(n *node, l *link) {
	if l == nil {
		return
	}
	i := l.end(n)
	l.want[i] = false
	f.setRole(l, i, gossip.RoleQuiet)
	if l.want[1-i] {
		return
	}
	gen := l.gen
	f.do(surplusAfter, func() {
		if l.gen != gen || l.want[0] || l.want[1] {
			return
		}
		l.up = false
		for i := range l.ends {
			f.linkDown(l, i)
		}
		f.forget(l)
	})
}

// forget takes out a link of which nothing is left.
func (f *Fleet) forget(l *link) {
	if l.idle() && l.ends[0].links[l.ends[1].id] == l { // and not a later one of the two
		delete(l.ends[0].links, l.ends[1].id)
		delete(l.ends[1].links, l.ends[0].id)
	}
}

// cut reports whether nothing gets from n to m.
func (f *Fleet) cut(n, m int32) bool {
	for _, p := range f.splits {
		if p.to == 0 && p.apart(n, m) {
			return true
		}
	}
	return len(f.oneWay) > 0 && f.oneWay[[2]int32{n, m}]
}

// dial makes a stream after d and what the handshakes of TCP and TLS take, and
// tries again as long as it is wanted.
func (f *Fleet) dial(l *link, d time.Duration) {
	if l.dialing {
		return
	}
	l.dialing = true
	took := time.Duration(0)
	for range 3 {
		took += time.Duration(f.lan.latency(f.rng) + f.lan.latency(f.rng))
	}
	f.do(d+took, func() {
		l.dialing = false
		a, b := l.ends[0], l.ends[1]
		switch {
		case l.up || !l.want[0] && !l.want[1]:
			f.forget(l)
		case a.rep == nil || b.rep == nil || f.cut(a.id, b.id) || f.cut(b.id, a.id):
			l.backoff = min(max(2*l.backoff, backoffMin), backoffMax)
			f.dial(l, l.backoff+f.between(0, l.backoff))
		default:
			f.connect(l)
		}
	})
}

func (f *Fleet) connect(l *link) {
	l.gen++
	l.up, l.backoff = true, 0
	l.dirs = [2]direction{}
	f.Dials++
	f.note('u', uint64(l.ends[0].id), uint64(l.ends[1].id))
	for i, n := range l.ends {
		peer := l.ends[1-i].self
		if l.told[i] {
			f.linkDown(l, i)
		}
		l.told[i], l.peer[i] = true, peer
		n.peers[peer] = l
		n.rep.LinkUp(f.clock(f.now), peer, l.role[i])
		n.rep.SetRTT(peer, 2*f.lan.Latency+f.lan.Jitter)
	}
	for _, n := range l.ends {
		f.effects(n)
	}
}

// linkDown tells end i that its stream is gone.
func (f *Fleet) linkDown(l *link, i int) {
	if !l.told[i] {
		return
	}
	n := l.ends[i]
	l.told[i] = false
	n.rep.LinkDown(l.peer[i])
	delete(n.peers, l.peer[i])
	f.effects(n)
}

// lose ends the stream of l as end i sees it, after d, unless spared says that
// it lives after all by then.
func (f *Fleet) lose(l *link, i int, d time.Duration, spared func() bool) {
	gen := l.gen
	f.do(d, func() {
		if l.gen != gen || !l.told[i] || spared() {
			return
		}
		l.up = false
		f.linkDown(l, i)
		if l.want[0] || l.want[1] {
			f.dial(l, backoffMin)
		} else {
			f.forget(l)
		}
	})
}

// ended ends l for the process of n, which is gone.
func (f *Fleet) ended(l *link, n *node, how End) {
	i := l.end(n)
	l.want[i], l.role[i] = false, gossip.RoleQuiet
	if l.told[i] {
		l.told[i] = false
		l.up = false
	}
	late := f.between(f.lan.Latency, f.lan.Latency+f.lan.Jitter)
	if how == Power || f.cut(n.id, l.ends[1-i].id) {
		late = f.between(silenceMin, silenceMax)
	}
	f.lose(l, 1-i, late, func() bool { return false })
	f.forget(l)
}

// Partition separates the groups from one another: nodes in none are a group.
func (f *Fleet) Partition(groups ...[]int) {
	p := &split{serial: f.rng.Uint64(), group: make([]uint8, len(f.nodes)), from: f.now, rejoin: int64(f.between(0, rejoinMax))}
	for i, g := range groups {
		for _, id := range g {
			p.group[id] = uint8(i + 1)
		}
	}
	for _, g := range p.group {
		p.size[g]++
	}
	f.note('p', p.serial)
	f.splits = append(f.splits, p)
	f.silence()
	f.changing(failureMax)
}

// silence lets the ends of streams that are cut notice that nothing comes.
func (f *Fleet) silence() {
	for _, n := range f.nodes {
		for _, id := range sortedKeys(n.links) {
			l := n.links[id]
			if !l.up || n.id > id {
				continue
			}
			a, b := l.ends[0].id, l.ends[1].id
			cut := func() bool { return f.cut(a, b) || f.cut(b, a) }
			if !cut() {
				continue
			}
			for i := range l.ends {
				f.lose(l, i, f.between(silenceMin, silenceMax), func() bool { return !cut() })
			}
		}
	}
}

// CutOneWay lets nothing get from node a to node b.
func (f *Fleet) CutOneWay(a, b int) {
	f.oneWay[[2]int32{int32(a), int32(b)}] = true
	f.note('o', uint64(a), uint64(b))
	f.silence()
}

// Heal ends all partitions and cuts. Streams that outlived them go on, with what
// TCP sends again.
func (f *Fleet) Heal() {
	f.note('h')
	window := time.Duration(0)
	for _, p := range f.splits {
		if p.to == 0 {
			p.to = f.now
			window = max(window, time.Duration(p.rejoin)+2*time.Second+time.Duration(len(p.group))*time.Second/newsPerSecond)
		}
	}
	f.splits = slices.DeleteFunc(f.splits, func(p *split) bool { return f.now-p.to > int64(10*time.Minute) })
	clear(f.oneWay)
	for _, n := range f.nodes {
		for _, id := range sortedKeys(n.links) {
			l := n.links[id]
			d := &l.dirs[l.end(n)]
			if !l.up || len(d.held) == 0 {
				continue
			}
			late := int64(f.between(tailRTO, 3*time.Second))
			for _, data := range d.held {
				f.fly(l, l.end(n), f.now+late, data)
			}
			d.held = nil
		}
	}
	f.changing(window)
}
