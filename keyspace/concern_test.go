package keyspace

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/crdt"
	"github.com/meshkv/meshkv/gossip"
	"github.com/meshkv/meshkv/storage"
)

// How many have it, counted one by one, beside the sorted way, from which a write
// is released or not.
func TestAcknowledgedBesideAModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		owners := NewOwners()
		names := []string{"a", "b", "c", "d", "e"}
		for inc := crdt.Inc(1); inc <= 8; inc++ { // some have two incarnations
			owners.Set(inc, Owner{Name: names[int(inc)%5]})
		}
		members := slices.Sorted(slices.Values(rapid.SliceOfDistinct(rapid.SampledFrom(names), rapid.ID).Draw(t, "members")))
		var rows []gossip.Ack
		for _, inc := range rapid.SliceOfDistinct(rapid.Uint64Range(1, 9), rapid.ID).Draw(t, "rows") { // 9 is nobody's
			applied := rapid.Uint64Range(0, 5).Draw(t, "applied")
			rows = append(rows, gossip.Ack{Member: crdt.Inc(inc), Applied: applied, Synced: rapid.Uint64Range(0, applied).Draw(t, "synced")})
		}
		durable := rapid.Bool().Draw(t, "durable")
		need := rapid.IntRange(1, 6).Draw(t, "need")
		seq := rapid.Uint64Range(1, 6).Draw(t, "seq")

		have := map[string]bool{"a": true} // the writer
		for _, row := range rows {
			up := row.Applied
			if durable {
				up = row.Synced
			}
			if name := owners.Name(row.Member); up >= seq && slices.Contains(members, name) {
				have[name] = true
			}
		}
		got := seq <= acknowledged(rows, owners, "a", members, durable, need)
		if want := len(have) >= need; got != want {
			t.Fatalf("acknowledged: %v, want %v: %v have it", got, want, have)
		}
		s := newWaits()
		w := s.add(crdt.Dot{Inc: 1, Seq: seq}, concern{client.AckPolicy(need), durable})
		s.note(1, rows)
		if n := s.count(w, owners, "a", members); n != len(have) {
			t.Fatalf("%d counted, want %d", n, len(have))
		}
	})
}

// A slowStore is a store whose commits wait until they are let through.
type slowStore struct {
	storage.Store
	gate chan struct{}
}

func (s slowStore) Commit(ctx context.Context, b storage.Batch) error {
	select {
	case <-s.gate:
	case <-ctx.Done():
		return ctx.Err()
	}
	return s.Store.Commit(ctx, b)
}

// A trio is three nodes that hold one keyspace, in a bubble of synctest. The disks of
// the second and third are let through by hand.
type trio struct {
	t       *testing.T
	nodes   []*Keyspace
	gates   []chan struct{}
	members atomic.Pointer[[]string] // nil: not known
	cut     [3]atomic.Bool
	wake    chan struct{}
}

type trioWaker struct{ wake chan struct{} }

func (w trioWaker) Wake(string, gossip.PeerID) {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func newTrio(t *testing.T) *trio {
	tr := &trio{t: t, wake: make(chan struct{}, 1)}
	tr.members.Store(&[]string{"n0", "n1", "n2"})
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	t.Cleanup(func() {
		stop()
		running.Wait()
	})
	owners := NewOwners()
	for i := range 3 {
		owners.Set(crdt.Inc(i+1)<<22, Owner{Name: fmt.Sprint("n", i), State: crdt.OwnerAlive})
	}
	for i := range 3 {
		env := testEnv()
		env.Name, env.Inc, env.Owners = fmt.Sprint("n", i), crdt.Inc(i+1)<<22, owners
		env.Self, env.Waker = gossip.PeerID(env.Name), trioWaker{tr.wake}
		env.Members = func(string) ([]string, bool) {
			if m := tr.members.Load(); m != nil {
				return *m, true
			}
			return nil, false
		}
		store := slowStore{storage.OpenMemory(), make(chan struct{})}
		if i == 0 {
			close(store.gate)
		}
		if _, err := store.Load(ctx); err != nil {
			t.Fatal(err)
		}
		env.Writer = storage.NewWriter(store, nil)
		env.Syncer = NewSyncer(env.Writer)
		env.Clock = NewClock(crdt.HLCAt(time.Now().Add(time.Hour).UnixMilli()))
		tr.gates = append(tr.gates, store.gate)
		tr.nodes = append(tr.nodes, Open("ks", env, storage.KeyspaceState{}, time.Now()))
		running.Go(func() { _ = env.Writer.Run(ctx) }) // ends with the context, and what is not let through
		running.Go(func() { env.Syncer.Run(ctx) })
	}
	for i, a := range tr.nodes {
		for j := range tr.nodes {
			if i != j {
				a.LinkUp(time.Now(), gossip.PeerID(fmt.Sprint("n", j)), gossip.RoleDirect)
			}
		}
	}
	running.Go(func() {
		for {
			select {
			case <-tr.wake:
				tr.move()
			case <-time.After(50 * time.Millisecond):
				for _, k := range tr.nodes {
					k.Tick(time.Now())
				}
				tr.move()
			case <-ctx.Done():
				for _, gate := range tr.gates[1:] {
					close(gate)
				}
				return
			}
		}
	})
	return tr
}

// move carries all frames, but for those from and to the nodes that are cut off.
func (tr *trio) move() {
	for moved := true; moved; {
		moved = false
		for i, a := range tr.nodes {
			for j, b := range tr.nodes {
				if i == j || tr.cut[i].Load() || tr.cut[j].Load() {
					continue
				}
				if frame, ok := a.NextFrame(time.Now(), gossip.PeerID(fmt.Sprint("n", j)), nil, 64<<10); ok {
					moved = true
					if err := b.Step(time.Now(), gossip.PeerID(fmt.Sprint("n", i)), frame); err != nil {
						tr.t.Error(err)
					}
				}
			}
		}
	}
}

// put writes in the background.
func (tr *trio) put(d time.Duration, key string, o client.PutOptions) <-chan error {
	done := make(chan error, 1)
	ctx, cancel := context.WithTimeout(context.Background(), d)
	go func() {
		defer cancel()
		_, err := tr.nodes[0].Put(ctx, key, []byte("v"), &o)
		done <- err
	}()
	synctest.Wait()
	return done
}

func (tr *trio) ended(done <-chan error) (err error, ended bool) {
	synctest.Wait()
	select {
	case err := <-done:
		return err, true
	default:
		return nil, false
	}
}

func TestConcernOfTheDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := newTrio(t)
		quorum := tr.put(time.Minute, "q", client.PutOptions{Acks: client.AcksQuorum, Durable: true})
		all := tr.put(time.Minute, "a", client.PutOptions{Acks: 3, Durable: true})
		memory := tr.put(time.Minute, "m", client.PutOptions{Acks: client.AcksAll})
		time.Sleep(time.Second)
		if err, ended := tr.ended(memory); !ended || err != nil {
			t.Fatalf("applied by all: %v, %v", ended, err)
		}
		if _, ended := tr.ended(quorum); ended {
			t.Fatal("acknowledged as being on a disk that nothing reached")
		}
		for range 3 { // as many commits as there may be
			select {
			case tr.gates[1] <- struct{}{}:
			case <-time.After(time.Second):
			}
		}
		if err, ended := tr.ended(quorum); !ended || err != nil {
			t.Fatalf("on two of three disks: %v, %v", ended, err)
		}
		if _, ended := tr.ended(all); ended {
			t.Fatal("acknowledged by three, and is on two disks")
		}
		for range 3 {
			select {
			case tr.gates[2] <- struct{}{}:
			case <-time.After(time.Second):
			}
		}
		if err, ended := tr.ended(all); !ended || err != nil {
			t.Fatalf("on three disks: %v, %v", ended, err)
		}
	})
}

