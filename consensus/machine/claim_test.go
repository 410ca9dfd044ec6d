package machine

import (
	"reflect"
	"testing"
)

func session(r *rig, id LeaseID) {
	r.t.Helper()
	r.must(&Grant{ID: id, TTL: 15_000})
}

// kinds are what happened to which session, in order.
func kinds(events []LockEvent) (all []LockEvent) {
	for _, ev := range events {
		all = append(all, LockEvent{Kind: ev.Kind, Claim: ClaimID{Session: ev.Claim.Session}})
	}
	return all
}

func happened(kind LockEventKind, id LeaseID) LockEvent {
	return LockEvent{Kind: kind, Claim: ClaimID{Session: id}}
}

func wantEvents(t *testing.T, res Result, want ...LockEvent) {
	t.Helper()
	if got := kinds(res.Locks); !reflect.DeepEqual(got, want) {
		t.Fatalf("events: got %+v, want %+v", got, want)
	}
}

// S2: the middle one of three waiters is killed; the others keep their order, each
// release wakes one, and the dead one is never granted the lock.
func TestS2WaiterDies(t *testing.T) {
	for _, end := range []Body{&Revoke{3}, &Expire{[]LeaseID{3}}} {
		r := newRig(t)
		for id := LeaseID(1); id <= 4; id++ {
			session(r, id)
			r.must(&Acquire{Name: "l", Claim: ClaimID{Session: id}, Mode: Exclusive})
		}
		wantEvents(t, r.must(end), happened(Failed, 3))
		r.swap()
		first, _ := r.m.View().Claim("l", ClaimID{Session: 1})
		res := r.must(&Release{"l", first.Token})
		wantEvents(t, res, happened(Lost, 1), happened(Granted, 2))
		res = r.must(&Release{"l", res.Locks[1].Token})
		wantEvents(t, res, happened(Lost, 2), happened(Granted, 4))
		r.refused(&Acquire{Name: "l", Claim: ClaimID{Session: 3}, Mode: Exclusive}, ErrLeaseNotFound)
	}
}

// S2: what a dying session holds does not go to what the same session waits for.
func TestS2SessionWaitsForItself(t *testing.T) {
	r := newRig(t)
	session(r, 1)
	session(r, 2)
	r.must(&Acquire{Name: "l", Claim: ClaimID{1, 1}, Mode: Exclusive})
	r.must(&Acquire{Name: "l", Claim: ClaimID{1, 2}, Mode: Exclusive})
	r.must(&Acquire{Name: "l", Claim: ClaimID{2, 1}, Mode: Exclusive})
	wantEvents(t, r.must(&Expire{[]LeaseID{1}}), happened(Failed, 1), happened(Lost, 1), happened(Granted, 2))
}

// S2: sessions that end in one command do not inherit from each other.
func TestS2SessionsExpireTogether(t *testing.T) {
	r := newRig(t)
	for id := LeaseID(1); id <= 3; id++ {
		session(r, id)
		r.must(&Acquire{Name: "l", Claim: ClaimID{Session: id}, Mode: Exclusive})
	}
	res := r.must(&Expire{[]LeaseID{2, 1, 2, 9}})
	wantEvents(t, res, happened(Failed, 2), happened(Lost, 1), happened(Granted, 3))
	if res.Locks[2].Token != 2 {
		t.Fatalf("token %d: one was given to a session that was gone", res.Locks[2].Token)
	}
}

// S3: a holder is stopped beyond its TTL, and another acquires. When it goes on, the
// write that it guards with its token fails, also on a replica that was restored.
func TestS3StaleHolderIsFenced(t *testing.T) {
	guarded := func(token Token, value string) *Txn {
		return &Txn{
			Compares: []Compare{{Span: Span{Key: "l"}, Target: TargetToken, Relation: Equal, Number: uint64(token)}},
			Then:     []Op{&Put{Key: "k", Value: []byte(value)}},
		}
	}
	r := newRig(t)
	session(r, 1)
	session(r, 2)
	first := r.must(&Acquire{Name: "l", Claim: ClaimID{Session: 1}, Mode: Exclusive}).Token
	if !r.must(guarded(first, "1")).Txn.Succeeded {
		t.Fatal("the holder's write failed")
	}
	r.must(&Acquire{Name: "l", Claim: ClaimID{Session: 2}, Mode: Exclusive})
	res := r.must(&Expire{[]LeaseID{1}})
	second := res.Locks[1].Token
	r.swap()
	if r.must(guarded(first, "stale")).Txn.Succeeded {
		t.Fatal("the stale holder's write took effect")
	}
	if !r.must(guarded(second, "2")).Txn.Succeeded {
		t.Fatal("the new holder's write failed")
	}
	r.refused(&Release{"l", first}, ErrNotHeld)
	if e := r.m.View().Get("k"); string(e.Value) != "2" {
		t.Fatalf("value %q", e.Value)
	}
}

