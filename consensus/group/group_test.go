package group_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meshkv/meshkv/consensus/group"
	"github.com/meshkv/meshkv/consensus/streams/memnet"
)

var background = context.Background()

// Three groups on three nodes share listeners and log stores, and nothing else.
func TestProposals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		names := []string{"a", "b", "system"}
		c := newCluster(t, 3, names, nil)
		defer c.stop()
		for _, name := range names {
			g := c.leader(name).groups[name]
			var wg sync.WaitGroup
			for i := range 20 {
				wg.Go(func() {
					if got, err := g.Propose(background, fmt.Appendf(nil, "%s%02d=1", name, i)); err != nil || got != "" {
						t.Errorf("got %v, %v", got, err)
					}
				})
			}
			wg.Wait()
			if got, err := g.Propose(background, fmt.Appendf(nil, "%s00=2", name)); err != nil || got != "1" {
				t.Errorf("got %v, %v, want the result of the state machine", got, err)
			}
			if state := c.equal(name); !strings.HasSuffix(state, " 21") || strings.Count(state, name) != 20 {
				t.Errorf("group %q has %q", name, state)
			}
			for _, n := range c.nodes {
				if n.groups[name] == g {
					continue
				}
				var e *group.NotLeaderError
				_, err := n.groups[name].Propose(background, []byte("x=1"))
				if !errors.As(err, &e) || !errors.Is(err, group.ErrNotLeader) || !errors.Is(err, group.ErrNotApplied) || e.Leader.ID == "" {
					t.Errorf("at a follower: got %v, want the leader", err)
				}
				if _, err := n.groups[name].ReadIndex(background); !errors.Is(err, group.ErrNotLeader) {
					t.Errorf("read at a follower: got %v, want ErrNotLeader", err)
				}
			}
		}
	})
}

// A leader that dies is replaced soon, and what it acknowledged is there, whichever way
// heartbeats go.
func TestLeaderKilled(t *testing.T) {
	for _, coalesced := range []bool{false, true} {
		t.Run(fmt.Sprint("coalesced ", coalesced), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := startCluster(t, 3, []string{"g"}, nil, coalesced)
				defer c.stop()
				var took []time.Duration
				for i := range 20 {
					old := c.put("g", fmt.Sprintf("k%02d=%d", i, i))
					others := c.without(old)
					begin := time.Now()
					c.isolate(old) // at once; to stop it may take as long as an exchange
					c.put("g", fmt.Sprintf("k%02d=after", i), others...)
					took = append(took, time.Since(begin))
					c.kill(old)
					c.heal(old)
					c.start(old)
					c.equal("g")
				}
				if state := c.equal("g"); strings.Count(state, "after") != 20 || !strings.HasSuffix(state, " 40") {
					t.Errorf("got %q", state)
				}
				slices.Sort(took)
				if median, most := took[len(took)/2], took[len(took)-1]; median > 1300*time.Millisecond || most > 3*time.Second {
					t.Errorf("failover: median %v, at most %v", median, most)
				}
				t.Logf("failover, in the time of an idle machine: %v", took)
			})
		})
	}
}

// S8: without a quorum nothing is acknowledged, and callers get a typed error
// before their deadline. What the old leader took is gone or applied once, by all.
func TestPartition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, []string{"g"}, nil)
		defer c.stop()
		old := c.put("g", "before=1")
		c.equal("g")
		c.isolate(old)
		begin := time.Now()
		ctx, cancel := context.WithTimeout(background, 5*time.Second)
		defer cancel()
		for i := range 5 {
			_, err := old.groups["g"].Propose(ctx, fmt.Appendf(nil, "lost%d=1", i))
			// The first one was in the log when the leadership was lost.
			if errors.Is(err, group.ErrUnknownOutcome) != (i == 0) || errors.Is(err, group.ErrNotApplied) != (i > 0) {
				t.Errorf("proposal %d: got %v, want ErrUnknownOutcome for the first and else ErrNotApplied", i, err)
			}
			if _, err := old.groups["g"].ReadIndex(ctx); !errors.Is(err, group.ErrNotLeader) {
				t.Errorf("read %d: got %v, want ErrNotLeader", i, err)
			}
		}
		if took := time.Since(begin); took > 3*time.Second {
			t.Errorf("the errors took %v", took)
		}
		c.put("g", "after=1", c.without(old)...)
		c.heal(old)
		if state := c.equal("g"); state != "after=1 before=1 2" {
			t.Errorf("got %q", state)
		}
	})
}

// The deadline of the caller makes the outcome unknown, never anything else.
func TestDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, []string{"g"}, func(cfg *group.Config) { cfg.Election = 10 * time.Second })
		defer c.stop()
		n := c.put("g", "a=1")
		for _, o := range c.without(n) {
			c.network.Hold(memnet.Flow{Dialer: n.id, Acceptor: o.id})
		}
		ctx, cancel := context.WithTimeout(background, 100*time.Millisecond)
		defer cancel()
		if _, err := n.groups["g"].Propose(ctx, []byte("a=2")); !errors.Is(err, group.ErrUnknownOutcome) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want ErrUnknownOutcome by the deadline", err)
		}
		if _, err := n.groups["g"].Propose(ctx, []byte("a=3")); !errors.Is(err, group.ErrNotApplied) {
			t.Errorf("after the deadline: got %v, want ErrNotApplied", err)
		}
		for _, o := range c.without(n) {
			c.network.Release(memnet.Flow{Dialer: n.id, Acceptor: o.id})
		}
		await(t, "the command is applied after all", func() bool { return n.fsms["g"].get("a") == "2" })
		c.equal("g")
	})
}

