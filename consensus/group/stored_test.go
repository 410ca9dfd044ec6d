package group_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"github.com/meshkv/meshkv/consensus/group"
	"github.com/meshkv/meshkv/consensus/logstore"
)

// A diskLog takes some time for each write, and hangs or fails if it is to.
type diskLog struct {
	logstore.Log
	takes  time.Duration
	hangs  atomic.Pointer[chan struct{}]
	broken atomic.Bool
}

func (l *diskLog) StoreLog(log *raft.Log) error { return l.StoreLogs([]*raft.Log{log}) }

func (l *diskLog) StoreLogs(logs []*raft.Log) error {
	time.Sleep(l.takes)
	if c := l.hangs.Load(); c != nil {
		<-*c
	}
	if l.broken.Load() {
		return errors.New("broken disk")
	}
	return l.Log.StoreLogs(logs)
}

// diskCluster is three nodes with such disks.
func diskCluster(t *testing.T, takes time.Duration) (*cluster, map[string]*diskLog) {
	t.Helper()
	disks := make(map[string]*diskLog)
	return newCluster(t, 3, []string{"g"}, func(cfg *group.Config) {
		disks[cfg.ID] = &diskLog{Log: cfg.Log, takes: takes}
		cfg.Log = disks[cfg.ID]
	}), disks
}

// A commit takes the time of one disk, and not that of the leader's and a follower's.
func TestDisksWriteAtTheSameTime(t *testing.T) {
	const takes = 10 * time.Millisecond
	synctest.Test(t, func(t *testing.T) {
		c, _ := diskCluster(t, takes)
		defer c.stop()
		c.put("g", "a=0")
		c.equal("g")
		time.Sleep(time.Second)
		for range 5 {
			begin := time.Now()
			c.put("g", "a=1")
			if took := time.Since(begin); took >= 2*takes {
				t.Errorf("it took %v", took)
			}
		}
	})
}

// While the leader's disk hangs nothing that only followers have counts: not for who
// proposed, nor for reads, nor for followers. Then it does, everywhere.
func TestCommitWaitsForTheLeadersDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, disks := diskCluster(t, 0)
		defer c.stop()
		leader := c.put("g", "a=0")
		c.equal("g")
		g, hangs := leader.groups["g"], make(chan struct{})
		if _, err := g.ReadIndex(context.Background()); err != nil { // the first of a term writes
			t.Fatal(err)
		}
		disks[leader.id].hangs.Store(&hangs)
		got := make(chan error, 1)
		go func() {
			_, err := g.Propose(context.Background(), []byte("a=1"))
			got <- err
		}()
		time.Sleep(10 * time.Second)
		before, err := g.ReadIndex(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range c.nodes {
			if v := n.fsms["g"].get("a"); v != "0" {
				t.Errorf("%s has %s", n.id, v)
			}
		}
		select {
		case err := <-got:
			t.Fatalf("it was answered: %v", err)
		default:
		}
		close(hangs)
		if err := <-got; err != nil {
			t.Fatal(err)
		}
		after, err := g.ReadIndex(context.Background())
		if err != nil || after != before+1 {
			t.Errorf("reads wait for %d, and for %d before: %v", after, before, err)
		}
		c.equal("g")
		if v := leader.fsms["g"].get("a"); v != "1" {
			t.Errorf("a is %s", v)
		}
	})
}

// A leader whose disk fails does not know what becomes of what it took. It never shows what
// it has not stored, and makes no snapshot that claims it; the others have it.
func TestLeadersDiskFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, disks := diskCluster(t, 0)
		defer c.stop()
		leader := c.put("g", "a=0")
		c.equal("g")
		disks[leader.id].broken.Store(true)
		g := leader.groups["g"]
		if _, err := g.Propose(context.Background(), []byte("a=1")); !errors.Is(err, group.ErrUnknownOutcome) || errors.Is(err, group.ErrNotApplied) {
			t.Fatalf("got %v", err)
		}
		if err := g.Snapshot(); err == nil {
			t.Error("it took a snapshot")
		}
		fsm, others := leader.fsms["g"], c.without(leader)
		c.kill(leader)
		c.put("g", "b=1", others...)
		c.equal("g", others...)
		if a, b := others[0].fsms["g"].get("a"), fsm.get("a"); a != "1" || b != "0" {
			t.Errorf("others have a=%s, the one whose disk failed a=%s", a, b)
		}
		c.heal(leader)
		c.start(leader) // with a disk that works
		c.equal("g")
	})
}
