package sim

import (
	"container/heap"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/meshkv/meshkv/gossip"
)

// Config is what a simulation is made of.
type Config struct {
	Seed  uint64
	Nodes int
	// Latency of one frame, one way, and what chance adds to it.
	Latency, Jitter time.Duration
	// Bandwidth of one direction of a link, in bytes a second; 0 = unlimited.
	Bandwidth int
	// Skew is the most that a clock is off, either way.
	Skew time.Duration
	// Redial is the most that a broken link takes to come back.
	Redial time.Duration
	// Ghosts is the chance that a frame of a broken link arrives on the next.
	Ghosts float64
	// Persist is the period in which a node's state goes to disk.
	Persist time.Duration
	// Frame bounds a frame. Default 64 KiB.
	Frame  int
	Limits gossip.Limits
	// SkipIdle leaves out the ticks in which nothing is due, which must make no
	// difference.
	SkipIdle bool
}

// tick is the period of Replicator.Tick.
const tick = 50 * time.Millisecond

// epoch is when simulations begin.
var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// Sim is one running simulation. Not safe for concurrent use.
type Sim struct {
	cfg    Config
	rng    *rand.Rand
	now    time.Time
	queue  events
	serial uint64
	nodes  []*node
	conns  map[pair]*conn
	cut    map[pair]bool // pairs that a partition separates
	ledger ledger
	trace  *xxhash.Digest
	buf    [8]byte
	err    error // the first thing that must not happen

	// Counts of what happened.
	Events, Frames, Lost, Ghosts, Breaks, Restarts int
	Bytes                                          int64
}

// event is something that happens at a time. Events of one time happen in the
// order in which they were scheduled.
type event struct {
	at     time.Time
	serial uint64
	do     func()
}

type events []event

func (q events) Len() int { return len(q) }
func (q events) Less(i, j int) bool {
	if !q[i].at.Equal(q[j].at) {
		return q[i].at.Before(q[j].at)
	}
	return q[i].serial < q[j].serial
}
func (q events) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *events) Push(x any)   { *q = append(*q, x.(event)) }
func (q *events) Pop() any {
	last := len(*q) - 1
	e := (*q)[last]
	(*q)[last] = event{}
	*q = (*q)[:last]
	return e
}

// New is a simulation at its start: all nodes are up and empty, and all links
// come up within Redial.
func New(cfg Config) *Sim {
	if cfg.Frame == 0 {
		cfg.Frame = 64 << 10
	}
	if cfg.Redial == 0 {
		cfg.Redial = time.Second
	}
	if cfg.Persist == 0 {
		cfg.Persist = 200 * time.Millisecond
	}
	s := &Sim{
		cfg: cfg, rng: rand.New(rand.NewPCG(cfg.Seed, 0x73696d)), now: epoch,
		conns: make(map[pair]*conn), cut: make(map[pair]bool), ledger: newLedger(), trace: xxhash.New(),
	}
	for i := range cfg.Nodes {
		s.nodes = append(s.nodes, s.newNode(i))
	}
	for i, n := range s.nodes {
		for _, m := range s.nodes[i+1:] {
			p := pair{n.id, m.id}
			s.conns[p] = &conn{pair: p}
			s.redial(s.conns[p])
		}
		s.after(time.Duration(s.rng.Int64N(int64(tick))), func() { s.tick(n) })
		s.after(time.Duration(s.rng.Int64N(int64(cfg.Persist))), func() { s.persist(n) })
	}
	return s
}

// Now is the time since the start.
func (s *Sim) Now() time.Duration { return s.now.Sub(epoch) }

// TraceHash stands for everything that has happened, in its order.
func (s *Sim) TraceHash() uint64 { return s.trace.Sum64() }

// Replicator is what node i runs at present.
func (s *Sim) Replicator(i int) *gossip.Replicator { return s.nodes[i].rep }

// after schedules do.
func (s *Sim) after(d time.Duration, do func()) {
	s.serial++
	heap.Push(&s.queue, event{at: s.now.Add(d), serial: s.serial, do: do})
}

// note takes what happens into the trace.
func (s *Sim) note(what string, numbers ...uint64) {
	_, _ = s.trace.WriteString(what)
	for _, u := range append(numbers, uint64(s.now.UnixNano())) {
		binary.LittleEndian.PutUint64(s.buf[:], u)
		_, _ = s.trace.Write(s.buf[:])
	}
}

// fail records the first violation.
func (s *Sim) fail(format string, args ...any) {
	if s.err == nil {
		s.err = fmt.Errorf("at %s: "+format, append([]any{s.Now()}, args...)...)
	}
}

// RunFor lets d pass.
func (s *Sim) RunFor(d time.Duration) error {
	end := s.now.Add(d)
	for s.err == nil && len(s.queue) > 0 && !s.queue[0].at.After(end) {
		e := heap.Pop(&s.queue).(event)
		s.now = e.at
		s.Events++
		e.do()
	}
	s.now = end
	return s.err
}

// Settle heals everything and lets time pass until all replicas hold the same
// and nothing waits to be sent, and checks the ledger then. It fails after limit.
func (s *Sim) Settle(limit time.Duration) error {
	s.Heal()
	for end := s.now.Add(limit); s.now.Before(end); {
		if err := s.RunFor(250 * time.Millisecond); err != nil {
			return err
		}
		if s.settled() {
			return s.Check()
		}
	}
	return fmt.Errorf("not settled %s after the heal: %s", limit, s.describe())
}

// settled reports whether all links are up and idle and all roots equal.
func (s *Sim) settled() bool {
	for _, p := range s.pairs() {
		if c := s.conns[p]; !c.up || c.dirs[0].flying+c.dirs[1].flying > 0 {
			return false
		}
	}
	data, clock := s.nodes[0].rep.Root()
	for _, n := range s.nodes {
		if d, c := n.rep.Root(); d != data || c != clock {
			return false
		}
		if st := n.rep.Stats(); st.QueuedOps > 0 || st.Sessions > 0 {
			return false
		}
	}
	return true
}

func (s *Sim) describe() string {
	out := ""
	for _, n := range s.nodes {
		d, c := n.rep.Root()
		out += fmt.Sprintf("\n%s data %x/%d clock %x/%d links %+v\n  stats %+v",
			n.self, d.Hash, d.Count, c.Hash, c.Count, n.rep.Links(), n.rep.Stats())
	}
	return out
}
