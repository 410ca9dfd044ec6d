package group_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meshkv/meshkv/consensus/group"
)

// spare makes the last node of a cluster one that the group does not have yet.
func spare(cfg *group.Config) {
	others := cfg.Bootstrap[:len(cfg.Bootstrap)-1]
	if slices.ContainsFunc(others, func(s group.Server) bool { return s.ID == cfg.ID }) {
		cfg.Bootstrap = others
	} else {
		cfg.Bootstrap = nil
	}
}

// settled waits until all nodes given know the same configuration.
func (c *cluster) settled(name string, among ...*node) group.Configuration {
	c.t.Helper()
	await(c.t, "one configuration of "+name, func() bool {
		first := among[0].groups[name].Configuration()
		return first.Index != 0 && !slices.ContainsFunc(among, func(n *node) bool { return n.groups[name].Configuration().Index != first.Index })
	})
	return among[0].groups[name].Configuration()
}

func show(c group.Configuration) string {
	var names []string
	for _, m := range c.Members {
		if m.Voter {
			names = append(names, m.ID)
		} else {
			names = append(names, m.ID+" learns")
		}
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// A replica is replaced: the new one learns, by the log or by a snapshot, becomes a
// voter, and the old one is removed. What was written is there throughout.
func TestReplaceVoter(t *testing.T) {
	for _, bySnapshot := range []bool{false, true} {
		t.Run(fmt.Sprint("by snapshot ", bySnapshot), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t, 4, []string{"g"}, func(cfg *group.Config) { spare(cfg); cfg.TrailingLogs = 1 })
				defer c.stop()
				old, fresh := c.nodes[:3], c.nodes[3]
				for i := range 20 {
					c.put("g", fmt.Sprintf("k%02d=%d", i, i))
				}
				c.equal("g", old...)
				leader := c.leader("g")
				g := leader.groups["g"]
				begin := c.settled("g", old...)
				if got := show(begin); got != "n0, n1, n2" {
					t.Fatalf("got %s", got)
				}
				if bySnapshot {
					for _, n := range old {
						if err := n.groups["g"].Snapshot(); err != nil {
							t.Fatal(err)
						}
					}
				}
				if _, known := g.Behind(fresh.id); known {
					t.Error("a stranger is not behind")
				}
				if err := g.AddLearner(background, group.Server{ID: fresh.id, Addr: fresh.id}, begin.Index); err != nil {
					t.Fatal(err)
				}
				await(t, "it has caught up", func() bool {
					behind, known := g.Behind(fresh.id)
					return known && behind == 0
				})
				learning := c.settled("g", c.nodes...)
				if got := show(learning); got != "n0, n1, n2, n3 learns" {
					t.Fatalf("got %s", got)
				}
				if fresh.fsms["g"].restored != bySnapshot {
					t.Errorf("restored from a snapshot: %v", !bySnapshot)
				}
				if err := g.Promote(background, fresh.id, learning.Index); err != nil {
					t.Fatal(err)
				}
				four := c.settled("g", c.nodes...)
				gone := c.without(leader)[0]
				if err := g.Remove(background, gone.id, four.Index); err != nil {
					t.Fatal(err)
				}
				rest := slices.DeleteFunc(slices.Clone(c.nodes), func(n *node) bool { return n == gone })
				if got := show(c.settled("g", rest...)); strings.Contains(got, gone.id) || strings.Contains(got, "learns") {
					t.Errorf("got %s", got)
				}
				// Two of the three are a majority; the one that is gone does not count.
				c.isolate(gone)
				down := slices.DeleteFunc(slices.Clone(rest), func(n *node) bool { return n == leader || n == fresh })[0]
				c.isolate(down)
				c.put("g", "last=1", leader, fresh)
				c.heal(down)
				if state := c.equal("g", rest...); strings.Count(state, "=") != 21 {
					t.Errorf("got %q", state)
				}
			})
		})
	}
}

// Of two who decide on the same configuration, one changes it.
func TestConcurrentChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 4, []string{"g"}, spare)
		defer c.stop()
		leader := c.put("g", "a=1")
		g := leader.groups["g"]
		index := c.settled("g", c.nodes[:3]...).Index
		victims := slices.DeleteFunc(slices.Clone(c.nodes[:3]), func(n *node) bool { return n == leader })
		var wg sync.WaitGroup
		var done, refused atomic.Int32
		for i := range 10 {
			wg.Go(func() {
				switch err := g.Remove(background, victims[i%2].id, index); {
				case err == nil:
					done.Add(1)
				case errors.Is(err, group.ErrConfigurationChanged) && errors.Is(err, group.ErrNotApplied):
					refused.Add(1)
				default:
					t.Errorf("got %v", err)
				}
			})
		}
		wg.Wait()
		if done.Load() != 1 || refused.Load() != 9 {
			t.Errorf("%d changes were made and %d refused, want 1 and 9", done.Load(), refused.Load())
		}
		if n := len(g.Configuration().Members); n != 2 {
			t.Errorf("%d members are left, want 2", n)
		}
	})
}

