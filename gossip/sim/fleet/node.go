package fleet

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/meshkv/meshkv/crdt"
	"github.com/meshkv/meshkv/gossip"
	"github.com/meshkv/meshkv/gossip/overlay"
)

type dot = crdt.Dot

// keyspaceSeed keys the hashes of the simulated keyspace.
const keyspaceSeed = 0x666c656574

// node is one machine and the process on it.
type node struct {
	id      int32
	name    string
	zone    string
	changes []change

	run   int // of processes
	since int64
	self  gossip.PeerID
	inc   crdt.Inc
	rep   *gossip.Replicator // nil: there is none
	peers map[gossip.PeerID]*link
	hlc   crdt.HLC
	disk  image

	links   map[int32]*link
	wanted  []int32
	spare   []int32
	partner int32

	slow   int64 // how often as much time as others it needs for everything
	busy   int64 // the processor is, until then
	inbox  []arrival
	head   int
	tickAt int64 // 0: none is scheduled
	phase  int64
}

// arrival is a frame that waits for the processor.
type arrival struct {
	link *link
	end  uint8
	gen  uint32
	data []byte
}

// image is what a process leaves on its disk. Cells are shared: they never change.
type image struct {
	cells   *crdt.MapCells
	clock   *crdt.Clock
	pending crdt.Dots
	inc     crdt.Inc
}

// addNode makes a machine without a process.
func (f *Fleet) addNode() overlay.Member {
	id := int32(len(f.nodes))
	n := &node{
		id: id, name: fmt.Sprintf("n%05d", id), zone: fmt.Sprintf("z%d", int(id)%max(f.cfg.Zones, 1)),
		links: make(map[int32]*link), partner: -1, slow: 1, phase: f.rng.Int64N(int64(tick)),
	}
	f.nodes = append(f.nodes, n)
	f.ids[n.name] = id
	return overlay.Member{Name: n.name, Zone: n.zone}
}

// preload is the image of a replica with the keys that everybody holds.
func (f *Fleet) preload() image {
	im := image{cells: crdt.NewMapCells(), clock: crdt.NewClock()}
	if f.cfg.Keys == 0 {
		return im
	}
	inc := crdt.NewInc(epoch/int64(time.Millisecond)-3_600_000, f.rng.Uint64())
	loader := crdt.NewReplica(crdt.State{Inc: inc, Cells: im.cells, Clock: im.clock})
	for i := range f.cfg.Keys {
		at := crdt.HLC(0).Next(epoch/int64(time.Millisecond) - 3_600_000)
		ops, err := loader.Put(crdt.Write{Key: Key(i), Kind: crdt.KindRegister, Value: make([]byte, f.cfg.ValueBytes), HLC: at})
		if err != nil {
			f.fail("preload: %v", err)
			break
		}
		f.ledger.issued(ops[0].Dot, true, nil)
	}
	return im
}

// Key is the name of a key.
func Key(i int) string { return fmt.Sprintf("service/%024d", i) }

// start begins a process of n on what the image holds, and lets it meet others
// after a while.
func (f *Fleet) start(n *node, from image, after time.Duration) {
	n.run++
	n.since = f.now
	n.inc = crdt.NewInc((epoch+f.now+f.skipped)/int64(time.Millisecond), f.rng.Uint64())
	n.self = gossip.PeerID(fmt.Sprintf("%s/%s", n.name, n.inc))
	n.peers = make(map[gossip.PeerID]*link)
	n.inbox, n.head, n.tickAt = nil, 0, 0
	cells := crdt.NewMapCells()
	for c := range from.cells.All() {
		cells.Add(c)
		n.hlc = max(n.hlc, c.HLC)
	}
	n.rep = gossip.New(gossip.Config{
		Keyspace: "fleet", Self: n.self, Seed: keyspaceSeed, Limits: f.cfg.Limits,
		Rand: rand.New(rand.NewPCG(f.rng.Uint64(), f.rng.Uint64())),
	}, crdt.State{Inc: n.inc, Cells: cells, Clock: from.clock.Clone(), Pending: slices.Clone(from.pending)}, cells.All())
	if old := from.inc; old != 0 && from.clock.Entry(old).Max() > 0 { // superseded, and it wrote
		n.rep.CloseInc(old)
	}
	n.rep.Changes().Reset()
	run := n.run
	f.do(after, func() { f.meet(n, run) })
}

// Join adds a node without data, which learns of the others at once and of
// which they learn after a while. It returns the node.
func (f *Fleet) Join() int {
	f.overlay.Add(f.addNode())
	n := f.nodes[len(f.nodes)-1]
	n.changes = []change{{at: f.now, up: true}}
	f.note('j', uint64(n.id))
	f.start(n, image{cells: crdt.NewMapCells(), clock: crdt.NewClock()}, 10*time.Millisecond)
	f.changing(newsMax)
	return int(n.id)
}

