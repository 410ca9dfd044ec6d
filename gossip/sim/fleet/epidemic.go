package fleet

import (
	"math"
	"math/rand/v2"
	"time"
)

// Rules are how a system spreads updates, as far as its documentation and its
// published constants say and as far as it decides when they arrive. They are
// models of the rules: no code of those systems, none of their costs other than
// those of the LAN, and none of their faults.
type Rules struct {
	Name string
	// Every Gossip a node sends one packet of queued updates to each of Fanout
	// random nodes, the least sent first, until it sent each Mult·⌈log10(n+1)⌉ times.
	Gossip       time.Duration
	Fanout, Mult int
	Packet       int // bytes of updates that fit into one
	Overhead     int // bytes of an update beside its key and value
	// Every Sync a node exchanges everything with one random node.
	Sync time.Duration
	// SyncScaled: above 32 nodes the period grows with ⌈log2 n − log2 32⌉ + 1.
	SyncScaled bool
	// SyncSpreads: what a sync brought is gossiped on.
	SyncSpreads bool
}

// The systems that are compared.
var (
	// NetworkDB is Docker's, in the version of bench/: gossip and bulk sync.
	NetworkDB = Rules{
		Name: "NetworkDB rules", Gossip: 200 * time.Millisecond, Fanout: 3, Mult: 4, Packet: 1400, Overhead: 60,
		Sync: 30 * time.Second,
	}
	// Piggyback is a store on memberlist's broadcast queue, with its LAN defaults.
	Piggyback = Rules{
		Name: "memberlist broadcast", Gossip: 200 * time.Millisecond, Fanout: 3, Mult: 4, Packet: 1400, Overhead: 30,
		Sync: 30 * time.Second, SyncScaled: true, SyncSpreads: true,
	}
	// PushPull is nothing but anti-entropy of the full state.
	PushPull = Rules{Name: "full push/pull", Overhead: 30, Sync: 30 * time.Second}
)

// Epidemic is a fleet that follows Rules, in the network and on the clock of a
// Fleet. Updates are numbered and never conflict.
type Epidemic struct {
	Rules
	nodes, entry, keys int // entry: bytes of a key and its value
	lan                LAN
	rng                *rand.Rand
	now                int64
	queue              queue
	members            []patient
	probes             []*Probe
	limit              int

	// Copies is how often an update arrived, Known how often it was new there.
	Copies, Known int64
	// Bytes are of updates in gossip, and SyncBytes of exchanges.
	Bytes, SyncBytes int64
	Events           int
}

// patient is one node of an Epidemic.
type patient struct {
	known []uint64  // bit set of updates
	sent  [][]int32 // waiting updates by how often they were sent
	armed bool
	phase int64
	busy  int64
}

// NewEpidemic is such a fleet. Every node holds that many keys already.
func NewEpidemic(rules Rules, seed uint64, nodes, keys, entry int, lan LAN) *Epidemic {
	if lan == (LAN{}) {
		lan = DefaultLAN
	}
	e := &Epidemic{
		Rules: rules, nodes: nodes, entry: entry, keys: keys, lan: lan,
		rng: rand.New(rand.NewPCG(seed, 0x65706964)), members: make([]patient, nodes),
		limit: rules.Mult * int(math.Ceil(math.Log10(float64(nodes+1)))),
	}
	period := rules.Sync
	if rules.SyncScaled && nodes > 32 {
		period *= time.Duration(math.Ceil(math.Log2(float64(nodes))-5) + 1)
	}
	for i := range e.members {
		if rules.Gossip > 0 {
			e.members[i].phase = e.rng.Int64N(int64(rules.Gossip))
		}
		e.every(e.rng.Int64N(int64(period)), int64(period), func() { e.sync(i, e.other(i)) })
	}
	return e
}

func (e *Epidemic) every(first, period int64, do func()) {
	var again func()
	again = func() {
		do()
		e.queue.push(e.now+period, event{do: again})
	}
	e.queue.push(e.now+first, event{do: again})
}

func (e *Epidemic) other(i int) int {
	j := e.rng.IntN(e.nodes - 1)
	if j >= i {
		j++
	}
	return j
}

// RunFor lets d pass.
func (e *Epidemic) RunFor(d time.Duration) {
	end := e.now + int64(d)
	for {
		at, ok := e.queue.next()
		if !ok || at > end {
			break
		}
		x := e.queue.pop()
		e.now = at
		e.Events++
		x.do()
	}
	e.now = end
}