// S3: tokens rise strictly, over locks, releases, allocations and snapshots.
func TestS3TokensRise(t *testing.T) {
	r := newRig(t)
	session(r, 1)
	r.must(&DefinePool{Pool{"p", 0, 1000}})
	last := Token(0)
	for i := range 50 {
		name := string(rune('a' + i%3))
		token := r.must(&Acquire{Name: name, Claim: ClaimID{Session: 1}, Mode: Exclusive}).Token
		block := r.must(&Allocate{Pool: "p", Size: 1, Session: 1})
		if token <= last || block.Token <= token {
			t.Fatalf("tokens %d, %d after %d", token, block.Token, last)
		}
		last = block.Token
		r.must(&Release{name, token})
		r.must(&Free{"p", block.First, block.Token})
		r.swap()
		r.m, r.twin = r.twin, r.m
	}
}

func TestAcquireAgain(t *testing.T) {
	r := newRig(t)
	session(r, 1)
	a := &Acquire{Name: "l", Claim: ClaimID{1, 7}, Mode: Exclusive}
	token := r.must(a).Token
	if res := r.must(a); res.Token != token || res.Locks != nil {
		t.Fatalf("got %+v, want token %d and no effect", res, token)
	}
	r.refused(&Acquire{Name: "l", Claim: ClaimID{1, 7}, Mode: Shared}, ErrLockKind)
	r.refused(&Acquire{Name: "l", Claim: ClaimID{1, 7}, Mode: Place, Places: 2}, ErrLockKind)
	r.refused(&Acquire{Name: "l", Claim: ClaimID{1, 8}, Mode: Place, Places: 2}, ErrLockKind)
	r.refused(&Acquire{Name: "l", Claim: ClaimID{1, 8}, Mode: Exclusive, Try: true}, ErrLocked)
	r.must(&Release{"l", token})
	r.must(&Acquire{Name: "l", Claim: ClaimID{1, 8}, Mode: Place, Places: 2})
}

// Readers go together, but not past a writer that came before them.
func TestReadersTogether(t *testing.T) {
	r := newRig(t)
	for id := LeaseID(1); id <= 6; id++ {
		session(r, id)
	}
	claim := func(id LeaseID, mode Mode) Result {
		return r.must(&Acquire{Name: "l", Claim: ClaimID{Session: id}, Mode: mode})
	}
	token := claim(1, Exclusive).Token
	claim(2, Shared)
	claim(3, Shared)
	claim(4, Exclusive)
	claim(5, Shared)
	res := r.must(&Release{"l", token})
	wantEvents(t, res, happened(Lost, 1), happened(Granted, 2), happened(Granted, 3))
	wantEvents(t, r.must(&Abort{"l", ClaimID{Session: 4}}), happened(Failed, 4), happened(Granted, 5))
	if claim(6, Shared).Token == 0 {
		t.Fatal("a reader waits for readers")
	}
}

func TestLockDelay(t *testing.T) {
	r := newRig(t)
	session(r, 1)
	session(r, 2)
	token := r.must(&Acquire{Name: "l", Claim: ClaimID{Session: 1}, Mode: Exclusive, Delay: 5000}).Token
	r.must(&Acquire{Name: "l", Claim: ClaimID{Session: 2}, Mode: Exclusive})
	res := r.must(&Expire{[]LeaseID{1}})
	if wantEvents(t, res, happened(Delayed, 1)); res.Locks[0].Delay != 5000 {
		t.Fatalf("delay %d", res.Locks[0].Delay)
	}
	r.swap()
	r.refused(&Release{"l", token}, ErrNotHeld)
	r.refused(&Proclaim{"l", token, nil}, ErrNotHeld)
	if _, ok := r.m.View().Observe("l"); ok {
		t.Fatal("a holder whose session expired is observed")
	}
	var names []string
	r.twin.View().Delays(func(name string, h Holder) bool {
		names = append(names, name)
		return h.Token == token
	})
	if !reflect.DeepEqual(names, []string{"l"}) {
		t.Fatalf("delays: %v", names)
	}
	r.refused(&EndDelay{"l", token + 1}, ErrNotHeld)
	wantEvents(t, r.must(&EndDelay{"l", token}), happened(DelayEnded, 1), happened(Granted, 2))
}

