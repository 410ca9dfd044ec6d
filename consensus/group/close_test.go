package group_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"github.com/meshkv/meshkv/consensus/group"
	"github.com/meshkv/meshkv/consensus/logstore"
	"github.com/meshkv/meshkv/consensus/streams/memnet"
)

// refusingLog appends nothing while on.
type refusingLog struct {
	logstore.Log
	on *atomic.Bool
}

func (l refusingLog) StoreLogs(logs []*raft.Log) error {
	if l.on.Load() {
		return errors.New("refused")
	}
	return l.Log.StoreLogs(logs)
}

// A follower that refused an entry while others were on their way gets them later,
// and its leader can be closed. Raft's own pipelines miss this in one of two rounds.
func TestRefusedEntries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refuse := make(map[string]*atomic.Bool)
		c := newCluster(t, 3, []string{"g"}, func(cfg *group.Config) {
			cfg.Election = 10 * time.Second
			refuse[cfg.ID] = new(atomic.Bool)
			cfg.Log = refusingLog{cfg.Log, refuse[cfg.ID]}
		})
		defer c.stop()
		leader := c.put("g", "a=1")
		follower := c.without(leader)[0]
		for round := range 10 {
			c.equal("g")
			time.Sleep(time.Second) // it has pipelines again
			requests := memnet.Flow{Dialer: leader.id, Acceptor: follower.id}
			c.network.Hold(requests)
			refuse[follower.id].Store(true)
			for i := range 3 { // one to be refused, one on its way, and one more
				c.put("g", fmt.Sprintf("k%d=%d", i, round))
				synctest.Wait()
			}
			c.network.Release(requests)
			synctest.Wait()
			refuse[follower.id].Store(false)
		}
		c.equal("g")
	})
}

// Close waits for no other replica: not for a snapshot that stops coming in, nor
// for one that nobody takes.
func TestCloseDuringSnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, []string{"g"}, func(cfg *group.Config) { cfg.TrailingLogs = 1; cfg.Election = 10 * time.Second })
		defer c.stop()
		leader := c.put("g", "a=1")
		c.equal("g")
		late := c.without(leader)[0]
		c.close(late)
		c.put("g", "large="+strings.Repeat("x", 4<<20), c.without(late)...) // more than a stream holds
		for i := range 5 {
			c.put("g", fmt.Sprintf("k%d=", i), c.without(late)...)
		}
		for _, n := range c.without(late) {
			if err := n.groups["g"].Snapshot(); err != nil {
				t.Fatal(err)
			}
		}
		c.network.Delay(memnet.Flow{Dialer: leader.id, Acceptor: late.id}, time.Second)
		c.start(late)
		await(t, "a snapshot comes in", func() bool {
			found, err := filepath.Glob(filepath.Join(late.dir, "g", "snapshots", "*.tmp"))
			return err == nil && len(found) > 0
		})
		synctest.Wait()
		c.network.Cut(leader.id, late.id)
		for _, n := range []*node{leader, late} {
			begin := time.Now()
			c.close(n)
			if took := time.Since(begin); took > time.Second {
				t.Errorf("%s took %v", n.id, took)
			}
		}
	})
}

// A leader that cannot hand over closes when ctx ends.
func TestCloseAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, []string{"g"}, func(cfg *group.Config) { cfg.Election = 10 * time.Second })
		defer c.stop()
		leader := c.put("g", "a=1")
		c.equal("g")
		c.isolate(leader)
		ctx, cancel := context.WithTimeout(background, 100*time.Millisecond)
		defer cancel()
		begin := time.Now()
		if err := leader.groups["g"].Close(ctx); err != nil {
			t.Error(err)
		}
		if took := time.Since(begin); took > 200*time.Millisecond {
			t.Errorf("it took %v", took)
		}
	})
}
