package clienttest

import (
	"context"
	"fmt"
	"testing"

	"github.com/meshkv/meshkv/client"
)

// RunStrong runs the suite of client.Strong. Each test opens an empty strong keyspace;
// open sees to its end with t.Cleanup.
func RunStrong(t *testing.T, open func(t *testing.T) client.Strong) {
	tests := []struct {
		name string
		test func(t *testing.T, ctx context.Context, s client.Strong)
	}{
		{"revisions and conditions", testRevisions},
		{"transactions", testTxn},
		{"locks exclude", testLock},
		{"locks are given first come first served", testLockOrder},
		{"readers and places", testReadersAndPlaces},
		{"sessions end what is bound to them", testSession},
		{"elections", testElection},
		{"pools", testPool},
		{"watch from a revision", testStrongWatch},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
			defer cancel()
			tt.test(t, ctx, open(t))
		})
	}
}

func check(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

func testRevisions(t *testing.T, ctx context.Context, s client.Strong) {
	first, err := s.Put(ctx, "a", []byte("1"), &client.PutOptions{IfAbsent: true})
	check(t, "Put", err)
	if first != (client.Version{Seq: 2}) {
		t.Errorf("version of the first write: got %v, want 2", first)
	}
	_, err = s.Put(ctx, "a", nil, &client.PutOptions{IfAbsent: true})
	wantError(t, "Put of a key that is there, if absent", err, client.ErrConflict)
	second, err := s.Put(ctx, "a", []byte("2"), &client.PutOptions{IfVersion: first})
	check(t, "Put if version", err)
	_, err = s.Put(ctx, "a", nil, &client.PutOptions{IfVersion: first})
	wantError(t, "Put if an old version", err, client.ErrConflict)
	_, err = s.Delete(ctx, "a", &client.DeleteOptions{IfVersion: first})
	wantError(t, "Delete if an old version", err, client.ErrConflict)
	_, err = s.Put(ctx, "a", nil, &client.PutOptions{Ephemeral: true})
	wantError(t, "Put of an ephemeral key", err, client.ErrNeedsEventual)
	for _, tt := range []struct {
		o    *client.GetOptions
		want string
	}{{nil, "2"}, {&client.GetOptions{Linearizable: true}, "2"}, {&client.GetOptions{Revision: first.Seq}, "1"}} {
		if e, err := s.Get(ctx, "a", tt.o); err != nil || string(e.Value) != tt.want {
			t.Errorf("Get %+v: got %q, %v; want %q", tt.o, e.Value, err, tt.want)
		}
	}
	_, err = s.Get(ctx, "a", &client.GetOptions{Revision: second.Seq + 100})
	wantError(t, "Get at a revision to come", err, client.ErrFutureRevision)
	d, err := s.Delete(ctx, "a", &client.DeleteOptions{IfVersion: second})
	if err != nil || !d.Deleted {
		t.Errorf("Delete: got %+v, %v", d, err)
	}
	_, err = s.Get(ctx, "a", nil)
	wantError(t, "Get of a deleted key", err, client.ErrNotFound)
	for e, err := range s.List(ctx, "", &client.ListOptions{Revision: second.Seq}) {
		if err != nil || e.Key != "a" || string(e.Value) != "2" {
			t.Errorf("List at a revision: got %q %q, %v", e.Key, e.Value, err)
		}
	}
}

func testTxn(t *testing.T, ctx context.Context, s client.Strong) {
	swap := &client.Txn{
		Compares: []client.Compare{{Key: "a", Target: client.TargetVersion, Relation: client.Equal}},
		Then:     []client.TxnOp{{Put: &client.TxnPut{Key: "a", Value: []byte("1")}}, {Put: &client.TxnPut{Key: "b", Value: []byte("2")}}},
		Else:     []client.TxnOp{{Get: &client.TxnGet{Key: "a", End: "\x00"}}, {Delete: &client.TxnDelete{Key: "b"}}},
	}
	res, err := s.Txn(ctx, swap)
	if err != nil || !res.Succeeded || len(res.Results) != 2 || res.Revision != 2 {
		t.Fatalf("Txn: got %+v, %v", res, err)
	}
	res, err = s.Txn(ctx, swap)
	if err != nil || res.Succeeded || len(res.Results) != 2 || res.Revision != 3 || res.Results[1].Deleted != 1 {
		t.Fatalf("Txn, the other branch: got %+v, %v", res, err)
	}
	if e := res.Results[0].Entries; len(e) != 2 || e[0].Key != "a" || string(e[1].Value) != "2" || e[0].Mod != 2 || e[0].Version != 1 {
		t.Errorf("what it read: got %+v", e)
	}
	_, err = s.Txn(ctx, &client.Txn{Then: []client.TxnOp{{Put: &client.TxnPut{Key: "a"}}, {Delete: &client.TxnDelete{Key: "a"}}}})
	wantError(t, "Txn that changes a key twice", err, client.ErrBadRequest)
	_, err = s.Txn(ctx, &client.Txn{Then: []client.TxnOp{{Put: &client.TxnPut{Key: "a", Session: 12345}}}})
	wantError(t, "Txn with a session that is not", err, client.ErrSessionLost)
}

func testLock(t *testing.T, ctx context.Context, s client.Strong) {
	one, err := s.Lock(ctx, "l", &client.LockOptions{Value: []byte("one")})
	check(t, "Lock", err)
	_, err = s.TryLock(ctx, "l", nil)
	wantError(t, "TryLock of a lock that is held", err, client.ErrConflict)
	info, err := s.LockInfo(ctx, "l")
	if err != nil || len(info.Holders) != 1 || info.Holders[0].Token != one.Token() || string(info.Holders[0].Value) != "one" {
		t.Errorf("LockInfo: got %+v, %v", info, err)
	}
	guarded := func(h client.Held) bool {
		res, err := s.Txn(ctx, &client.Txn{
			Compares: []client.Compare{client.Guard("l", h.Token())}, Then: []client.TxnOp{{Put: &client.TxnPut{Key: "k"}}},
		})
		check(t, "Txn", err)
		return res.Succeeded
	}
	if !guarded(one) {
		t.Error("the holder cannot write")
	}
	check(t, "Unlock", one.Unlock(ctx))
	check(t, "Unlock again", one.Unlock(ctx))
	select {
	case <-one.Lost():
	default:
		t.Error("a lock that was given up is not lost")
	}
	if guarded(one) {
		t.Error("who gave the lock up can write")
	}
	two, err := s.TryLock(ctx, "l", &client.LockOptions{TTL: client.MinSessionTTL})
	check(t, "TryLock", err)
	if two.Token() <= one.Token() {
		t.Errorf("token %d after %d", two.Token(), one.Token())
	}
	check(t, "Unlock", two.Unlock(ctx))
}

func testLockOrder(t *testing.T, ctx context.Context, s client.Strong) {
	held, err := s.Lock(ctx, "l", nil)
	check(t, "Lock", err)
	type grant struct {
		i    int
		held client.Held
		err  error
	}
	grants := make(chan grant, 3)
	for i := range 3 {
		go func() {
			h, err := s.Lock(ctx, "l", nil)
			grants <- grant{i, h, err}
		}()
		for { // until it waits: each look is a call
			info, err := s.LockInfo(ctx, "l")
			check(t, "LockInfo", err)
			if len(info.Waiting) == i+1 {
				break
			}
		}
	}
	for i := range 3 {
		check(t, "Unlock", held.Unlock(ctx))
		g := <-grants
		if g.err != nil || g.i != i {
			t.Fatalf("grant %d: got that of %d, %v", i, g.i, g.err)
		}
		held = g.held
	}
	check(t, "Unlock", held.Unlock(ctx))
}

func testReadersAndPlaces(t *testing.T, ctx context.Context, s client.Strong) {
	for range 2 {
		_, err := s.RLock(ctx, "rw", nil)
		check(t, "RLock", err)
		_, err = s.Semaphore(ctx, "places", 2, nil)
		check(t, "Semaphore", err)
	}
	_, err := s.TryLock(ctx, "rw", nil)
	wantError(t, "a writer beside readers", err, client.ErrConflict)
	_, err = s.Semaphore(ctx, "places", 3, nil)
	wantError(t, "a semaphore with another number of places", err, client.ErrConflict)
}

func testSession(t *testing.T, ctx context.Context, s client.Strong) {
	x, err := s.NewSession(ctx, &client.SessionOptions{TTL: client.MinSessionTTL})
	check(t, "NewSession", err)
	_, err = s.Put(ctx, "bound", nil, &client.PutOptions{Session: x.ID()})
	check(t, "Put", err)
	held, err := s.Lock(ctx, "l", &client.LockOptions{Session: x})
	check(t, "Lock", err)
	if held.Session() != x.ID() {
		t.Errorf("the lock's session: got %d, want %d", held.Session(), x.ID())
	}
	check(t, "Close", x.Close(ctx))
	check(t, "Close again", x.Close(ctx))
	<-x.Lost()
	<-held.Lost()
	wantError(t, "Unlock", held.Unlock(ctx), client.ErrSessionLost)
	_, err = s.Get(ctx, "bound", nil)
	wantError(t, "Get of a key whose session has ended", err, client.ErrNotFound)
	_, err = s.TryLock(ctx, "l", nil)
	check(t, "TryLock of a lock whose session has ended", err)
	_, err = s.Put(ctx, "bound", nil, &client.PutOptions{Session: x.ID()})
	wantError(t, "Put with a session that has ended", err, client.ErrSessionLost)
}

func testElection(t *testing.T, ctx context.Context, s client.Strong) {
	w, err := s.Observe(ctx, "e")
	check(t, "Observe", err)
	defer w.Close()
	next := func(want string, elected bool) {
		t.Helper()
		for {
			l, err := w.Next(ctx)
			check(t, "Next", err)
			if !l.Known {
				continue // on a machine that is too slow
			}
			if l.Elected != elected || string(l.Value) != want {
				t.Fatalf("Next: got %+v, want %q %v", l, want, elected)
			}
			return
		}
	}
	next("", false)
	led, err := s.Campaign(ctx, "e", []byte("one"), nil)
	check(t, "Campaign", err)
	next("one", true)
	check(t, "Proclaim", led.Proclaim(ctx, []byte("two")))
	next("two", true)
	check(t, "Unlock", led.Unlock(ctx))
	next("", false)
	wantError(t, "Proclaim of who has resigned", led.Proclaim(ctx, nil), client.ErrNotHeld)
}

func testPool(t *testing.T, ctx context.Context, s client.Strong) {
	p := s.Allocator("p")
	_, err := p.Allocate(ctx, nil)
	wantError(t, "Allocate of no pool", err, client.ErrNotFound)
	check(t, "Define", p.Define(ctx, 1, 8))
	x, err := s.NewSession(ctx, nil)
	check(t, "NewSession", err)
	block, err := p.Allocate(ctx, &client.AllocateOptions{Size: 4, Align: 4, Session: x.ID(), Label: "x"})
	if err != nil || block.First != 4 || block.Size != 4 {
		t.Fatalf("Allocate: got %+v, %v", block, err)
	}
	var singles []client.Allocation
	for range 4 {
		a, err := p.Allocate(ctx, nil)
		check(t, "Allocate", err)
		singles = append(singles, a)
	}
	_, err = p.Allocate(ctx, nil)
	wantError(t, "Allocate of a full pool", err, client.ErrPoolExhausted)
	all, err := p.List(ctx)
	if err != nil || len(all) != 5 || all[3] != block {
		t.Errorf("List: got %+v, %v", all, err)
	}
	wantError(t, "Free under another token", p.Free(ctx, singles[0].First, block.Token), client.ErrNotHeld)
	wantError(t, "Remove", p.Remove(ctx), client.ErrConflict)
	check(t, "Close", x.Close(ctx))
	for _, a := range singles {
		check(t, "Free", p.Free(ctx, a.First, a.Token))
	}
	check(t, "Remove", p.Remove(ctx))
}

func testStrongWatch(t *testing.T, ctx context.Context, s client.Strong) {
	w := watch(t, ctx, s, "w/", &client.WatchOptions{From: "1", Exact: true})
	for r := range 3 {
		_, err := s.Txn(ctx, &client.Txn{Then: []client.TxnOp{
			{Put: &client.TxnPut{Key: "w/a", Value: []byte(fmt.Sprint(r))}}, {Put: &client.TxnPut{Key: "w/b", Value: []byte(fmt.Sprint(r))}},
		}})
		check(t, "Txn", err)
	}
	follow := func(w client.Watch, from int) {
		t.Helper()
		for r := from; r < 3; r++ {
			for _, key := range []string{"w/a", "w/b"} {
				ev := wantEvent(t, ctx, w, client.EventPut, key, fmt.Sprint(r))
				if want := key == "w/a"; ev.More != want {
					t.Errorf("%s at %d: more %v, want %v", key, r, ev.More, want)
				}
				if want := fmt.Sprint(r + 2); !ev.More && string(ev.Cursor) != want {
					t.Errorf("cursor: got %s, want %s", ev.Cursor, want)
				}
			}
		}
	}
	follow(w, 0)
	follow(watch(t, ctx, s, "w/", &client.WatchOptions{From: "2"}), 1)
	_, err := s.Delete(ctx, "w/a", nil)
	check(t, "Delete", err)
	if ev := wantEvent(t, ctx, w, client.EventDelete, "w/a", ""); ev.Reason != client.ReasonDeleted {
		t.Errorf("reason: got %q", ev.Reason)
	}
}
