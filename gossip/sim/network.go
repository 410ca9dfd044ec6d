package sim

import (
	"slices"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/meshkv/meshkv/gossip"
)

// pair is two nodes, the lower first.
type pair struct{ a, b int }

func pairOf(a, b int) pair { return pair{min(a, b), max(a, b)} }

// conn is the stream between two nodes, one after another.
type conn struct {
	pair pair
	gen  int // of the present stream
	up   bool
	told [2]bool   // the ends, a first, have been told of this stream and not of its end
	peer [2]peerID // of whom: what the other end was called
	dirs [2]direction
	// ghosts are frames of a stream that broke.
	ghosts []frame
}

// direction is what node a, or b, sends.
type direction struct {
	busy   bool      // a frame is being written
	last   time.Time // when the last one arrives
	flying int
}

type frame struct {
	to   int // 0: to a
	data []byte
}

// pairs are all pairs in order.
func (s *Sim) pairs() []pair {
	var out []pair
	for i := range s.nodes {
		for j := i + 1; j < len(s.nodes); j++ {
			out = append(out, pair{i, j})
		}
	}
	return out
}

func (c *conn) end(i int) int {
	if i == 0 {
		return c.pair.a
	}
	return c.pair.b
}

// side is which end of c node id is.
func (c *conn) side(id int) int {
	if id == c.pair.a {
		return 0
	}
	return 1
}

// redial brings c up after a while, unless the two are cut off by then.
func (s *Sim) redial(c *conn) {
	gen := c.gen
	s.after(time.Duration(s.rng.Int64N(int64(s.cfg.Redial))), func() {
		if c.up || c.gen != gen || s.cut[c.pair] || c.told[0] || c.told[1] {
			return
		}
		s.connect(c)
	})
}

func (s *Sim) connect(c *conn) {
	c.gen++
	c.up = true
	c.dirs = [2]direction{}
	s.note("up", uint64(c.pair.a), uint64(c.pair.b))
	for i := range 2 {
		n, peer := s.nodes[c.end(i)], s.nodes[c.end(1-i)]
		c.told[i], c.peer[i] = true, peer.self
		n.rep.LinkUp(n.clock(s.now), peer.self, gossip.RoleDirect)
		n.peers[peer.self] = peer.id
	}
	gen := c.gen
	for _, g := range c.ghosts { // before, between or after what the new stream brings
		s.after(time.Duration(s.rng.Int64N(int64(500*time.Millisecond))), func() {
			if c.gen == gen && c.told[g.to] {
				s.Ghosts++
				s.deliver(c, gen, g)
			}
		})
	}
	c.ghosts = nil
	for i := range 2 {
		s.effects(s.nodes[c.end(i)])
	}
}

// breakLink ends the stream of c. What is under way is lost. Each end notices
// after a while of its own; a process that is gone notices nothing.
func (s *Sim) breakLink(c *conn) {
	if !c.up {
		return
	}
	s.Breaks++
	s.note("break", uint64(c.pair.a), uint64(c.pair.b))
	c.up = false
	gen := c.gen
	for i := range 2 {
		n := s.nodes[c.end(i)]
		rep := n.rep
		s.after(time.Duration(s.rng.Int64N(int64(2*time.Second))), func() {
			if c.gen != gen || !c.told[i] || n.rep != rep {
				return
			}
			s.linkDown(c, i)
		})
	}
}

func (s *Sim) linkDown(c *conn, i int) {
	n := s.nodes[c.end(i)]
	n.rep.LinkDown(c.peer[i])
	delete(n.peers, c.peer[i])
	c.told[i] = false
	if !c.told[1-i] {
		s.redial(c)
	}
}

// write is the writer of node n for one peer, until there is nothing to send.
func (s *Sim) write(n *node, peer int) {
	c := s.conns[pairOf(n.id, peer)]
	i := c.side(n.id)
	d := &c.dirs[i]
	if !c.told[i] || d.busy {
		return
	}
	data, ok := n.rep.NextFrame(n.clock(s.now), c.peer[i], nil, s.cfg.Frame)
	if !ok {
		return
	}
	s.Frames++
	s.Bytes += int64(len(data))
	s.note("send", uint64(n.id), uint64(peer), xxhash.Sum64(data))
	var took time.Duration
	if s.cfg.Bandwidth > 0 {
		took = time.Duration(len(data)) * time.Second / time.Duration(s.cfg.Bandwidth)
	}
	gen, rep := c.gen, n.rep
	d.busy = true
	s.after(took, func() {
		if c.gen == gen && n.rep == rep {
			d.busy = false
			s.write(n, peer)
		}
	})
	s.fly(c, i, took, data)
}

// fly brings a frame to the other end.
func (s *Sim) fly(c *conn, from int, took time.Duration, data []byte) {
	if !c.up {
		s.Lost++
		return
	}
	d := &c.dirs[from]
	latency := s.cfg.Latency
	if s.cfg.Jitter > 0 {
		latency += time.Duration(s.rng.Int64N(int64(s.cfg.Jitter)))
	}
	at := s.now.Add(took + latency)
	if at.Before(d.last) {
		at = d.last
	}
	d.last = at
	d.flying++
	gen := c.gen
	s.after(at.Sub(s.now), func() {
		if c.gen == gen {
			d.flying--
		}
		if c.gen != gen || !c.up {
			s.Lost++
			if s.rng.Float64() < s.cfg.Ghosts && len(c.ghosts) < 16 {
				c.ghosts = append(c.ghosts, frame{to: 1 - from, data: data})
			}
			return
		}
		s.deliver(c, gen, frame{to: 1 - from, data: data})
	})
}

// deliver gives a frame to its receiver.
func (s *Sim) deliver(c *conn, gen int, f frame) {
	n := s.nodes[c.end(f.to)]
	s.note("deliver", uint64(n.id), uint64(gen))
	if err := n.rep.Step(n.clock(s.now), c.peer[f.to], slices.Clone(f.data)); err != nil {
		s.fail("%s: %v", n.self, err)
		return
	}
	s.effects(n)
}

// Break ends the stream between nodes a and b, if there is one. It comes back.
func (s *Sim) Break(a, b int) { s.breakLink(s.conns[pairOf(a, b)]) }

// Partition separates the groups from one another: nodes in none are a group.
func (s *Sim) Partition(groups ...[]int) {
	group := make(map[int]int)
	for i, g := range groups {
		for _, id := range g {
			group[id] = i + 1
		}
	}
	for _, p := range s.pairs() {
		s.cut[p] = group[p.a] != group[p.b]
		if s.cut[p] {
			s.breakLink(s.conns[p])
		}
	}
	s.restore()
}

// Heal ends all partitions.
func (s *Sim) Heal() {
	clear(s.cut)
	s.restore()
}

// restore redials what is not cut.
func (s *Sim) restore() {
	for _, p := range s.pairs() {
		if c := s.conns[p]; !c.up && !s.cut[p] && !c.told[0] && !c.told[1] {
			s.redial(c)
		}
	}
}
