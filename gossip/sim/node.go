package sim

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/meshkv/meshkv/crdt"
	"github.com/meshkv/meshkv/gossip"
)

type peerID = gossip.PeerID

// keyspaceSeed keys the hashes of the simulated keyspace.
const keyspaceSeed = 0x6b65797370616365

// node is one simulated machine and the process on it.
type node struct {
	id    int
	self  peerID
	inc   crdt.Inc
	rep   *gossip.Replicator
	peers map[peerID]int
	skew  time.Duration
	hlc   crdt.HLC
	disk  image // what a crash leaves
	old   image // a backup
}

// image is the state of a replica at one moment.
type image struct {
	cells   []*crdt.Cell
	clock   *crdt.Clock
	pending crdt.Dots
	inc     crdt.Inc
}

// Origin says what a restarted process finds on its disk.
type Origin int

// What there is on a disk.
const (
	Current Origin = iota // everything
	Disk                  // what was persisted last
	Backup                // an older state
	Nothing
)

func (n *node) clock(now time.Time) time.Time { return now.Add(n.skew) }

func (s *Sim) newNode(id int) *node {
	n := &node{id: id}
	if s.cfg.Skew > 0 {
		n.skew = time.Duration(s.rng.Int64N(2*int64(s.cfg.Skew))) - s.cfg.Skew
	}
	s.start(n, image{clock: crdt.NewClock()})
	n.disk, n.old = n.image(), n.image()
	return n
}

// start begins a process of n on what the image holds.
func (s *Sim) start(n *node, from image) {
	n.inc = crdt.NewInc(n.clock(s.now).UnixMilli(), s.rng.Uint64())
	n.self = peerID(fmt.Sprintf("n%02d/%s", n.id, n.inc))
	n.peers = make(map[peerID]int)
	cells := crdt.NewMapCells()
	for _, c := range from.cells {
		cells.Add(c)
		n.hlc = max(n.hlc, c.HLC)
	}
	n.rep = gossip.New(gossip.Config{
		Keyspace: "sim", Self: n.self, Seed: keyspaceSeed, Limits: s.cfg.Limits,
		Rand: rand.New(rand.NewPCG(s.rng.Uint64(), s.rng.Uint64())),
	}, crdt.State{Inc: n.inc, Cells: cells, Clock: from.clock.Clone(), Pending: slices.Clone(from.pending)}, cells.All())
	if from.inc != 0 { // superseded
		n.rep.CloseInc(from.inc)
	}
}

func (n *node) image() image {
	r := n.rep.Replica()
	return image{
		cells: slices.Collect(r.Cells().(*crdt.MapCells).All()), clock: r.Clock().Clone(), pending: r.Pending(), inc: n.inc,
	}
}

// persist brings the state of n to its disk, again and again.
func (s *Sim) persist(n *node) {
	n.disk = n.image()
	s.after(s.cfg.Persist, func() { s.persist(n) })
}

// Backup takes a copy of node i's state that Restart can bring back.
func (s *Sim) Backup(i int) { s.nodes[i].old = s.nodes[i].image() }

// Restart ends the process of node i and begins another one, with a new
// incarnation, on what is left.
func (s *Sim) Restart(i int, from Origin) {
	n := s.nodes[i]
	s.Restarts++
	s.note("restart", uint64(i), uint64(from))
	im := image{clock: crdt.NewClock()}
	switch from {
	case Current:
		im = n.image()
	case Disk:
		im = n.disk
	case Backup:
		im = n.old
	}
	s.ledger.crash(s, n, im)
	for _, m := range s.nodes {
		if m == n {
			continue
		}
		c := s.conns[pairOf(i, m.id)]
		if c.up {
			s.breakLink(c)
		}
		c.told[c.side(i)] = false // the process is gone
		if !c.told[c.side(m.id)] {
			s.redial(c)
			continue
		}
		// The other end is told of the end of the old peer.
		gen, rep, side := c.gen, m.rep, c.side(m.id)
		s.after(time.Duration(s.rng.Int64N(int64(2*time.Second))), func() {
			if c.gen == gen && c.told[side] && m.rep == rep {
				s.linkDown(c, side)
			}
		})
	}
	s.start(n, im)
	n.disk = n.image()
}

