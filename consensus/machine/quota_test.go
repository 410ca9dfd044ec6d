package machine

import "testing"

// S7: a full keyspace refuses what would make it grow, and nothing else, and deletes
// and compaction heal it.
func TestS7FullKeyspaceHeals(t *testing.T) {
	r := newRig(t)
	session(r, 1)
	r.must(&DefinePool{Pool{"p", 0, 9}})
	held := r.must(&Acquire{Name: "l", Claim: ClaimID{Session: 1}, Mode: Exclusive}).Token
	block := r.must(&Allocate{Pool: "p", Size: 1})
	r.must(&SetQuota{r.m.bytes + 4096})
	put := &Txn{Then: []Op{&Put{Key: "k", Value: make([]byte, 500)}}}
	for i := 0; r.apply(put).Err == nil; i++ {
		if i > 4096/500 {
			t.Fatal("the quota does not bite")
		}
	}
	growing := []Body{
		put, &Grant{ID: 2, TTL: MinTTL}, &Acquire{Name: "l", Claim: ClaimID{1, 2}, Mode: Exclusive, Value: make([]byte, 1000)}, &DefinePool{Pool{"q", 0, 9}},
		&Allocate{Pool: "p", Size: 1}, &Proclaim{"l", held, make([]byte, 5000)},
	}
	r.must(&SetQuota{r.m.bytes})
	for _, b := range growing {
		r.refused(b, ErrNoSpace)
	}
	r.same()
	r.swap()
	before := r.m.View().Status()
	r.refused(&Txn{Then: []Op{&Delete{Span: Span{Key: "k"}}, &Put{Key: "other"}}}, ErrNoSpace)
	if after := r.m.View().Status(); after.Revision != before.Revision || after.Bytes != before.Bytes || r.m.View().Get("k") == nil {
		t.Fatalf("a refused transaction changed %+v to %+v", before, after)
	}
	r.must(&Txn{Then: []Op{&Get{Span: Span{Key: "k"}}}})
	r.must(&Proclaim{"l", held, nil})
	r.must(&Release{"l", held})
	r.must(&Free{"p", block.First, block.Token})
	if res := r.must(&Txn{Then: []Op{&Delete{Span: Span{Key: "k"}}}}); res.Txn.Results[0].Count != 1 {
		t.Fatal("nothing deleted")
	}
	r.must(&Compact{r.m.View().Status().Revision})
	r.must(puts("l"))
	r.must(&Compact{r.m.View().Status().Revision})
	for _, b := range growing[:5] {
		r.must(b)
	}
	r.swap()
}

// Everything that was made and ended leaves no bytes behind.
func TestBytesReturnToZero(t *testing.T) {
	r := newRig(t)
	session(r, 1)
	r.must(&Acquire{Name: "l", Claim: ClaimID{Session: 1}, Mode: Exclusive, Delay: 1, Value: []byte("v")})
	r.must(&Proclaim{"l", 1, []byte("a longer value")})
	r.must(&DefinePool{Pool{"p", 0, 9}})
	r.must(&Allocate{Pool: "p", Size: 2, Session: 1, Label: "x"})
	r.must(&Txn{Then: []Op{&Put{Key: "a", Lease: 1}, &Put{Key: "b", Value: []byte("b")}}})
	r.must(puts("a", "b"))
	r.must(&Txn{Then: []Op{&Delete{Span: Prefix("")}}})
	res := r.must(&Expire{[]LeaseID{1}})
	r.must(&EndDelay{"l", res.Locks[0].Token})
	r.must(&RemovePool{"p"})
	r.must(puts("x"))
	r.must(&Txn{Then: []Op{&Delete{Span: Prefix("")}}})
	r.must(&Compact{r.m.View().Status().Revision})
	if got := r.m.bytes; got != changeCost+(&Entry{Key: "x", Value: []byte("x")}).cost() { // of the delete at the compacted revision
		t.Fatalf("%d bytes left", got)
	}
}
