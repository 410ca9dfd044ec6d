package fleet

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/meshkv/meshkv/gossip"
	"github.com/meshkv/meshkv/gossip/overlay"
)

// Config is what a fleet is made of.
type Config struct {
	Seed  uint64
	Nodes int
	Zones int // default 1
	// Keys are held by every node from the start, with values of ValueBytes.
	Keys, ValueBytes int
	LAN              LAN
	Limits           gossip.Limits
	// Writers is how many nodes write in a scenario. Default 16.
	Writers int
}

// epoch is when simulations begin.
var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).UnixNano()

// tick is the period of Replicator.Tick.
const tick = 50 * time.Millisecond

// Fleet is one running simulation. Not safe for concurrent use.
type Fleet struct {
	cfg     Config
	lan     LAN
	rng     *rand.Rand
	now     int64 // since the start
	skipped int64 // what the clocks of the nodes are ahead of now
	queue   queue
	nodes   []*node
	ids     map[string]int32
	overlay *overlay.Overlay

	splits    []*split
	oneWay    map[[2]int32]bool
	unsettled int64 // views change until then
	viewing   bool

	ledger  ledger
	probes  map[dot]*Probe
	traffic Traffic
	past    gossip.Stats // of processes that are gone
	trace   *xxhash.Digest
	buf     [8]byte
	err     error

	// Counts of what happened.
	Events, Frames, Lost, Dials, Restarts int
	InboxMax                              int // the longest that one was since ResetPeaks
}

// New is a fleet at its start: all processes begin at once, and all links are
// dialled in the first second.
func New(cfg Config) *Fleet {
	if cfg.LAN == (LAN{}) {
		cfg.LAN = DefaultLAN
	}
	f := &Fleet{
		cfg: cfg, lan: cfg.LAN, rng: rand.New(rand.NewPCG(cfg.Seed, 0x666c656574)), ids: make(map[string]int32),
		oneWay: make(map[[2]int32]bool), ledger: newLedger(), probes: make(map[dot]*Probe), trace: xxhash.New(),
	}
	members := make([]overlay.Member, cfg.Nodes)
	for i := range members {
		members[i] = f.addNode()
	}
	f.overlay = overlay.New(members)
	full := f.preload()
	for _, n := range f.nodes {
		n.changes = []change{{at: -int64(time.Hour), up: true}}
		f.start(n, full, time.Duration(f.rng.Int64N(int64(time.Second))))
	}
	return f
}

// Now is the time since the start, skipped time not counted.
func (f *Fleet) Now() time.Duration { return time.Duration(f.now) }

// Len is the number of nodes, those that are down included.
func (f *Fleet) Len() int { return len(f.nodes) }

// TraceHash stands for everything that has happened, in its order.
func (f *Fleet) TraceHash() uint64 { return f.trace.Sum64() }

// Replicator is what node i runs, or nil.
func (f *Fleet) Replicator(i int) *gossip.Replicator { return f.nodes[i].rep }

// clock is what a node reads at a time.
func (f *Fleet) clock(at int64) time.Time { return time.Unix(0, epoch+at+f.skipped) }

// Skip lets d pass on the clocks of all nodes in one moment, while nothing
// happens: what a fleet that is in sync would spend on saying so. It is for
// times in which nothing is under way.
func (f *Fleet) Skip(d time.Duration) { f.skipped += int64(d) }

func (f *Fleet) after(d int64, e event) { f.queue.push(f.now+d, e) }

func (f *Fleet) do(d time.Duration, do func()) { f.after(int64(d), event{do: do}) }

// between draws a duration.
func (f *Fleet) between(from, to time.Duration) time.Duration {
	return from + time.Duration(f.rng.Int64N(int64(to-from)+1))
}

// note takes what happens into the trace.
func (f *Fleet) note(numbers ...uint64) {
	for _, u := range numbers {
		binary.LittleEndian.PutUint64(f.buf[:], u)
		_, _ = f.trace.Write(f.buf[:])
	}
	binary.LittleEndian.PutUint64(f.buf[:], uint64(f.now))
	_, _ = f.trace.Write(f.buf[:])
}

// fail records the first thing that must not happen.
func (f *Fleet) fail(format string, args ...any) {
	if f.err == nil {
		f.err = fmt.Errorf("at %s: "+format, append([]any{f.Now()}, args...)...)
	}
}

// RunFor lets d pass.
func (f *Fleet) RunFor(d time.Duration) error {
	end := f.now + int64(d)
	for f.err == nil {
		at, ok := f.queue.next()
		if !ok || at > end {
			break
		}
		e := f.queue.pop()
		f.now = at
		f.Events++
		switch e.kind {
		case doFunc:
			e.do()
		case doFrame:
			f.arrive(e)
		case doRun:
			f.run(e.node)
		case doWrite:
			f.resume(e.link, e.end, e.gen)
		case doTick:
			f.tick(e.node, at)
		}
	}
	f.now = end
	return f.err
}

// Settle lets time pass until all nodes that are up hold the same and no op
// waits anywhere, and checks the ledger then. It returns how long that took, to
// 250 ms, and fails after limit.
func (f *Fleet) Settle(limit time.Duration) (took time.Duration, err error) {
	for took < limit {
		if err := f.RunFor(250 * time.Millisecond); err != nil {
			return took, err
		}
		took += 250 * time.Millisecond
		if f.Differing() == 0 && f.queued() == 0 {
			return took, f.Check()
		}
	}
	return took, fmt.Errorf("%d nodes still differ after %s", f.Differing(), limit)
}
