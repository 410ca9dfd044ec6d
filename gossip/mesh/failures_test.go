package mesh

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/meshkv/meshkv/crdt"
)

func nameOf(i int) string { return fmt.Sprintf("n%03d", i) }

// bornNow is an incarnation.
func bornNow(i int) uint64 { return uint64(crdt.NewInc(time.Now().UnixMilli(), uint64(i))) }

// form starts n nodes on the default port, each with the first three as seeds. More than 9 want links to the next 4 on
// either side only, as an overlay would have it.
func (c *memoryCluster) form(n int, edit func(*Config)) []*node {
	seeds := []string{memoryHostOf(0) + ":7950", memoryHostOf(1) + ":7950", memoryHostOf(2) + ":7950"}
	nodes := make([]*node, n)
	for i := range nodes {
		nodes[i] = c.begin(i, bornNow(i), 7950, edit, seeds...)
		nodes[i].wantRing(i, n)
	}
	return nodes
}

func (n *node) wantRing(i, size int) {
	if size <= 9 {
		return
	}
	var names []string
	for d := 1; d <= 4; d++ {
		names = append(names, nameOf((i+d)%size), nameOf((i+size-d)%size))
	}
	n.Want(names)
}

// F6: a cut of 30 s, of 5 min, and beyond the time after which both sides have forgotten each other, with the default timings:
// everybody is a member again within 60 s. What is forgotten after 24 h by default is so after 1 h here, which
// changes nothing else; MESH_LONG=1 takes the 24 h.
func TestF6CutsHeal(t *testing.T) {
	reap, beyond := time.Hour, 65*time.Minute
	if os.Getenv("MESH_LONG") != "" {
		reap, beyond = 24*time.Hour, 26*time.Hour
	}
	for _, cut := range []time.Duration{30 * time.Second, 5 * time.Minute, beyond} {
		t.Run(cut.String(), func(t *testing.T) {
			virtual(t, func(t *testing.T, c *memoryCluster) {
				// The seed of all is gone by then.
				seed := c.begin(9, 10, 7950, nil)
				var nodes []*node
				for i := range 4 {
					nodes = append(nodes, c.begin(i, uint64(11+i), 7950, func(c *Config) { c.ReapAfter = reap }, seed.Addr()))
				}
				meet(patience, nodes...)
				seed.kill()
				c.mem.split(memoryHostOf(2), memoryHostOf(3))
				time.Sleep(cut)
				gone := StatusFailed
				if cut > reap {
					gone = StatusReaped
				}
				nodes[1].sees(time.Second, gone, nameOf(2), nameOf(3))
				nodes[2].sees(time.Second, gone, nameOf(0), nameOf(1))
				c.mem.heal()
				start := time.Now()
				meet(10*time.Second, nodes...) // a minute is what F6 asks for; serf alone takes half of that
				t.Logf("healed %v after a cut of %v", time.Since(start), cut)
			})
		})
	}
}

// F5: of many nodes one is killed for good, five go on, and all others start again at once, half of them at another
// port: everybody sees them all, and the dead one is forgotten everywhere, and stays so. 24 nodes; MESH_LONG=1 takes 100.
func TestF5ManyRestart(t *testing.T) {
	n := 24
	if os.Getenv("MESH_LONG") != "" {
		n = 100
	}
	dead, calm := n-1, n-6
	virtual(t, func(t *testing.T, c *memoryCluster) {
		reap := func(c *Config) { c.ReapAfter = 30 * time.Second }
		nodes := c.form(n, reap)
		inc := func(i int) uint64 { return nodes[i].self.inc }
		whole := func(what string, within time.Duration) {
			t.Helper()
			start := time.Now()
			for _, o := range nodes[:dead] {
				o.until(what, within-time.Since(start), func() bool {
					for i := range dead {
						if nodes[i] != o && (o.latest[nameOf(i)].Inc != inc(i) || o.latest[nameOf(i)].Status != StatusAlive) {
							return false
						}
					}
					return true
				})
			}
			t.Logf("%s after %v", what, time.Since(start))
		}
		whole("first", time.Minute)
		time.Sleep(2 * time.Second) // no start is in the second of the former one
		nodes[dead].kill()
		for i := range calm {
			nodes[i].kill()
		}
		for i := range calm {
			port := 7950
			if i > 2 && i%2 == 1 {
				port = 7960
			}
			nodes[i] = c.begin(i, bornNow(i), port, reap, memoryHostOf(0)+":7950", memoryHostOf(1)+":7950", memoryHostOf(2)+":7950")
			nodes[i].wantRing(i, n)
		}
		whole("restart", time.Minute)
		time.Sleep(2 * time.Minute)
		for _, o := range nodes[:dead] {
			for _, m := range o.Members() {
				if m.Name == nameOf(dead) || m.Status != StatusAlive {
					t.Errorf("%s: %v", o.self.name, m)
				}
			}
			events := 0
			for _, m := range o.events {
				if m.Name == nameOf(dead) && m.Status == StatusAlive && m.Inc == inc(dead) {
					events++
				}
			}
			if events > 1 {
				t.Errorf("%s: the dead one came back %d times", o.self.name, events-1)
			}
			if links := o.Stats().Links; links > 8+4 {
				t.Errorf("%s: %d links", o.self.name, links)
			}
		}
	})
}