// An End is how a process ends.
type End int

// How processes end.
const (
	Leave End = iota // it says goodbye
	Kill             // its connections are closed for it
	Power            // nobody hears anything
)

// Stop ends the process of node i.
func (f *Fleet) Stop(i int, how End) {
	n := f.nodes[i]
	if n.rep == nil {
		return
	}
	f.note('s', uint64(i), uint64(how))
	r := n.rep.Replica()
	n.disk = image{cells: r.Cells().(*crdt.MapCells), clock: r.Clock(), pending: r.Pending(), inc: n.inc}
	addStats(&f.past, n.rep.Stats())
	n.rep, n.partner = nil, -1
	n.run++
	n.changes = append(n.changes, change{at: f.now, clean: how == Leave})
	for _, id := range sortedKeys(n.links) {
		f.ended(n.links[id], n, how)
	}
	n.wanted = n.wanted[:0]
	f.changing(failureMax)
}

// Start begins a new process of node i: on what the last one left, or on an
// empty disk.
func (f *Fleet) Start(i int, empty bool) {
	n := f.nodes[i]
	im := n.disk
	if empty {
		im = image{cells: crdt.NewMapCells(), clock: crdt.NewClock()}
		f.ledger.wiped(f, n)
	}
	n.disk = image{}
	f.Restarts++
	f.note('r', uint64(i))
	n.changes = append(n.changes, change{at: f.now, up: true})
	f.start(n, im, 10*time.Millisecond)
	f.changing(newsMax)
}

// Slow makes everything at node i take that many times as long.
func (f *Fleet) Slow(i int, times int64) { f.nodes[i].slow = times }

// tick is Replicator.Tick, which production calls every 50 ms and this where it
// has something to do.
func (f *Fleet) tick(n *node, at int64) {
	if at != n.tickAt || n.rep == nil { // another one was scheduled since
		return
	}
	n.tickAt = 0
	n.rep.Tick(f.clock(f.now))
	f.effects(n)
}

// armTick schedules the next tick that has something to do.
func (f *Fleet) armTick(n *node) {
	due, ok := n.rep.NextDue()
	if !ok {
		return
	}
	at := max(due.UnixNano()-epoch-f.skipped, f.now+1)
	at += (n.phase - at%int64(tick) + int64(tick)) % int64(tick) // the next on the node's grid
	if n.tickAt == 0 || at < n.tickAt {
		n.tickAt = at
		f.queue.push(at, event{kind: doTick, node: n})
	}
}

// effects does what the owner of a replicator owes it after each call.
func (f *Fleet) effects(n *node) {
	ch := n.rep.Changes()
	if len(f.probes) > 0 {
		for _, c := range ch.Added {
			f.reached(n, c.Dot)
		}
	}
	ch.Reset()
	if n.rep.Lost() {
		f.fail("%s met its own dot, which no node forged", n.self)
	}
	if wakes := n.rep.TakeWakes(); len(wakes) > 0 {
		for _, p := range slices.Clone(wakes) {
			if l := n.peers[p]; l != nil {
				f.write(l, l.end(n))
			}
		}
	}
	f.armTick(n)
}

// Put writes a key at node i.
func (f *Fleet) Put(i int, key string, value []byte) dot {
	n := f.nodes[i]
	removes := n.dots(key)
	d, err := n.rep.Put(f.clock(f.now), crdt.Write{Key: key, Kind: crdt.KindRegister, Value: value, HLC: f.next(n)})
	if err != nil {
		f.fail("put: %v", err)
		return d
	}
	f.issued(n, d, true, removes)
	return d
}

// Delete removes a key at node i and reports whether there was one.
func (f *Fleet) Delete(i int, key string) bool {
	n := f.nodes[i]
	removes := n.dots(key)
	d, deleted, err := n.rep.Delete(f.clock(f.now), key, f.next(n))
	if err != nil {
		f.fail("delete: %v", err)
	}
	if deleted {
		f.issued(n, d, false, removes)
	}
	return deleted
}

func (f *Fleet) issued(n *node, d dot, put bool, removes []dot) {
	f.note('w', uint64(n.id), uint64(d.Inc), d.Seq)
	f.ledger.issued(d, put, removes)
	n.rep.Changes().Reset()
	n.busy = max(n.busy, f.now)
	f.effects(n)
}

// next is the HLC of the next write of n.
func (f *Fleet) next(n *node) crdt.HLC {
	n.hlc = max(n.hlc, n.rep.MaxHLC()).Next(f.clock(f.now).UnixMilli())
	return n.hlc
}

func (n *node) dots(key string) (dots []dot) {
	for _, c := range n.rep.Replica().Cells().ByKey(key) {
		dots = append(dots, c.Dot)
	}
	return dots
}
