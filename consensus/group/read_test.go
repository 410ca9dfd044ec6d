package group_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"github.com/meshkv/meshkv/consensus/group"
	"github.com/meshkv/meshkv/consensus/logstore"
	"github.com/meshkv/meshkv/consensus/streams/memnet"
)

// deposed is a cluster in which A, the first node returned, believes that it leads,
// while B, the second, was elected by the third and has committed x=2. The answers
// to a heartbeat that A sent before are still under way to it.
func deposed(t *testing.T, coalesced bool) (c *cluster, a, b *node, release func()) {
	t.Helper()
	// A hears nothing for long, and stays leader all the same.
	c = startCluster(t, 3, []string{"g"}, func(cfg *group.Config) { cfg.Election = 20 * time.Second }, coalesced)
	a = c.put("g", "x=1")
	c.equal("g")
	if _, err := a.groups["g"].ReadIndex(background); err != nil { // its term is settled
		t.Fatal(err)
	}
	synctest.Wait() // both others have all entries, and A knows it
	others := c.without(a)
	b = others[0]
	for _, o := range others {
		c.network.Cut(o.id, a.id) // A hears of no other candidate
		c.network.Hold(memnet.Flow{Dialer: a.id, Acceptor: o.id, Reply: true})
	}
	group.VerifyLeader(a.groups["g"]) // an earlier read: its heartbeats go out, and their answers are held
	synctest.Wait()
	group.TransferTo(a.groups["g"], group.Server{ID: b.id, Addr: b.id})
	c.leader("g", others...)
	c.put("g", "x=2", others...)
	if s, err := a.groups["g"].Status(); err != nil || s.State != "Leader" {
		t.Fatalf("A is %v, %v: the test shows nothing", s.State, err)
	}
	return c, a, b, func() {
		for _, o := range others {
			c.network.Release(memnet.Flow{Dialer: a.id, Acceptor: o.id, Reply: true})
		}
	}
}

// S1: a leader that was deposed without noticing serves no read.
func TestNoStaleRead(t *testing.T) {
	for _, coalesced := range []bool{false, true} {
		t.Run(fmt.Sprint("coalesced ", coalesced), func(t *testing.T) { testNoStaleRead(t, coalesced) })
	}
}

func testNoStaleRead(t *testing.T, coalesced bool) {
	synctest.Test(t, func(t *testing.T) {
		c, a, b, release := deposed(t, coalesced)
		defer c.stop()
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := a.groups["g"].ReadIndex(background); !errors.Is(err, group.ErrNotLeader) {
				t.Errorf("got x=%s, %v, want ErrNotLeader", a.fsms["g"].get("x"), err)
			}
		})
		synctest.Wait()
		release()
		wg.Wait()
		if _, err := b.groups["g"].ReadIndex(background); err != nil || b.fsms["g"].get("x") != "2" {
			t.Errorf("at the new leader: got x=%s, %v, want 2", b.fsms["g"].get("x"), err)
		}
	})
}

// In the same place raft.VerifyLeader says yes: this is why it is not used. If this
// test fails, a newer Raft may have cured it.
func TestVerifyLeaderIsNotEnough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, a, _, release := deposed(t, false)
		defer c.stop()
		verified := group.VerifyLeader(a.groups["g"])
		synctest.Wait()
		release()
		if err := verified.Error(); err != nil {
			t.Fatalf("VerifyLeader: %v", err)
		}
		if got := a.fsms["g"].get("x"); got != "1" {
			t.Fatalf("x is %q there: no stale read", got)
		}
	})
}

