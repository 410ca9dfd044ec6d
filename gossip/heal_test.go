package gossip

import (
	"fmt"
	"testing"
	"time"

	"github.com/meshkv/meshkv/crdt"
)

// chain is replicators of which each has a link to the next. A frame takes a
// step of 50 ms, so that what crosses the chain does it hop by hop.
type chain struct {
	t      *testing.T
	now    time.Time
	nodes  []*Replicator
	writes int
}

type hop struct {
	from, to *Replicator
	frame    []byte
}

// link brings the link between i and i+1 up.
func (c *chain) link(i int) {
	a, b := c.nodes[i], c.nodes[i+1]
	a.LinkUp(c.now, b.cfg.Self, RoleTree)
	b.LinkUp(c.now, a.cfg.Self, RoleTree)
}

// step passes 50 ms, in which the writers put a key each.
func (c *chain) step(writers []*Replicator) {
	c.now = c.now.Add(50 * time.Millisecond)
	for _, r := range writers {
		c.writes++
		mustPut(c.t, r, c.now, fmt.Sprint("w", c.writes%50))
	}
	var hops []hop
	for i, r := range c.nodes {
		r.Tick(c.now)
		r.Changes().Reset()
		for _, j := range []int{i - 1, i + 1} {
			for ok := j >= 0 && j < len(c.nodes); ok; {
				var frame []byte
				if frame, ok = r.NextFrame(c.now, c.nodes[j].cfg.Self, nil, 64<<10); ok {
					hops = append(hops, hop{r, c.nodes[j], frame})
				}
			}
		}
	}
	for _, h := range hops {
		if err := h.to.Step(c.now, h.from.cfg.Self, h.frame); err != nil {
			c.t.Fatal(err)
		}
	}
}

// What an island held goes on from the one node that reconciles with it, and does
// not wait at each hop for a session that summaries bring: under steady writes
// those differ for ever, and so say nothing.
func TestHealUnderWrites(t *testing.T) {
	for name, busy := range map[string]bool{"idle": false, "busy": true} {
		t.Run(name, func(t *testing.T) {
			c := &chain{t: t, now: start}
			for i := range 7 {
				c.nodes = append(c.nodes, newReplicator(PeerID(fmt.Sprint("n", i)), crdt.Inc(i+1), Limits{}))
			}
			for i := 1; i < 6; i++ {
				c.link(i)
			}
			var writers []*Replicator
			if busy {
				writers = c.nodes[1:]
			}
			for range 20 * 60 {
				c.step(writers)
			}
			d := mustPut(t, c.nodes[0], c.now, "island")
			c.link(0)
			last := c.nodes[len(c.nodes)-1].Replica()
			at := c.now
			for !last.Clock().Contains(d) {
				if c.now.Sub(at) > 10*time.Second {
					t.Fatalf("six hops away it is not known after %v", c.now.Sub(at))
				}
				c.step(writers)
			}
		})
	}
}
