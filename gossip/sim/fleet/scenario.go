package fleet

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// Outcome is what a scenario showed.
type Outcome struct {
	Scenario string
	Nodes    int
	Spread   Spread        // of the puts that were watched
	Copies   float64       // arrivals of an op at a node, for each first one
	Converge time.Duration // from the end of the trouble and of the writes until all are equal
	Traffic  Traffic
	Over     time.Duration // in which the traffic was
	Stats    Stats
	Timeline []Sample
	Events   int
	Trace    uint64
}

// Stats is how often something was needed that costs.
type Stats struct{ Grafts, Sessions, Aborted, Busy, Overflows, Fuse, Lost int64 }

// Sample is the state of the fleet at a time since the start of the scenario.
type Sample struct {
	At        time.Duration
	Differing int
	Bytes     int64 // sent since the last sample
	Sizes
}

// Play is one scenario while it runs.
type Play struct {
	*Fleet
	rng      *rand.Rand
	cfg      Config
	began    time.Duration
	writers  []int
	probes   []*Probe
	expected int // arrivals of what is watched
	samples  []Sample
	last     Traffic
	healed   time.Duration
}

// A Scenario is trouble with a name.
type Scenario struct {
	Name string
	Do   func(p *Play) error
	LAN  func(lan *LAN) // changes the network
}

// Run plays s on a new fleet, lets it settle and checks the ledger.
func (s Scenario) Run(cfg Config, limit time.Duration) (Outcome, error) {
	if cfg.LAN == (LAN{}) {
		cfg.LAN = DefaultLAN
	}
	if s.LAN != nil {
		s.LAN(&cfg.LAN)
	}
	p := &Play{Fleet: New(cfg), cfg: cfg, rng: rand.New(rand.NewPCG(cfg.Seed, 0x706c6179))}
	out := Outcome{Scenario: s.Name, Nodes: cfg.Nodes}
	wrap := func(err error) error {
		return fmt.Errorf("%s, %d nodes, seed %d: %w", s.Name, cfg.Nodes, cfg.Seed, err)
	}
	if err := p.warmUp(); err != nil {
		return out, wrap(err)
	}
	before, traffic := p.Stats(), p.Traffic()
	p.began, p.last = p.Now(), traffic
	if err := s.Do(p); err != nil {
		return out, wrap(err)
	}
	p.healed = p.Now()
	for p.Differing() > 0 || p.queued() > 0 {
		if p.Now()-p.healed >= limit {
			return out, wrap(fmt.Errorf("%d nodes still differ after %s", p.Differing(), limit))
		}
		if err := p.RunFor(250 * time.Millisecond); err != nil {
			return out, wrap(err)
		}
		p.sample()
	}
	if err := p.Check(); err != nil {
		return out, wrap(err)
	}
	out.Converge = p.Now() - p.healed
	out.Spread = SpreadOf(p.probes, p.cfg.Nodes-1)
	if p.expected > 0 {
		out.Spread.Share = float64(p.arrived()) / float64(p.expected)
	}
	after := p.Stats()
	if fresh := (after.OpsReceived - after.OpsDuplicate) - (before.OpsReceived - before.OpsDuplicate); fresh > 0 {
		out.Copies = float64(after.OpsReceived-before.OpsReceived) / float64(fresh)
	}
	out.Traffic, out.Over = p.Traffic().Minus(traffic), p.Now()-p.began
	out.Stats = Stats{
		Grafts: after.GraftsSent - before.GraftsSent, Sessions: after.SessionsDone - before.SessionsDone,
		Aborted: after.SessionsAborted - before.SessionsAborted, Busy: after.BusySent - before.BusySent,
		Overflows: after.Overflows - before.Overflows, Fuse: after.FuseBlown - before.FuseBlown, Lost: int64(p.Lost),
	}
	out.Timeline, out.Events, out.Trace = p.samples, p.Events, p.TraceHash()
	return out, nil
}

func (p *Play) arrived() (n int) {
	for _, x := range p.probes {
		n += len(x.Delays)
	}
	return n
}