// All that was acknowledged is there after all nodes were restarted, with and
// without a snapshot.
func TestRestart(t *testing.T) {
	for _, snapshot := range []bool{false, true} {
		t.Run(fmt.Sprint("snapshot ", snapshot), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t, 3, []string{"g", "other"}, nil)
				defer c.stop()
				for i := range 10 {
					c.put("g", fmt.Sprintf("k%d=%d", i, i))
				}
				c.put("other", "x=1")
				want := c.equal("g")
				if snapshot {
					for _, n := range c.nodes {
						if err := n.groups["g"].Snapshot(); err != nil {
							t.Fatal(err)
						}
					}
				}
				for _, n := range c.nodes {
					c.kill(n)
				}
				for _, n := range c.nodes {
					c.heal(n)
					c.start(n)
				}
				leader := c.leader("g")
				if _, err := leader.groups["g"].ReadIndex(background); err != nil {
					t.Fatal(err)
				}
				if got := leader.fsms["g"].state(); got != want {
					t.Errorf("got %q, want %q", got, want)
				}
				if leader.fsms["g"].restored != snapshot {
					t.Errorf("restored from a snapshot: %v", !snapshot)
				}
				c.equal("g")
				if _, err := c.leader("other").groups["other"].ReadIndex(background); err != nil {
					t.Fatal(err)
				}
				if state := c.leader("other").fsms["other"].state(); state != "x=1 1" {
					t.Errorf("the other group has %q", state)
				}
			})
		})
	}
}

// A follower that missed more than the log still holds gets a snapshot, and goes
// on from there, also after a restart.
func TestSnapshotCatchUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, []string{"g"}, func(cfg *group.Config) { cfg.TrailingLogs = 1 })
		defer c.stop()
		leader := c.put("g", "a=1")
		c.equal("g")
		late := c.without(leader)[0]
		c.close(late)
		for i := range 50 {
			c.put("g", fmt.Sprintf("k%d=%d", i, i), c.without(late)...)
		}
		for _, n := range c.without(late) {
			if err := n.groups["g"].Snapshot(); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 {
			c.start(late)
			c.put("g", "a=2")
			if state := c.equal("g"); !strings.Contains(state, "a=2") {
				t.Errorf("got %q", state)
			}
			if !late.fsms["g"].restored {
				t.Error("the state came without a snapshot: the test shows nothing")
			}
			c.close(late)
		}
		c.start(late)
	})
}

// What is in flight is bounded, and what was refused was not applied.
func TestOverloaded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, []string{"g"}, func(cfg *group.Config) { cfg.MaxInFlight = 100; cfg.Election = 10 * time.Second })
		defer c.stop()
		n := c.put("g", "a=1")
		c.equal("g")
		for _, o := range c.without(n) {
			c.network.Hold(memnet.Flow{Dialer: n.id, Acceptor: o.id})
		}
		g := n.groups["g"]
		var wg sync.WaitGroup
		for i := range 4 {
			wg.Go(func() {
				if _, err := g.Propose(background, fmt.Appendf(nil, "k%d=%022d", i, 0)); err != nil {
					t.Errorf("proposal %d: %v", i, err)
				}
			})
		}
		synctest.Wait()
		if _, err := g.Propose(background, []byte("more=1")); !errors.Is(err, group.ErrOverloaded) || !errors.Is(err, group.ErrNotApplied) {
			t.Errorf("got %v, want ErrOverloaded", err)
		}
		if s, err := g.Status(); err != nil || s.InFlight != 100 {
			t.Errorf("got %d bytes in flight, %v, want 100", s.InFlight, err)
		}
		for _, o := range c.without(n) {
			c.network.Release(memnet.Flow{Dialer: n.id, Acceptor: o.id})
		}
		wg.Wait()
		if _, err := g.Propose(background, []byte("large="+strings.Repeat("x", 200))); err != nil {
			t.Errorf("one command beyond the bound, alone: %v", err)
		}
		if state := c.equal("g"); strings.Contains(state, "more") {
			t.Errorf("got %q", state)
		}
	})
}

// A leader that closes hands over: there is no wait for an election timeout.
func TestCloseHandsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, []string{"g"}, func(cfg *group.Config) { cfg.Election = 10 * time.Second })
		defer c.stop()
		old := c.put("g", "a=1")
		c.equal("g")
		g := old.groups["g"]
		begin := time.Now()
		c.close(old)
		c.put("g", "a=2", c.without(old)...)
		if took := time.Since(begin); took > time.Second {
			t.Errorf("the next leader took %v", took)
		}
		if err := g.Close(background); err != nil {
			t.Errorf("closed twice: %v", err)
		}
		_, errRead := g.ReadIndex(background)
		_, errPropose := g.Propose(background, []byte("a=3"))
		for what, err := range map[string]error{"read": errRead, "proposal": errPropose} {
			if !errors.Is(err, group.ErrNotApplied) {
				t.Errorf("%s: got %v, want ErrNotApplied", what, err)
			}
		}
	})
}