func TestConcernNotMet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := newTrio(t)
		tr.cut[2].Store(true)
		begun := time.Now()
		done := tr.put(10*time.Second, "k", client.PutOptions{Acks: client.AcksAll})
		err := <-done
		var c *client.WriteConcernError
		if !errors.As(err, &c) || c.Acked != 2 || c.Want != 3 {
			t.Fatalf("all of two: %v", err)
		}
		if took := time.Since(begun); took != 10*time.Second-ackMarginMax {
			t.Errorf("answered after %s", took)
		}
		if got := get(t, tr.nodes[1], "k"); got != "v" {
			t.Errorf("taken back: %q", got)
		}
		if tr.nodes[0].waits.busy() {
			t.Error("it waits still")
		}

		// Reaped: those that are left are all.
		done = tr.put(10*time.Second, "l", client.PutOptions{Acks: client.AcksAll})
		time.Sleep(time.Second)
		tr.members.Store(&[]string{"n0", "n1"})
		time.Sleep(time.Second)
		if err, ended := tr.ended(done); !ended || err != nil {
			t.Errorf("all that are left: %v, %v", ended, err)
		}

		// Nobody knows who is a member.
		tr.members.Store(nil)
		if err := <-tr.put(time.Second, "m", client.PutOptions{Acks: client.AcksQuorum}); !errors.As(err, &c) || c.Want != 0 {
			t.Errorf("members are not known: %v", err)
		}
		tr.members.Store(&[]string{"n0", "n1"})
		if err := <-tr.put(time.Second, "n", client.PutOptions{Acks: 3}); !errors.Is(err, client.ErrBadRequest) || get(t, tr.nodes[0], "n") != "" {
			t.Errorf("3 of 2: %v", err)
		}
		if err := <-tr.put(time.Second, "n", client.PutOptions{Acks: -7}); !errors.Is(err, client.ErrBadRequest) {
			t.Errorf("no policy: %v", err)
		}

		// The keyspace ends.
		tr.cut[1].Store(true)
		done = tr.put(time.Minute, "o", client.PutOptions{Acks: client.AcksAll})
		tr.nodes[0].Close()
		if err, ended := tr.ended(done); !ended || !errors.Is(err, client.ErrWriteConcern) {
			t.Errorf("the keyspace was closed: %v, %v", ended, err)
		}
	})
}

// Hundreds of writes wait at the same time, and few messages acknowledge them.
func TestConcernsTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := newTrio(t)
		var wg sync.WaitGroup
		for i := range 500 {
			wg.Go(func() {
				if _, err := tr.nodes[0].Put(t.Context(), fmt.Sprint(i), nil, &client.PutOptions{Acks: client.AckPolicy(-i % 3)}); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		k := tr.nodes[1]
		k.mu.Lock()
		defer k.mu.Unlock()
		if st := k.rep.Stats(); st.AcksSent > 500 {
			t.Errorf("%d acknowledgements", st.AcksSent)
		}
	})
}
