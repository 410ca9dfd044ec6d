package replica

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meshkv/meshkv/consensus/calls"
	"github.com/meshkv/meshkv/consensus/machine"
)

// A read at any member sees what was written at any other before it began.
func TestReadsAreLinearizable(t *testing.T) {
	run(t, 3, func(t *testing.T, r *rig) {
		for i := range 9 {
			want := fmt.Sprint(i)
			mustDo(t, r.members[i%3], put("key", []byte(want)))
			for _, m := range r.members {
				v, err := m.Read(t.Context())
				if err != nil || valueAt(v, "key") != want {
					t.Fatalf("%s reads %q after %q: %v", m.node, valueAt(v, "key"), want, err)
				}
			}
		}
	})
}

// Reads share rounds, but none shares one that was under way when it began: that may have asked before a write.
func TestReadsShareRounds(t *testing.T) {
	run(t, 3, func(t *testing.T, r *rig) {
		leader := r.leader()
		m := r.followers(leader)[0]
		mustDo(t, leader, put("key", []byte("old")))
		release := make(chan struct{})
		r.carry(func(_ *member, kind calls.Kind, at func() ([]byte, error)) ([]byte, error) {
			answer, err := at() // the index is that of now
			if kind == CallReadIndex {
				<-release
			}
			return answer, err
		})
		type got struct {
			value string
			err   error
		}
		read := func(n int) chan got {
			c := make(chan got, n)
			for range n {
				go func() {
					v, err := m.Read(t.Context())
					if err != nil {
						c <- got{err: err}
						return
					}
					c <- got{valueAt(v, "key"), nil}
				}()
			}
			synctest.Wait()
			return c
		}
		calledBefore := r.called()
		early := read(1)
		mustDo(t, leader, put("key", []byte("new")))
		late := read(1000)
		close(release)
		if g := <-early; g.err != nil {
			t.Fatal(g.err)
		}
		for range cap(late) {
			if g := <-late; g.err != nil || g.value != "new" {
				t.Fatalf("read %q after \"new\" was written: %v", g.value, g.err)
			}
		}
		if n := r.called() - calledBefore; n > 1+2*roundsInFlight {
			t.Errorf("%d calls for 1,001 reads", n)
		}
	})
}

// Where no majority is, no read is answered: not by the old leader either, which does not know yet.
func TestReadWithoutMajority(t *testing.T) {
	run(t, 3, func(t *testing.T, r *rig) {
		old := r.leader()
		mustDo(t, old, put("key", []byte("old")))
		r.isolate(old, true)
		r.carry(func(to *member, _ calls.Kind, at func() ([]byte, error)) ([]byte, error) {
			if to == old {
				return nil, calls.ErrNotSent
			}
			return at()
		})
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond) // it still believes that it leads
		defer cancel()
		if _, err := old.Read(ctx); !errors.Is(err, ErrNoLeader) {
			t.Errorf("the old leader's read: %v, want ErrNoLeader", err)
		}
		next := r.leader(r.followers(old)...)
		mustDo(t, next, put("key", []byte("new")))
		if v, err := next.Read(t.Context()); err != nil || valueAt(v, "key") != "new" {
			t.Errorf("the new leader reads %q, %v", valueAt(v, "key"), err)
		}
		r.isolate(old, false)
		r.carry(nil)
		if v, err := old.Read(t.Context()); err != nil || valueAt(v, "key") != "new" {
			t.Errorf("the old leader reads %q, %v, when it is back", valueAt(v, "key"), err)
		}
	})
}

// A claim wakes who waits for it when it is granted, and when it ends.
func TestAwaitClaim(t *testing.T) {
	run(t, 3, func(t *testing.T, r *rig) {
		leader := r.leader()
		m := r.followers(leader)[0]
		var leases []machine.LeaseID
		var claims []machine.ClaimID
		var index uint64
		for range 3 {
			lease := mustDo(t, leader, &machine.Grant{TTL: 60_000}).Lease
			id := machine.ClaimID{Session: lease}
			leases, claims = append(leases, lease), append(claims, id)
			index = mustDo(t, leader, &machine.Acquire{Name: "lock", Claim: id, Mode: machine.Exclusive}).Index
		}
		type end struct {
			holder machine.Holder
			err    error
		}
		ends := make([]chan end, 3)
		for i, id := range claims {
			ends[i] = make(chan end, 1)
			go func() {
				h, err := m.AwaitClaim(t.Context(), index, "lock", id)
				ends[i] <- end{h, err}
			}()
		}
		synctest.Wait()
		if e := <-ends[0]; e.err != nil || e.holder.Token == 0 {
			t.Errorf("the first: %+v", e)
		}
		mustDo(t, leader, &machine.Revoke{ID: leases[1]})
		if e := <-ends[1]; !errors.Is(e.err, machine.ErrLeaseNotFound) {
			t.Errorf("one whose session ended: %+v, want ErrLeaseNotFound", e)
		}
		synctest.Wait()
		select {
		case e := <-ends[2]:
			t.Errorf("the last, while another holds: %+v", e)
		default:
		}
		mustDo(t, leader, &machine.Revoke{ID: leases[0]})
		if e := <-ends[2]; e.err != nil || e.holder.Token == 0 {
			t.Errorf("the last: %+v", e)
		}
	})
}

// A round waits for the one before it, so that reads share it, but not for long: a leader may be far away.
func TestRoundsBeginBesideSlowOnes(t *testing.T) {
	run(t, 3, func(t *testing.T, r *rig) {
		leader := r.leader()
		m := r.followers(leader)[0]
		mustDo(t, leader, put("key", []byte("value")))
		release := make(chan struct{})
		var asked atomic.Int32
		r.carry(func(_ *member, kind calls.Kind, at func() ([]byte, error)) ([]byte, error) {
			if kind == CallReadIndex {
				asked.Add(1)
				<-release
			}
			return at()
		})
		done := make(chan error, 3)
		for i, want := range []int32{1, 1, 1} {
			go func() {
				_, err := m.Read(t.Context())
				done <- err
			}()
			if synctest.Wait(); asked.Load() != want {
				t.Fatalf("%d rounds with %d reads, want %d", asked.Load(), i+1, want)
			}
		}
		time.Sleep(roundStagger)
		if synctest.Wait(); asked.Load() != 2 {
			t.Errorf("%d rounds when the first one is late, want 2", asked.Load())
		}
		close(release)
		for range cap(done) {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	})
}