func (s *Sim) tick(n *node) {
	now := n.clock(s.now)
	if due, ok := n.rep.NextDue(); !s.cfg.SkipIdle || ok && !due.After(now) {
		n.rep.Tick(now)
		s.effects(n)
	}
	s.after(tick, func() { s.tick(n) })
}

// effects does what the owner of a replicator owes it after each call.
func (s *Sim) effects(n *node) {
	n.rep.Changes().Reset()
	if n.rep.Lost() {
		s.fail("%s met its own dot, which no node forged", n.self)
	}
	for _, p := range slices.Clone(n.rep.TakeWakes()) {
		if id, ok := n.peers[p]; ok {
			s.write(n, id)
		}
	}
}

// next is the HLC of the next write of n.
func (s *Sim) next(n *node) crdt.HLC {
	n.hlc = max(n.hlc, n.rep.MaxHLC()).Next(n.clock(s.now).UnixMilli())
	return n.hlc
}

// Put writes a cell at node i.
func (s *Sim) Put(i int, key, path string, value []byte) crdt.Dot {
	n := s.nodes[i]
	removes := n.dots(key, func(c *crdt.Cell) bool { return c.Path == path })
	kind := crdt.KindRegister
	if path != "" {
		kind = crdt.KindMap
	}
	d, err := n.rep.Put(n.clock(s.now), crdt.Write{Key: key, Path: path, Kind: kind, Value: value, HLC: s.next(n)})
	if err != nil {
		s.fail("put: %v", err)
		return d
	}
	s.note("put", uint64(i), uint64(d.Inc), d.Seq)
	s.ledger.issued(d, true, removes)
	s.effects(n)
	return d
}

// Batch makes a register of each key at node i, in one op.
func (s *Sim) Batch(i int, keys []string, value []byte) {
	n := s.nodes[i]
	keys = slices.Compact(slices.Sorted(slices.Values(keys)))
	var removes []crdt.Dot
	for _, key := range keys {
		removes = append(removes, n.dots(key, func(*crdt.Cell) bool { return true })...)
	}
	d, _, err := n.rep.Update(n.clock(s.now), s.next(n), func(*crdt.Cell) bool { return true }, func(d *crdt.Draft) error {
		for _, key := range keys { // it may be a map
			if err := errors.Join(d.Delete(key), d.Put(key, value, crdt.Lifetime{})); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		s.fail("batch: %v", err)
		return
	}
	s.note("batch", uint64(i), uint64(d.Inc), d.Seq)
	for seq := d.Seq + 1 - uint64(len(keys)); seq < d.Seq; seq++ {
		s.ledger.issued(crdt.Dot{Inc: d.Inc, Seq: seq}, true, nil)
	}
	s.ledger.issued(d, true, removes)
	s.effects(n)
}

// Delete removes key at node i.
func (s *Sim) Delete(i int, key string) bool {
	n := s.nodes[i]
	removes := n.dots(key, func(*crdt.Cell) bool { return true })
	d, deleted, err := n.rep.Delete(n.clock(s.now), key, s.next(n))
	if err != nil {
		s.fail("delete: %v", err)
	}
	if deleted {
		s.note("delete", uint64(i), uint64(d.Inc), d.Seq)
		s.ledger.issued(d, false, removes)
		s.effects(n)
	}
	return deleted
}

// Collect removes the live cells among dots at node i, as the collector of
// expired cells does.
func (s *Sim) Collect(i int, dots []crdt.Dot) int {
	n := s.nodes[i]
	cells := n.rep.Replica().Cells()
	live := slices.DeleteFunc(slices.Clone(dots), func(d crdt.Dot) bool { return cells.ByDot(d) == nil })
	removed, err := n.rep.Remove(n.clock(s.now), live, s.next(n))
	if err != nil {
		s.fail("remove: %v", err)
	}
	if removed > 0 {
		d := crdt.Dot{Inc: n.inc, Seq: n.rep.Replica().Seq()}
		s.note("collect", uint64(i), uint64(d.Inc), d.Seq)
		s.ledger.issued(d, false, live)
		s.effects(n)
	}
	return removed
}

func (n *node) dots(key string, match func(*crdt.Cell) bool) (dots []crdt.Dot) {
	for _, c := range n.rep.Replica().Cells().ByKey(key) {
		if match(c) {
			dots = append(dots, c.Dot)
		}
	}
	return dots
}