// An operator removes a failed member: it has left everywhere at once, is not dialed, and may come back.
func TestF5ForceLeave(t *testing.T) {
	virtual(t, func(t *testing.T, c *memoryCluster) {
		nodes := c.form(12, nil) // so that not everybody has a link to who removes
		gone, rest := nodes[11], nodes[:11]
		for _, o := range rest {
			o.sees(time.Minute, StatusAlive, nameOf(11))
		}
		if err := nodes[5].ForceLeave(t.Context(), nameOf(11)); !errors.Is(err, ErrAlive) {
			t.Errorf("a live one: %v", err)
		}
		if err := nodes[5].ForceLeave(t.Context(), nameOf(5)); !errors.Is(err, ErrAlive) {
			t.Errorf("itself: %v", err)
		}
		if err := nodes[5].ForceLeave(t.Context(), "nobody"); !errors.Is(err, ErrUnknownMember) {
			t.Errorf("nobody: %v", err)
		}
		gone.kill()
		for _, o := range rest {
			o.sees(time.Minute, StatusFailed, nameOf(11))
		}
		if err := nodes[5].ForceLeave(t.Context(), nameOf(11)); err != nil {
			t.Error(err)
		}
		for _, o := range rest {
			o.sees(2*time.Second, StatusLeft, nameOf(11))
		}
		if err := nodes[6].ForceLeave(t.Context(), nameOf(11)); err != nil {
			t.Errorf("again, elsewhere: %v", err)
		}
		time.Sleep(5 * time.Minute)
		for _, o := range rest {
			o.sees(time.Second, StatusLeft, nameOf(11))
		}
		back := c.begin(11, bornNow(11), 7950, nil, nodes[0].Addr())
		for _, o := range rest {
			o.knows(time.Minute, nameOf(11), back.self.inc)
		}
	})
}

// Cuts of one protocol or one direction: nobody is called failed who can be heard by anybody, no state flaps, and data
// have a way: every two nodes are linked, or have a third one in common.
func TestCutsInPart(t *testing.T) {
	a, b := memoryHostOf(0), memoryHostOf(1)
	pair := func(x, y string) bool { return x == a && y == b || x == b && y == a }
	for _, tc := range []struct {
		name   string
		cut    func(from, to string, udp bool) bool
		broken bool // the link of n000 and n001
	}{
		{"UDP of a pair", func(x, y string, udp bool) bool { return udp && pair(x, y) }, false},
		{"UDP of a node", func(x, y string, udp bool) bool { return udp && (x == b || y == b) }, false},
		{"UDP of all", func(x, y string, udp bool) bool { return udp && x != y }, false},
		{"TCP of a pair", func(x, y string, udp bool) bool { return !udp && pair(x, y) }, true},
		{"all of a pair", func(x, y string, _ bool) bool { return pair(x, y) }, true},
		{"one way", func(x, y string, _ bool) bool { return x == a && y == b }, true},
		{"one way of TCP", func(x, y string, udp bool) bool { return !udp && x == a && y == b }, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			virtual(t, func(t *testing.T, c *memoryCluster) {
				nodes := c.form(4, nil)
				meet(time.Minute, nodes...)
				c.mem.fault(tc.cut)
				time.Sleep(5 * time.Minute)
				for i, o := range nodes {
					want := 3
					if tc.broken && i < 2 {
						want = 2
					}
					if got := o.Stats().Links; got != want {
						t.Errorf("%s: %d links, want %d", o.self.name, got, want)
					}
					changes := make(map[string]int)
					o.mu.Lock()
					for _, m := range o.events {
						changes[m.Name]++
						if m.Status == StatusFailed {
							t.Errorf("%s: %s was called failed", o.self.name, m.Name)
						}
					}
					for j := range nodes {
						status := StatusAlive
						if tc.broken && i+j == 1 { // the pair
							status = StatusSuspect
						}
						if i != j && o.latest[nameOf(j)].Status != status {
							t.Errorf("%s: %s is %v, want %v", o.self.name, nameOf(j), o.latest[nameOf(j)].Status, status)
						}
						if changes[nameOf(j)] > 2 {
							t.Errorf("%s: %s changed %d times", o.self.name, nameOf(j), changes[nameOf(j)])
						}
					}
					o.mu.Unlock()
				}
				c.mem.heal()
				meet(time.Minute, nodes...)
			})
		})
	}
}

