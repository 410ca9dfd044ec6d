package group_test

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meshkv/meshkv/consensus/group"
)

// Each replica tells of its leaderships, with terms that nobody else led; what it
// tells last is how it is, also to one who did not look in between, and after the
// end.
func TestLeadership(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, []string{"g"}, nil)
		defer c.stop()
		var mu sync.Mutex // protects led
		led := make(map[uint64]string)
		follow := func(n *node) {
			g := n.groups["g"]
			for {
				now, changed := g.Leadership()
				if now.Leads != (now.Term != 0) {
					t.Errorf("%s: got %+v", n.id, now)
				}
				if now.Leads {
					mu.Lock()
					if other := led[now.Term]; other != "" && other != n.id {
						t.Errorf("term %d has two leaders", now.Term)
					}
					led[now.Term] = n.id
					mu.Unlock()
				}
				select {
				case <-changed:
				case <-g.Done():
					return
				}
			}
		}
		var wg sync.WaitGroup
		for _, n := range c.nodes {
			wg.Go(func() { follow(n) })
		}
		const rounds = 10
		for range rounds {
			old := c.put("g", "a=1")
			c.isolate(old)
			c.put("g", "a=2", c.without(old)...)
			c.heal(old)
			c.equal("g")
		}
		leader := c.put("g", "a=3")
		time.Sleep(time.Second)
		synctest.Wait()
		mu.Lock()
		if len(led) < rounds {
			t.Errorf("got %d leaderships after %d changes", len(led), rounds)
		}
		mu.Unlock()
		for _, n := range c.nodes { // these look for the first time
			s, err := n.groups["g"].Status()
			if err != nil {
				t.Fatal(err)
			}
			var want group.Leadership
			if n == leader {
				want = group.Leadership{Leads: true, Term: s.Term}
			}
			if got, _ := n.groups["g"].Leadership(); got != want {
				t.Errorf("%s: got %+v, want %+v", n.id, got, want)
			}
		}
		g := leader.groups["g"]
		c.close(leader)
		if got, _ := g.Leadership(); got.Leads {
			t.Errorf("after Close: got %+v", got)
		}
		for _, n := range c.without(leader) {
			c.close(n)
		}
		wg.Wait()
	})
}
