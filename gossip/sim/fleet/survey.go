package fleet

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// spacing is between the puts of a survey: no put meets another.
const spacing = 250 * time.Millisecond

// Survey is the spread of spaced puts of a few writers in a quiet fleet, once
// their trees are learnt.
func Survey(cfg Config, puts int) (Outcome, []*Probe, error) {
	s := Scenario{Name: "quiet"}
	var probes []*Probe
	s.Do = func(p *Play) error {
		for range puts {
			p.probes = append(p.probes, p.Watch(p.Fleet.Put(p.writers[p.rng.IntN(len(p.writers))], Key(0), p.value())))
			if err := p.RunFor(spacing); err != nil {
				return err
			}
		}
		probes = p.probes
		return nil
	}
	out, err := s.Run(cfg, time.Minute)
	return out, probes, err
}

// SurveyRules is the same under the rules of another system.
func SurveyRules(rules Rules, cfg Config, puts int) (Outcome, []*Probe) {
	e := NewEpidemic(rules, cfg.Seed, cfg.Nodes, cfg.Keys, len(Key(0))+cfg.ValueBytes, cfg.LAN)
	rng := rand.New(rand.NewPCG(cfg.Seed, 0x707574))
	pause := spacing
	if rules.Gossip == 0 { // or nothing would show but the first minutes
		pause = 10 * time.Second
	}
	var probes []*Probe
	for range puts {
		probes = append(probes, e.Put(rng.IntN(cfg.Nodes)))
		e.RunFor(pause)
	}
	over := time.Duration(puts) * pause
	bytes, syncs := e.Bytes, e.SyncBytes
	e.RunFor(10 * time.Minute)
	out := Outcome{Scenario: rules.Name, Nodes: cfg.Nodes, Spread: SpreadOf(probes, cfg.Nodes-1), Events: e.Events, Over: over}
	if e.Known > 0 {
		out.Copies = float64(e.Copies) / float64(e.Known)
	}
	out.Traffic.Bytes[kindOp], out.Traffic.Bytes[kindSession] = bytes, syncs
	return out, probes
}

// Learning is the copies of each of an origin's first ops that arrive at a node.
func Learning(cfg Config, ops int) (copies []float64, err error) {
	f := New(cfg)
	if err := f.RunFor(3 * time.Second); err != nil {
		return nil, err
	}
	before := f.Stats().OpsReceived
	for range ops {
		f.Put(cfg.Nodes/2, Key(0), make([]byte, 100))
		if err := f.RunFor(spacing); err != nil {
			return nil, err
		}
		now := f.Stats().OpsReceived
		copies = append(copies, float64(now-before)/float64(cfg.Nodes-1))
		before = now
	}
	if n := f.Differing(); n > 0 {
		return copies, fmt.Errorf("%d nodes differ", n)
	}
	return copies, f.Check()
}
