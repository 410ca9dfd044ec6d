package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/meshkv/meshkv/crdt"
	"github.com/meshkv/meshkv/gossip"
)

// A Schedule is a random run: what the world is like, and what happens in it.
// Each seed picks its own mixture (swarm testing, Groce et al. 2012).
type Schedule struct {
	Config
	Keys, Paths int
	Steps       int           // things that happen
	Pause       time.Duration // between them, on average
	// How often each thing happens, relative to the others.
	Put, Batch, Delete, Collect, Break, Partition, Heal, Restart, Backup int
	Origins                                                              []Origin // that restarts choose from
}

// Random is the schedule of a seed.
func Random(seed uint64) Schedule {
	rng := rand.New(rand.NewPCG(seed, 0x706c616e))
	pick := func(of ...int) int { return of[rng.IntN(len(of))] }
	ms := func(of ...int) time.Duration { return time.Duration(pick(of...)) * time.Millisecond }
	s := Schedule{
		Config: Config{
			Seed: seed, Nodes: pick(2, 3, 3, 4, 5),
			Latency: ms(0, 1, 10, 100), Jitter: ms(0, 1, 30),
			Bandwidth: pick(0, 0, 2_000, 50_000), Skew: ms(0, 0, 100, 3_000, 60_000),
			Redial: ms(10, 300, 2_000), Ghosts: float64(pick(0, 0, 1)) / 2,
			Persist: ms(50, 500, 5_000), Frame: pick(64<<10, 64<<10, 512, 1),
		},
		Keys: pick(1, 3, 20, 200), Paths: pick(1, 1, 3), Steps: pick(50, 200, 400), Pause: ms(1, 20, 200),
		Put: pick(5, 20), Delete: pick(0, 3, 10), Collect: pick(0, 0, 2), Break: pick(0, 0, 1, 3),
		Partition: pick(0, 0, 1), Heal: pick(1, 2), Restart: pick(0, 0, 1), Backup: 1,
		Origins: [][]Origin{{Current}, {Current, Disk}, {Nothing}, {Current, Disk, Backup, Nothing}}[rng.IntN(4)],
	}
	s.Batch = pick(0, 2, 10)
	if s.Bandwidth == 2_000 { // else a frame takes longer than a session waits
		s.Frame = min(s.Frame, 4<<10)
	}
	if rng.IntN(3) == 0 { // bounds that are met
		s.Limits = gossip.Limits{
			QueueRefs: pick(2, 20), RingOps: pick(1, 5, 50), AnnounceSpans: pick(1, 4), WantEntries: pick(1, 3),
			InboundSessions: 1, OutboundSessions: 1,
		}
	}
	return s
}

// Run runs the schedule to its end, settles and checks.
func (p Schedule) Run() (*Sim, error) {
	s := New(p.Config)
	if err := p.run(s); err != nil {
		return s, fmt.Errorf("seed %d: %w", p.Seed, err)
	}
	return s, nil
}

func (p Schedule) run(s *Sim) error {
	rng := rand.New(rand.NewPCG(p.Seed, 0x7374657073))
	key := func() string { return fmt.Sprintf("k%d", rng.IntN(p.Keys)) }
	total := p.Put + p.Batch + p.Delete + p.Collect + p.Break + p.Partition + p.Heal + p.Restart + p.Backup
	for i := range p.Steps {
		if err := s.RunFor(time.Duration(rng.Int64N(2*int64(p.Pause) + 1))); err != nil {
			return err
		}
		id := rng.IntN(p.Nodes)
		n := rng.IntN(total)
		chosen := func(share int) bool {
			n -= share
			return n < 0
		}
		switch {
		case chosen(p.Put):
			path := ""
			if x := rng.IntN(p.Paths); x > 0 {
				path = fmt.Sprintf("p%d", x)
			}
			s.Put(id, key(), path, fmt.Appendf(nil, "v%d", i))
		case chosen(p.Batch):
			var keys []string
			for range 1 + rng.IntN(5) {
				keys = append(keys, key())
			}
			s.Batch(id, keys, fmt.Appendf(nil, "v%d", i))
		case chosen(p.Delete):
			s.Delete(id, key())
		case chosen(p.Collect):
			var dots []crdt.Dot
			for range 3 {
				for _, c := range s.Replicator(id).Replica().Cells().ByKey(key()) {
					dots = append(dots, c.Dot)
				}
			}
			s.Collect(id, slices.Collect(crdt.DotsOf(dots...).All()))
		case chosen(p.Break):
			if other := rng.IntN(p.Nodes); other != id {
				s.Break(id, other)
			}
		case chosen(p.Partition):
			var side []int
			for j := range p.Nodes {
				if rng.IntN(2) == 0 {
					side = append(side, j)
				}
			}
			s.Partition(side)
		case chosen(p.Heal):
			s.Heal()
		case chosen(p.Restart):
			s.Restart(id, p.Origins[rng.IntN(len(p.Origins))])
		default:
			s.Backup(id)
		}
	}
	return s.Settle(5 * time.Minute)
}