// What cannot be done says so, and nothing is changed.
func TestRefusedChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, []string{"g"}, func(cfg *group.Config) { spare(cfg); cfg.Election = 10 * time.Second })
		defer c.stop()
		leader := c.put("g", "a=1")
		g := leader.groups["g"]
		other := c.nodes[0]
		if other == leader {
			other = c.nodes[1]
		}
		index := c.settled("g", leader, other).Index
		gone, cancel := context.WithCancel(background)
		cancel()
		for name, test := range map[string]struct {
			err  error
			want error
		}{
			"at a follower":             {other.groups["g"].Remove(background, other.id, index), group.ErrNotLeader},
			"of another configuration":  {g.Remove(background, other.id, index+1), group.ErrConfigurationChanged},
			"without a configuration":   {g.Remove(background, other.id, 0), group.ErrConfigurationChanged},
			"remove a stranger":         {g.Remove(background, "n2", index), group.ErrMember},
			"add a member":              {g.AddLearner(background, group.Server{ID: other.id, Addr: "elsewhere"}, index), group.ErrMember},
			"add at a member's address": {g.AddLearner(background, group.Server{ID: "n2", Addr: other.id}, index), group.ErrMember},
			"promote a stranger":        {g.Promote(background, "n2", index), group.ErrMember},
			"promote a voter":           {g.Promote(background, other.id, index), group.ErrMember},
			"after the deadline":        {g.Remove(gone, other.id, index), context.Canceled},
		} {
			if !errors.Is(test.err, test.want) || !errors.Is(test.err, group.ErrNotApplied) {
				t.Errorf("%s: got %v, want %v", name, test.err, test.want)
			}
		}
		if got := c.settled("g", leader, other).Index; got != index {
			t.Errorf("the configuration has index %d, want %d as before", got, index)
		}
		c.isolate(leader)
		ctx, stop := context.WithTimeout(background, time.Second)
		defer stop()
		if err := g.AddLearner(ctx, group.Server{ID: "n2", Addr: "n2"}, index); !errors.Is(err, group.ErrUnknownOutcome) {
			t.Errorf("without a majority: got %v, want ErrUnknownOutcome", err)
		}
		c.heal(leader)
		await(t, "it is a learner after all", func() bool { return len(g.Configuration().Members) == 3 })
		index = g.Configuration().Index
		if err := g.Remove(background, other.id, index); err != nil {
			t.Fatal(err)
		}
		if err := g.Remove(background, leader.id, g.Configuration().Index); !errors.Is(err, group.ErrMember) {
			t.Errorf("remove the last voter: got %v, want ErrMember", err)
		}
	})
}

// A configuration that is in a snapshot alone is known after a restart.
func TestConfigurationAfterRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, []string{"g"}, func(cfg *group.Config) { cfg.TrailingLogs = 1 })
		defer c.stop()
		for i := range 5 {
			c.put("g", fmt.Sprint("a=", i))
		}
		c.equal("g")
		before := c.settled("g", c.nodes...)
		n := c.nodes[0]
		if err := n.groups["g"].Snapshot(); err != nil {
			t.Fatal(err)
		}
		c.close(n)
		c.isolate(n)
		c.start(n)
		if got := n.groups["g"].Configuration(); got.Index != before.Index || show(got) != show(before) {
			t.Errorf("got %+v, want %+v", got, before)
		}
		c.heal(n)
	})
}

// The leadership goes where it is sent, at once, and nowhere else.
func TestTransferTo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, []string{"g"}, func(cfg *group.Config) { cfg.Election = 10 * time.Second })
		defer c.stop()
		for i := range 5 {
			old := c.put("g", fmt.Sprint("a=", i))
			g := old.groups["g"]
			next := c.without(old)[i%2]
			begin := time.Now()
			if err := g.TransferTo(background, next.id); err != nil {
				t.Fatal(err)
			}
			if now := c.put("g", "b=1"); now != next {
				t.Errorf("%s leads, want %s", now.id, next.id)
			}
			if took := time.Since(begin); took > time.Second {
				t.Errorf("it took %v", took)
			}
			if err := g.TransferTo(background, next.id); !errors.Is(err, group.ErrNotLeader) {
				t.Errorf("at a follower: got %v, want ErrNotLeader", err)
			}
			for _, id := range []string{next.id, "stranger"} {
				if err := next.groups["g"].TransferTo(background, id); !errors.Is(err, group.ErrMember) {
					t.Errorf("to %s: got %v, want ErrMember", id, err)
				}
			}
		}
		leader := c.leader("g")
		c.isolate(leader)
		ctx, cancel := context.WithTimeout(background, time.Second)
		defer cancel()
		if err := leader.groups["g"].TransferTo(ctx, c.without(leader)[0].id); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("to one that is not reached: got %v, want the deadline", err)
		}
		c.heal(leader)
	})
}

// A leader that removes itself ceases to lead, and the others go on.
func TestRemoveLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, []string{"g"}, nil)
		defer c.stop()
		leader := c.put("g", "a=1")
		others := c.without(leader)
		if err := leader.groups["g"].Remove(background, leader.id, c.settled("g", c.nodes...).Index); err != nil {
			t.Fatal(err)
		}
		c.put("g", "a=2", others...)
		if got := show(c.settled("g", others...)); strings.Contains(got, leader.id) {
			t.Errorf("got %s", got)
		}
		if now, _ := leader.groups["g"].Leadership(); now.Leads {
			t.Error("it still leads")
		}
	})
}
