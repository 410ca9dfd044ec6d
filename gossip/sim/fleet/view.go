package fleet

import (
	"slices"
	"time"

	"github.com/meshkv/meshkv/gossip"
)

// What SWIM is modelled by: each node learns of each change after a delay of
// its own, which a hash draws, so that no view needs to be kept.
const (
	failureMin, failureMax = 3 * time.Second, 6 * time.Second // a failure: probes and suspicion
	newsMin, newsMax       = 200 * time.Millisecond, 1500 * time.Millisecond
	rejoinMax              = 15 * time.Second       // until a former member is tried again
	newsPerSecond          = 250                    // members that gossip brings to a node after a partition
	viewEvery              = 500 * time.Millisecond // while views change
	partnerEvery           = 30 * time.Second
	surplusAfter           = 10 * time.Second
)

// change is a start or an end of a node's process.
type change struct {
	at    int64
	up    bool
	clean bool // it said goodbye
}

// split is a partition.
type split struct {
	serial   uint64
	group    []uint8
	size     [256]int
	from, to int64 // to is 0 while it lasts
	rejoin   int64 // until somebody of the other side is met
}

func (p *split) apart(a, b int32) bool { return p.group[a] != p.group[b] }

// draw is a delay for which only its arguments decide.
func (f *Fleet) draw(n, m int32, serial uint64, from, to time.Duration) int64 {
	h := mix(mix(f.cfg.Seed+uint64(n)<<32+uint64(m)) + serial)
	return int64(from) + int64(h%uint64(to-from))
}

func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// sees reports whether node n takes m for a member at present.
func (f *Fleet) sees(n, m int32) bool {
	known := false
	changes := f.nodes[m].changes
	for i := len(changes) - 1; i >= 0; i-- {
		c := &changes[i]
		from, to := newsMin, newsMax
		if !c.up && !c.clean {
			from, to = failureMin, failureMax
		}
		if c.at+f.draw(n, m, uint64(i), from, to) <= f.now {
			known = c.up
			break
		}
	}
	if !known {
		return false
	}
	for _, p := range f.splits {
		if !p.apart(n, m) {
			continue
		}
		lost := p.from + f.draw(n, m, p.serial, failureMin, failureMax)
		if f.now < lost || p.to != 0 && p.to < lost {
			continue
		}
		if p.to == 0 {
			return false
		}
		others := len(p.group) - p.size[p.group[n]]
		late := f.draw(n, m, p.serial+1, newsMin, time.Second+time.Duration(others)*time.Second/newsPerSecond)
		if f.now < p.to+p.rejoin+late {
			return false
		}
	}
	return true
}

// changing notes that views change for the next while.
func (f *Fleet) changing(d time.Duration) {
	f.unsettled = max(f.unsettled, f.now+int64(d))
	if f.viewing {
		return
	}
	f.viewing = true
	for _, n := range f.nodes {
		f.do(f.between(0, viewEvery), func() { f.look(n) })
	}
}

// look is node n's look at its view, again and again while views change.
func (f *Fleet) look(n *node) {
	if n.rep != nil {
		f.refresh(n)
	}
	if f.now < f.unsettled {
		f.do(viewEvery, func() { f.look(n) })
	} else {
		f.viewing = false
	}
}

// refresh brings the links that n wants up to date with what it sees.
func (f *Fleet) refresh(n *node) {
	names, complete := f.overlay.Among(n.name, func(name string) bool { return f.sees(n.id, f.ids[name]) })
	role := gossip.RoleTree
	if complete {
		role = gossip.RoleDirect
	}
	wanted := n.spare[:0]
	for _, name := range names {
		wanted = append(wanted, f.ids[name])
	}
	neighbours := len(wanted)
	if p := n.partner; p >= 0 && !slices.Contains(wanted, p) && f.sees(n.id, p) {
		wanted = append(wanted, p)
	}
	for _, id := range n.wanted {
		if !slices.Contains(wanted, id) {
			f.unwant(n, n.links[id])
		}
	}
	for i, id := range wanted {
		if i < neighbours {
			f.want(n, id, role)
		} else {
			f.want(n, id, gossip.RoleQuiet)
		}
	}
	n.wanted, n.spare = wanted, n.wanted
}

// meet gives n another random partner, every 30 s.
func (f *Fleet) meet(n *node, run int) {
	if n.run != run {
		return
	}
	n.partner = -1
	if name := f.overlay.Partner(n.name, f.rng.Uint64()); name != "" {
		n.partner = f.ids[name]
	}
	f.refresh(n)
	f.do(partnerEvery, func() { f.meet(n, run) })
}