// F8: while members come and go without pause, frames go on between those who stay, and everybody agrees at the end.
func TestF8Churn(t *testing.T) {
	virtual(t, func(t *testing.T, c *memoryCluster) {
		stay := c.form(3, nil)
		meet(time.Minute, stay...)
		ctx, cancel := context.WithCancel(t.Context())
		var flood sync.WaitGroup
		for k := range 4 {
			flood.Go(func() {
				for ctx.Err() == nil {
					n := c.start(nameOf(10+k), bornNow(10+k), func(cfg *Config) {
						cfg.Timings = Timings{}
						cfg.Network = memoryHost{net: c.mem, host: memoryHostOf(10 + k)}
						cfg.Bind = memoryHostOf(10+k) + ":7950"
					}, stay[0].Addr())
					time.Sleep(1500 * time.Millisecond)
					n.kill()
				}
			})
		}
		stay[0].mu.Lock()
		l := stay[0].links[nameOf(1)]
		stay[0].mu.Unlock()
		const frames = 600
		worst := time.Duration(0)
		for i := range frames { // a minute of it
			at := time.Now()
			if err := l.WriteFrame([]byte{byte(i)}); err != nil {
				t.Fatal(err)
			}
			stay[1].until("the frame", time.Second, func() bool { return stay[1].frames[nameOf(0)] == i+1 })
			worst = max(worst, time.Since(at))
			time.Sleep(100 * time.Millisecond)
		}
		t.Logf("slowest frame %v", worst)
		cancel()
		flood.Wait()
		for _, o := range stay {
			o.until("churn ends", time.Minute, func() bool {
				for k := range 4 {
					if s := o.latest[nameOf(10+k)].Status; s == StatusAlive || s == StatusSuspect {
						return false
					}
				}
				return true
			})
			if s := o.Stats(); s.PacketsDropped != 0 || s.Links != 2 {
				t.Errorf("%s: %+v", o.self.name, s)
			}
		}
	})
}

// F5: all but one start again at once at other ports, again and again, and no push/pull comes by itself.
func TestF5AllMove(t *testing.T) {
	virtual(t, func(t *testing.T, c *memoryCluster) {
		rare := func(c *Config) { c.Timings.PushPullInterval = time.Hour }
		nodes := c.form(6, rare)
		meet(time.Minute, nodes...)
		claims := int64(0)
		for round := range 6 {
			time.Sleep(2 * time.Second)
			for i := 1; i < len(nodes); i++ {
				claims += nodes[i].Stats().Claims
				nodes[i].kill()
			}
			for i := 1; i < len(nodes); i++ {
				nodes[i] = c.begin(i, bornNow(i), 8000+round, rare, nodes[0].Addr())
				time.Sleep(300 * time.Millisecond)
			}
			start := time.Now()
			meet(20*time.Second, nodes...)
			t.Logf("round %d: all met after %v", round, time.Since(start))
		}
		if claims == 0 {
			t.Error("nobody was asked for who it is")
		}
	})
}