// Put makes an update at node i.
func (e *Epidemic) Put(i int) *Probe {
	p := &Probe{At: e.now}
	id := int32(len(e.probes))
	e.probes = append(e.probes, p)
	e.learn(i, id, e.Gossip > 0)
	p.Delays = p.Delays[:0] // not at its origin
	return p
}

// learn makes an update known at node i, and lets it gossip about it.
func (e *Epidemic) learn(i int, id int32, spread bool) (news bool) {
	m := &e.members[i]
	for len(m.known) <= int(id/64) {
		m.known = append(m.known, 0)
	}
	if m.known[id/64]&(1<<(id%64)) != 0 {
		return false
	}
	m.known[id/64] |= 1 << (id % 64)
	p := e.probes[id]
	p.Delays = append(p.Delays, max(m.busy, e.now)-p.At)
	if spread {
		if len(m.sent) == 0 {
			m.sent = make([][]int32, e.limit)
		}
		m.sent[0] = append(m.sent[0], id)
		e.arm(i)
	}
	return true
}

// arm lets node i gossip at the next moment of its period.
func (e *Epidemic) arm(i int) {
	m := &e.members[i]
	if m.armed {
		return
	}
	m.armed = true
	period := int64(e.Gossip)
	at := e.now + 1
	at += ((m.phase-at)%period + period) % period
	e.queue.push(at, event{do: func() { e.gossip(i) }})
}

// gossip sends what waits at node i to a few others.
func (e *Epidemic) gossip(i int) {
	m := &e.members[i]
	m.armed = false
	for range e.Fanout {
		ids := e.take(m)
		if len(ids) == 0 {
			return
		}
		size := len(ids) * (e.entry + e.Overhead)
		e.Bytes += int64(size)
		m.busy = max(m.busy, e.now) + e.lan.cost(e.lan.Send, size)
		if e.lan.lost(e.rng) {
			continue
		}
		to := e.other(i)
		e.queue.push(m.busy+e.lan.wire(size)+e.lan.latency(e.rng), event{do: func() { e.receive(to, ids, size) }})
	}
	e.arm(i)
}

// take is the updates of one packet: the least sent first, of those the newest.
func (e *Epidemic) take(m *patient) (ids []int32) {
	room := max(e.Packet/(e.entry+e.Overhead), 1)
	var moved []int
	for sent := 0; sent < len(m.sent) && room > 0; sent++ {
		waiting := m.sent[sent]
		n := min(room, len(waiting))
		room -= n
		ids = append(ids, waiting[len(waiting)-n:]...)
		m.sent[sent] = waiting[:len(waiting)-n]
		for range n {
			moved = append(moved, sent+1)
		}
	}
	for k, sent := range moved {
		if sent < len(m.sent) {
			m.sent[sent] = append(m.sent[sent], ids[k])
		}
	}
	return ids
}

func (e *Epidemic) receive(to int, ids []int32, size int) {
	m := &e.members[to]
	m.busy = max(m.busy, e.now) + e.lan.cost(e.lan.Receive, size)
	for _, id := range ids {
		e.Copies++
		if e.learn(to, id, true) {
			e.Known++
		}
	}
}

// sync makes nodes i and j know what either knows. It takes a few round trips
// and the time of the wire.
func (e *Epidemic) sync(i, j int) {
	size := 0
	for _, x := range []int{i, j} {
		size += (e.keys + e.count(x)) * (e.entry + e.Overhead)
	}
	e.SyncBytes += int64(size)
	took := 4*e.lan.latency(e.rng) + e.lan.wire(size) + e.lan.retransmit(e.rng, size)
	e.queue.push(e.now+took, event{do: func() {
		e.merge(i, j)
		e.merge(j, i)
	}})
}

func (e *Epidemic) count(i int) (n int) {
	for _, w := range e.members[i].known {
		for ; w != 0; w &= w - 1 {
			n++
		}
	}
	return n
}

func (e *Epidemic) merge(into, from int) {
	for k, w := range e.members[from].known {
		if k < len(e.members[into].known) {
			w &^= e.members[into].known[k]
		}
		for b := int32(0); w != 0; b, w = b+1, w>>1 {
			if w&1 != 0 && e.learn(into, int32(k)*64+b, e.SyncSpreads && e.Gossip > 0) {
				e.Known++
				e.Copies++
			}
		}
	}
}
