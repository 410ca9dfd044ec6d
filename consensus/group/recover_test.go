package group_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meshkv/meshkv/consensus/group"
	"github.com/meshkv/meshkv/consensus/logstore"
)

// recoverable opens what Recover needs of a node that is stopped.
func (c *cluster) recoverable(n *node, name string) (cfg group.Config, end func()) {
	c.t.Helper()
	store, err := logstore.Open(filepath.Join(n.dir, "raft.db"), nil)
	if err != nil {
		c.t.Fatal(err)
	}
	log, err := store.Group(name)
	if err != nil {
		c.t.Fatal(err)
	}
	return group.Config{ID: n.id, Dir: filepath.Join(n.dir, name), Log: log, FSM: newKV()}, func() {
		if err := store.Close(); err != nil {
			c.t.Fatal(err)
		}
	}
}

// keepingLog deletes nothing.
type keepingLog struct{ logstore.Log }

func (keepingLog) DeleteRange(_, _ uint64) error { return errors.New("not now") }

// One replica is left of three: once recovered it leads alone, with all that it had,
// in a later term, and takes new members; also if the first attempt was cut short.
func TestRecover(t *testing.T) {
	for _, snapshot := range []bool{false, true} {
		t.Run(fmt.Sprint("snapshot ", snapshot), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t, 4, []string{"g"}, func(cfg *group.Config) { spare(cfg); cfg.TrailingLogs = 1 })
				defer c.stop()
				for i := range 10 {
					c.put("g", fmt.Sprintf("k%02d=%d", i, i))
				}
				left := c.nodes[0]
				c.equal("g", c.nodes[:3]...)
				before, err := left.groups["g"].Status()
				if err != nil {
					t.Fatal(err)
				}
				if snapshot {
					if err := left.groups["g"].Snapshot(); err != nil {
						t.Fatal(err)
					}
				}
				for _, n := range c.nodes[:3] {
					c.kill(n)
				}
				self := group.Server{ID: left.id, Addr: left.id}
				cfg, end := c.recoverable(left, "g")
				log := cfg.Log
				cfg.Log = keepingLog{log}
				if got, err := group.Recover(cfg, self); err == nil { // it has written a snapshot
					t.Fatalf("got %+v, want the error of the log", got)
				}
				time.Sleep(time.Second) // snapshots are named by their milliseconds
				cfg.Log, cfg.FSM = log, newKV()
				got, err := group.Recover(cfg, self)
				end()
				if err != nil || got.Last != before.Last || got.Term <= before.Term {
					t.Fatalf("got %+v, %v, want the last entry %d and a term above %d", got, err, before.Last, before.Term)
				}
				c.heal(left)
				c.network.Cut(left.id, c.nodes[1].id)
				c.network.Cut(left.id, c.nodes[2].id)
				c.start(left)
				c.put("g", "after=1", left)
				g := left.groups["g"]
				if s, err := g.Status(); err != nil || s.Term <= got.Term || len(s.Voters) != 1 {
					t.Errorf("got %+v, %v, want one voter and a term above %d", s, err, got.Term)
				}
				if state := left.fsms["g"].state(); state != "after=1 k00=0 k01=1 k02=2 k03=3 k04=4 k05=5 k06=6 k07=7 k08=8 k09=9 11" {
					t.Errorf("got %q", state)
				}
				fresh := c.nodes[3]
				if err := g.AddLearner(background, group.Server{ID: fresh.id, Addr: fresh.id}, g.Configuration().Index); err != nil {
					t.Fatal(err)
				}
				if err := g.Promote(background, fresh.id, g.Configuration().Index); err != nil {
					t.Fatal(err)
				}
				c.put("g", "two=1", left, fresh)
				c.equal("g", left, fresh)
			})
		})
	}
}

// A replica that has nothing is not recovered to an empty group.
func TestRecoverNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 2, []string{"g"}, spare)
		defer c.stop()
		n := c.nodes[1]
		c.close(n)
		cfg, end := c.recoverable(n, "g")
		defer end()
		if got, err := group.Recover(cfg, group.Server{ID: n.id, Addr: n.id}); err == nil {
			t.Errorf("got %+v, want an error", got)
		}
		if term, err := cfg.Log.GetUint64([]byte("CurrentTerm")); err != nil || term != 0 {
			t.Errorf("the term is %d, %v", term, err)
		}
	})
}