// warmUp brings up the links and lets the trees of the writers be learnt.
func (p *Play) warmUp() error {
	if err := p.RunFor(3 * time.Second); err != nil {
		return err
	}
	writers := p.cfg.Writers
	if writers == 0 {
		writers = 16
	}
	for range min(p.cfg.Nodes, writers) {
		p.writers = append(p.writers, p.rng.IntN(p.cfg.Nodes))
	}
	for range 3 {
		for _, w := range p.writers {
			p.Fleet.Put(w, Key(p.rng.IntN(max(p.cfg.Keys, 1))), p.value())
			if err := p.RunFor(20 * time.Millisecond); err != nil {
				return err
			}
		}
		if err := p.RunFor(2 * time.Second); err != nil {
			return err
		}
	}
	return nil
}

func (p *Play) value() []byte {
	v := make([]byte, max(p.cfg.ValueBytes, 8))
	for i := range v {
		v[i] = byte(p.rng.Uint32())
	}
	return v
}

// sample takes down the state of things.
func (p *Play) sample() {
	t := p.Traffic()
	sent := t.Minus(p.last)
	p.samples = append(p.samples, Sample{
		At: p.Now() - p.began, Differing: p.Differing(), Bytes: sent.Total(), Sizes: p.Sizes(),
	})
	p.last = t
}

// write puts or, one time in ten, deletes a random key at a random writer that
// is up.
func (p *Play) write(watch bool) {
	i := p.writers[p.rng.IntN(len(p.writers))]
	for p.nodes[i].rep == nil {
		i = p.rng.IntN(len(p.nodes))
	}
	key := Key(p.rng.IntN(max(p.cfg.Keys, 1)))
	if p.rng.IntN(10) == 0 {
		p.Delete(i, key)
		return
	}
	d := p.Fleet.Put(i, key, p.value())
	if watch {
		p.probes = append(p.probes, p.Watch(d))
		p.expected += p.Up() - 1
	}
}

// load writes for d, that many times a second, and does something else once a
// second.
func (p *Play) load(d time.Duration, rate int, watch bool, second func(i int)) error {
	for i := range int(d / time.Second) {
		if second != nil {
			second(i)
		}
		for range rate {
			p.write(watch)
			if err := p.RunFor(time.Second / time.Duration(rate)); err != nil {
				return err
			}
		}
		p.sample()
	}
	return nil
}

// some are n different nodes at random.
func (p *Play) some(n int) []int {
	return p.rng.Perm(p.cfg.Nodes)[:n]
}

// Scenarios are all of them. Rates are those of the whole fleet.
func Scenarios(rate int) []Scenario {
	lossy := func(share float64) func(*LAN) { return func(lan *LAN) { lan.Loss = share } }
	steady := func(p *Play) error { return p.load(30*time.Second, rate, true, nil) }
	return []Scenario{
		{Name: "steady load", Do: steady},
		{Name: "1 % of packets lost", Do: steady, LAN: lossy(.01)},
		{Name: "10 % of packets lost", Do: steady, LAN: lossy(.1)},
		{Name: "30 % of packets lost", Do: steady, LAN: lossy(.3)},
		{Name: "one-way cuts", Do: func(p *Play) error { return p.oneWayCuts(rate) }},
		{Name: "crashes", Do: func(p *Play) error { return p.crashes(rate) }},
		{Name: "flapping", Do: func(p *Play) error { return p.flapping(rate) }},
		{Name: "rolling restart", Do: func(p *Play) error { return p.rollingRestart(rate) }},
		{Name: "disk loss", Do: func(p *Play) error { return p.diskLoss(rate) }},
		{Name: "slow peer", Do: func(p *Play) error { return p.slowPeer(rate) }},
		{Name: "joiners", Do: func(p *Play) error { return p.joiners(rate) }},
		{Name: "partition of 30 s", Do: func(p *Play) error { return p.partition(rate, 30*time.Second) }},
		{Name: "partition of 10 min", Do: func(p *Play) error { return p.partition(rate, 10*time.Minute) }},
		{Name: "partition of 25 h", Do: func(p *Play) error { return p.partition(rate, 25*time.Hour) }},
	}
}

