package machine

import (
	"fmt"
	"reflect"
	"testing"
)

func (r *rig) request(q Request, b Body) Result {
	r.t.Helper()
	return r.command(Command{Request: q, Body: b})
}

// version of a key counts how often a put of it took effect.
func version(m *Machine, key string) uint64 {
	if e := m.View().Get(key); e != nil {
		return e.Version
	}
	return 0
}

// S9: the retry after an unknown outcome takes effect once, and gives the first answer,
// on replicas that were restored too.
func TestS9RetryAppliedOnce(t *testing.T) {
	r := newRig(t)
	q := Request{Client: "c", Number: 1}
	txn := &Txn{Then: []Op{&Put{Key: "k", Prev: true}, &Get{Span: Prefix("k"), Count: true}, &Txn{Then: []Op{&Delete{Span: Span{Key: "x"}}}}}}
	first := r.request(q, txn)
	r.must(puts("k"))
	r.swap()
	again := r.request(q, txn)
	if !again.Duplicate || again.Changes != nil || again.Revision != first.Revision || !reflect.DeepEqual(again.Txn, first.Txn) {
		t.Fatalf("got %+v, want %+v", again, first)
	}
	if n := version(r.m, "k"); n != 2 {
		t.Fatalf("applied %d times", n-1)
	}
	// A failure is an answer as well.
	q.Number = 2
	wantErr(t, r.request(q, &Revoke{9}).Err, ErrLeaseNotFound)
	session(r, 9)
	if res := r.request(q, &Revoke{9}); res.Err != ErrLeaseNotFound || !res.Duplicate {
		t.Fatalf("got %+v", res)
	}
	token := r.request(Request{Client: "c", Number: 3}, &Acquire{Name: "l", Claim: ClaimID{Session: 9}, Mode: Exclusive}).Token
	r.must(&Release{"l", token})
	if res := r.request(Request{Client: "c", Number: 3}, &Acquire{Name: "l", Claim: ClaimID{Session: 9}, Mode: Exclusive}); res.Token != token {
		t.Fatalf("got %+v", res)
	}
	if res := r.request(Request{Client: "c", Number: 4}, &Grant{TTL: MinTTL}); r.request(Request{Client: "c", Number: 4}, &Grant{TTL: MinTTL}).Lease != res.Lease {
		t.Fatal("another lease")
	}
}

func TestRequestFloor(t *testing.T) {
	r := newRig(t)
	for n := uint64(1); n <= 5; n++ {
		r.request(Request{Client: "c", Number: n}, puts("k"))
	}
	r.request(Request{Client: "c", Number: 6, Floor: 3}, puts("k"))
	for n := uint64(1); n <= 3; n++ {
		wantErr(t, r.request(Request{Client: "c", Number: n}, puts("k")).Err, ErrRequestForgotten)
	}
	if res := r.request(Request{Client: "c", Number: 4, Floor: 4}, puts("k")); !res.Duplicate {
		t.Fatalf("got %+v", res)
	}
	wantErr(t, r.request(Request{Client: "c", Number: 4}, puts("k")).Err, ErrRequestForgotten)
	wantErr(t, r.request(Request{Client: "c", Number: 9, Floor: 9}, puts("k")).Err, ErrRequestForgotten)
	wantErr(t, r.request(Request{Client: "new", Number: 1, Floor: 1}, puts("k")).Err, ErrRequestForgotten)
	if n := version(r.m, "k"); n != 6 {
		t.Fatalf("applied %d times", n)
	}
	r.swap()
}

func TestRequestWindow(t *testing.T) {
	r := newRig(t)
	for n := uint64(2); n <= RequestWindow+2; n++ {
		r.request(Request{Client: "c", Number: n}, puts("k"))
	}
	r.swap()
	for _, n := range []uint64{1, 2} { // 1 never came: it is not known that it did not
		wantErr(t, r.request(Request{Client: "c", Number: n}, puts("k")).Err, ErrRequestForgotten)
	}
	for _, n := range []uint64{3, RequestWindow + 2} {
		if res := r.request(Request{Client: "c", Number: n}, puts("k")); !res.Duplicate {
			t.Fatalf("%d: got %+v", n, res)
		}
	}
	if n := version(r.m, "k"); n != RequestWindow+1 {
		t.Fatalf("applied %d times", n)
	}
}

func TestRequestClientsAreBounded(t *testing.T) {
	r := newRig(t)
	since := r.m.View().Status().Applied // 0
	r.must(puts("x"))
	old := Request{Client: "old", Number: 1, Since: r.m.View().Status().Applied}
	r.request(old, puts("old"))
	r.request(Request{Client: "busy", Number: 1}, puts("busy"))
	for i := range MaxClients {
		r.request(Request{Client: fmt.Sprint(i), Number: 1}, puts("k"))
		if i == MaxClients/2 {
			r.request(Request{Client: "busy", Number: 1}, puts("busy"))
		}
	}
	if n := r.m.clients.Len(); n != MaxClients {
		t.Fatalf("%d clients", n)
	}
	r.swap()
	// Those that were dropped: with Since, with results given back, and with neither.
	wantErr(t, r.request(old, puts("old")).Err, ErrRequestForgotten)
	old.Number = 2
	wantErr(t, r.request(old, puts("old")).Err, ErrRequestForgotten)
	wantErr(t, r.request(Request{Client: "0", Number: 3, Floor: 2}, puts("k")).Err, ErrRequestForgotten)
	if res := r.request(Request{Client: "0", Number: 1, Since: since}, puts("again")); res.Err != nil || res.Duplicate {
		t.Fatalf("got %+v", res)
	}
	// One that was heard of since, and a new one that knows since when.
	if res := r.request(Request{Client: "busy", Number: 1}, puts("busy")); !res.Duplicate {
		t.Fatalf("got %+v", res)
	}
	if res := r.request(Request{Client: "new", Number: 1, Since: r.m.View().Status().Applied}, puts("new")); res.Err != nil {
		t.Fatalf("got %+v", res)
	}
	if version(r.m, "old") != 1 || version(r.m, "busy") != 1 {
		t.Fatal("applied twice")
	}
}

func TestRecordedResultsAreBounded(t *testing.T) {
	m := New()
	apply := func(q Request, txn *Txn) Result {
		return m.Apply(m.applied+1, encode(t, Command{Request: q, Body: txn}))
	}
	for _, k := range []string{"a", "b", "c"} {
		apply(Request{}, &Txn{Then: []Op{&Put{Key: k, Value: make([]byte, MaxValue)}}})
	}
	all := &Txn{Then: []Op{&Get{Span: Prefix("")}}}
	for n := uint64(1); n <= 6; n++ {
		apply(Request{Client: "c", Number: n}, all)
		if m.kept > MaxRecorded {
			t.Fatalf("%d bytes kept", m.kept)
		}
	}
	wantErr(t, apply(Request{Client: "c", Number: 1}, all).Err, ErrRequestForgotten)
	if res := apply(Request{Client: "c", Number: 6}, all); !res.Duplicate || len(res.Txn.Results[0].Entries) != 3 {
		t.Fatalf("got duplicate %v", res.Duplicate)
	}
	apply(Request{Client: "d", Number: 1}, all) // the whole of c must go
	if m.clients.Len() != 1 || m.kept > MaxRecorded {
		t.Fatalf("%d clients with %d bytes", m.clients.Len(), m.kept)
	}
}