// S1: a leader that stood still, with messages under way, while another was elected
// serves no stale read when it goes on, whatever the delays. Readers and writers
// run at all nodes; every read must show at least what was acknowledged before it
// began.
func TestReadsUnderFaults(t *testing.T) {
	for seed := range 4 {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				coalesced := seed%2 == 1
				c := startCluster(t, 3, []string{"g"}, func(cfg *group.Config) { cfg.Election = 200 * time.Millisecond }, coalesced)
				defer c.stop()
				c.put("g", "x=0")
				c.equal("g")
				ctx, cancel := context.WithCancel(background)
				defer cancel()
				var mu sync.Mutex // protects acked
				acked, served := 0, 0
				var wg sync.WaitGroup
				for _, n := range c.nodes {
					g, fsm := n.groups["g"], n.fsms["g"]
					wg.Go(func() {
						for ctx.Err() == nil {
							mu.Lock()
							least := acked
							mu.Unlock()
							if _, err := g.ReadIndex(ctx); err == nil {
								var got int
								_, _ = fmt.Sscan(fsm.get("x"), &got)
								mu.Lock()
								served++
								mu.Unlock()
								if got < least {
									t.Errorf("read %d, acknowledged before was %d", got, least)
								}
							}
							time.Sleep(time.Duration(4+seed) * time.Millisecond)
						}
					})
				}
				wg.Go(func() { // one writer of rising numbers, wherever the leader is
					for next := 1; ctx.Err() == nil; next++ {
						for _, n := range c.nodes {
							attempt, stop := context.WithTimeout(ctx, 300*time.Millisecond)
							_, err := n.groups["g"].Propose(attempt, fmt.Appendf(nil, "x=%d", next))
							stop()
							if err == nil {
								mu.Lock()
								acked = next
								mu.Unlock()
							}
							if !errors.Is(err, group.ErrNotApplied) {
								break // done, or it may take effect: the next number is higher
							}
						}
						time.Sleep(4 * time.Millisecond)
					}
				})
				for i := range 8 {
					n := c.nodes[(i+seed)%3]
					for _, o := range c.without(n) {
						for _, reply := range []bool{false, true} {
							f := memnet.Flow{Dialer: n.id, Acceptor: o.id, Reply: reply}
							c.network.Hold(f)
							time.AfterFunc(time.Duration(50+97*i+13*seed)*time.Millisecond, func() { c.network.Release(f) })
						}
						if i%2 == 0 {
							f := memnet.Flow{Dialer: o.id, Acceptor: n.id, Reply: i%4 == 0}
							c.network.Hold(f)
							time.AfterFunc(time.Duration(30+61*i)*time.Millisecond, func() { c.network.Release(f) })
						}
					}
					if g := n.groups["g"]; i%3 == 0 {
						group.TransferTo(g, group.Server{ID: c.without(n)[0].id, Addr: c.without(n)[0].id})
					}
					time.Sleep(400 * time.Millisecond)
				}
				time.Sleep(time.Second)
				cancel()
				wg.Wait()
				if served < 100 || acked < 100 {
					t.Errorf("%d reads were served, %d writes acknowledged: the test shows little", served, acked)
				}
				t.Logf("%d reads served, %d writes acknowledged", served, acked)
			})
		})
	}
}

// Reads that wait share a round, and see what was committed although it is not
// applied yet.
func TestReadsShareARound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, []string{"g"}, nil)
		defer c.stop()
		n := c.put("g", "x=1")
		c.equal("g")
		g, fsm := n.groups["g"], n.fsms["g"]
		if _, err := g.ReadIndex(background); err != nil { // its term is settled
			t.Fatal(err)
		}
		block := make(chan struct{})
		fsm.mu.Lock()
		fsm.block = block
		fsm.mu.Unlock()
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := g.Propose(background, []byte("x=2")); err != nil {
				t.Error(err)
			}
		})
		before, err := g.Status()
		if err != nil {
			t.Fatal(err)
		}
		await(t, "the command is committed", func() bool {
			s, err := g.Status()
			return err == nil && s.Commit > before.Commit
		})
		for range 50 {
			wg.Go(func() {
				if _, err := g.ReadIndex(background); err != nil || fsm.get("x") != "2" {
					t.Errorf("got x=%s, %v, want 2", fsm.get("x"), err)
				}
			})
			synctest.Wait() // the first is alone in its round
		}
		close(block)
		wg.Wait()
		after, err := g.Status()
		if err != nil {
			t.Fatal(err)
		}
		if rounds := after.Confirms - before.Confirms; rounds != 2 {
			t.Errorf("got %d rounds for 50 reads, want 2", rounds)
		}
	})
}

// slowLog stops appends of all replicas but the first that appends, as a disk that
// hangs does, while on.
type slowLog struct {
	logstore.Log
	gate *gate
}

type gate struct {
	on    atomic.Bool
	count atomic.Int32
	open  chan struct{}
}

func (l slowLog) StoreLogs(logs []*raft.Log) error {
	if l.gate.on.Load() && l.gate.count.Add(1) > 1 {
		<-l.gate.open
	}
	return l.Log.StoreLogs(logs)
}

// A new leader does not know yet what the last one committed: it serves no read
// before an entry of its own term is committed.
func TestNewLeaderServesNothingOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := &gate{open: make(chan struct{})}
		c := newCluster(t, 3, []string{"g"}, func(cfg *group.Config) { cfg.Log = slowLog{cfg.Log, slow} })
		defer c.stop()
		old := c.put("g", "x=1")
		c.equal("g")
		synctest.Wait()
		c.put("g", "x=2")
		c.isolate(old) // before the others know that it is committed
		slow.on.Store(true)
		others := c.without(old)
		leader := c.leader("g", others...)
		if got := leader.fsms["g"].get("x"); got != "1" {
			t.Fatalf("x=%s is known there: the test shows nothing", got)
		}
		if _, err := leader.groups["g"].ReadIndex(background); !errors.Is(err, group.ErrNotLeader) {
			t.Errorf("got x=%s, %v, want ErrNotLeader", leader.fsms["g"].get("x"), err)
		}
		slow.on.Store(false)
		close(slow.open)
		await(t, "a read", func() bool {
			leader = c.leader("g", others...)
			_, err := leader.groups["g"].ReadIndex(background)
			return err == nil
		})
		if got := leader.fsms["g"].get("x"); got != "2" {
			t.Errorf("got x=%s, want 2", got)
		}
		c.heal(old)
	})
}