// oneWayCuts keeps one direction between a node and each of its neighbours from
// working, for a twentieth of the nodes.
func (p *Play) oneWayCuts(rate int) error {
	for _, i := range p.some(max(p.cfg.Nodes/20, 1)) {
		for _, id := range p.nodes[i].wanted[:len(p.nodes[i].wanted)/2] {
			p.CutOneWay(i, int(id))
		}
	}
	if err := p.load(30*time.Second, rate, true, nil); err != nil {
		return err
	}
	p.Heal()
	return nil
}

// crashes takes the power from a hundredth of the nodes every second, and gives
// it back 10 s later.
func (p *Play) crashes(rate int) error {
	err := p.load(30*time.Second, rate, true, func(int) {
		for _, i := range p.some(max(p.cfg.Nodes/100, 1)) {
			if p.nodes[i].rep == nil {
				continue
			}
			p.Stop(i, Power)
			p.do(10*time.Second, func() { p.Start(i, false) })
		}
	})
	if err != nil {
		return err
	}
	return p.RunFor(10 * time.Second)
}

// flapping kills a twentieth of the nodes every 4 s and starts them 2 s later.
func (p *Play) flapping(rate int) error {
	bad := p.some(max(p.cfg.Nodes/20, 1))
	return p.load(40*time.Second, rate, true, func(s int) {
		for _, i := range bad {
			switch s % 4 {
			case 0:
				p.Stop(i, Kill)
			case 2:
				p.Start(i, false)
			}
		}
	})
}

// rollingRestart restarts every node once within a minute.
func (p *Play) rollingRestart(rate int) error {
	order := p.some(p.cfg.Nodes)
	next := 0
	err := p.load(time.Minute, rate, true, func(s int) {
		for ; next < len(order)*(s+1)/60; next++ {
			i := order[next]
			p.do(p.between(0, time.Second), func() { p.Stop(i, Leave) })
			p.do(p.between(2*time.Second, 3*time.Second), func() { p.Start(i, false) })
		}
	})
	if err != nil {
		return err
	}
	return p.RunFor(3 * time.Second)
}

// diskLoss takes process and disk of a hundredth of the nodes every 3 s.
func (p *Play) diskLoss(rate int) error {
	return p.load(30*time.Second, rate, true, func(s int) {
		if s%3 != 0 {
			return
		}
		for _, i := range p.some(max(p.cfg.Nodes/100, 1)) {
			p.Stop(i, Kill)
			p.Start(i, true)
		}
	})
}

// slowPeer makes everything at one node that relays for others take a thousand
// times as long: 25 ms a frame.
func (p *Play) slowPeer(rate int) error {
	slow := p.some(1)[0]
	p.Slow(slow, 1000)
	if err := p.load(30*time.Second, rate, true, nil); err != nil {
		return err
	}
	p.Slow(slow, 1)
	return nil
}

// joiners adds a tenth of the nodes, empty, within 10 s.
func (p *Play) joiners(rate int) error {
	n := max(p.cfg.Nodes/10, 1)
	joined := 0
	err := p.load(10*time.Second, rate, true, func(s int) {
		for ; joined < n*(s+1)/10; joined++ {
			p.do(p.between(0, time.Second), func() { p.Join() })
		}
	})
	if err != nil {
		return err
	}
	return p.RunFor(time.Second)
}

// partition halves the fleet, which is written and deleted in on both sides five
// times. What passes in between is skipped when it is long.
func (p *Play) partition(rate int, d time.Duration) error {
	if err := p.load(5*time.Second, rate, true, nil); err != nil {
		return err
	}
	p.Unwatch()
	half := p.some(p.cfg.Nodes / 2)
	p.Partition(half)
	for left := d; left > 0; {
		burst := min(left, 5*time.Second)
		if err := p.load(burst, rate, false, nil); err != nil {
			return err
		}
		left -= burst
		rest := min(left, max(d/5, time.Minute))
		left -= rest
		idle := min(rest, 45*time.Second)
		if err := p.RunFor(idle); err != nil {
			return err
		}
		p.Skip(rest - idle)
	}
	p.sample()
	p.Heal()
	return nil
}