func TestElection(t *testing.T) {
	r := newRig(t)
	session(r, 1)
	session(r, 2)
	observe := func(value string, token Token) {
		t.Helper()
		if h, ok := r.m.View().Observe("e"); !ok || string(h.Value) != value || h.Token != token {
			t.Fatalf("got %+v, %v, want %q under %d", h, ok, value, token)
		}
	}
	if _, ok := r.m.View().Observe("e"); ok {
		t.Fatal("a leader of nothing")
	}
	first := r.must(&Acquire{Name: "e", Claim: ClaimID{Session: 1}, Mode: Exclusive, Value: []byte("one")}).Token
	r.must(&Acquire{Name: "e", Claim: ClaimID{Session: 2}, Mode: Exclusive, Value: []byte("two")})
	observe("one", first)
	r.refused(&Proclaim{"e", first + 1, []byte("x")}, ErrNotHeld)
	r.must(&Proclaim{"e", first, []byte("1")})
	observe("1", first)
	res := r.must(&Release{"e", first})
	if string(res.Locks[1].Value) != "two" {
		t.Fatalf("the grant has the value %q", res.Locks[1].Value)
	}
	observe("two", res.Locks[1].Token)
	r.refused(&Proclaim{"e", first, []byte("x")}, ErrNotHeld)
}

func TestQueueIsBounded(t *testing.T) {
	m := New()
	index := uint64(1)
	apply := func(b Body) Result {
		index++
		return m.Apply(index, encode(t, Command{Body: b}))
	}
	apply(&Grant{ID: 1, TTL: MinTTL})
	for i := range uint64(MaxWaiters + 1) {
		if res := apply(&Acquire{Name: "l", Claim: ClaimID{1, i}, Mode: Exclusive}); res.Err != nil {
			t.Fatal(i, res.Err)
		}
	}
	wantErr(t, apply(&Acquire{Name: "l", Claim: ClaimID{1, MaxWaiters + 1}, Mode: Exclusive}).Err, ErrTooManyWaiters)
	if res := apply(&Revoke{1}); len(res.Locks) != MaxWaiters+1 || m.bytes != 0 || m.locks.Len() != 0 {
		t.Fatalf("%d events, %d bytes left", len(res.Locks), m.bytes)
	}
}

// S2: readers that wait behind a writer are woken when the writer gives up or dies.
func TestS2WaitingWriterDies(t *testing.T) {
	for _, end := range []Body{&Revoke{2}, &Expire{[]LeaseID{2}}, &Abort{"l", ClaimID{Session: 2}}} {
		r := newRig(t)
		for id, mode := range []Mode{Shared, Exclusive, Shared} {
			session(r, LeaseID(id+1))
			r.must(&Acquire{Name: "l", Claim: ClaimID{Session: LeaseID(id + 1)}, Mode: mode})
		}
		r.refused(&Acquire{Name: "l", Claim: ClaimID{1, 2}, Mode: Shared, Try: true}, ErrLocked)
		wantEvents(t, r.must(end), happened(Failed, 2), happened(Granted, 3))
	}
}

// The end of a delay leaves alone what a new session of the same id claims.
func TestDelayOfAnEarlierSession(t *testing.T) {
	r := newRig(t)
	session(r, 1)
	a := &Acquire{Name: "l", Claim: ClaimID{Session: 1}, Mode: Exclusive, Delay: 5}
	first := r.must(a).Token
	r.must(&Expire{[]LeaseID{1}})
	session(r, 1)
	session(r, 2)
	r.must(&Acquire{Name: "l", Claim: ClaimID{Session: 2}, Mode: Exclusive})
	if r.must(a).Token != 0 {
		t.Fatal("granted during the delay")
	}
	wantEvents(t, r.must(&EndDelay{"l", first}), happened(DelayEnded, 1), happened(Granted, 2))
	if h, ok := r.m.View().Claim("l", a.Claim); !ok || h.Token != 0 {
		t.Fatalf("got %+v, %v, want a claim that waits", h, ok)
	}
	r.swap()
}

// A replica that was restored knows in which mode a lock is held.
func TestRestoredModes(t *testing.T) {
	for _, mode := range []Mode{Exclusive, Shared} {
		r := newRig(t)
		session(r, 1)
		r.must(&Acquire{Name: "l", Claim: ClaimID{1, 1}, Mode: mode})
		r.swap()
		if token := r.must(&Acquire{Name: "l", Claim: ClaimID{1, 2}, Mode: Shared}).Token; (token != 0) != (mode == Shared) {
			t.Fatalf("a reader beside mode %d got token %d", mode, token)
		}
	}
}
