package machine

import "testing"

func TestRevisions(t *testing.T) {
	r := newRig(t)
	rev := func(want Revision, b Body) Result {
		t.Helper()
		res := r.apply(b)
		if res.Revision != want {
			t.Fatalf("%T: got revision %d, want %d", b, res.Revision, want)
		}
		return res
	}
	rev(1, &Txn{Then: []Op{&Get{Span: Prefix("")}}})
	rev(2, puts("a", "b"))
	rev(2, &Txn{Then: []Op{&Delete{Span: Span{Key: "x"}}}})
	rev(2, &Txn{Then: []Op{&Put{Key: "a"}, &Put{Key: "b", Lease: 7}}})
	rev(2, &Txn{Compares: []Compare{{Span: Span{Key: "a"}, Target: TargetVersion, Relation: Equal, Number: 0}}, Then: []Op{&Put{Key: "a"}}})
	rev(2, &Grant{ID: 7, TTL: MinTTL})
	rev(3, &Txn{Then: []Op{&Put{Key: "a", Lease: 7}, &Put{Key: "b", Lease: 7}, &Delete{Span: Span{Key: "x"}}}})
	res := rev(4, &Expire{[]LeaseID{7}})
	if len(res.Changes) != 2 || res.Changes[0].Key() != "a" || res.Changes[1].Seq != 6 || res.Changes[1].Prev.Seq != 4 {
		t.Fatalf("changes: %+v", res.Changes)
	}
	rev(4, &Revoke{7})
	rev(4, &Compact{4})
	rev(5, puts("a"))
	r.swap()
}

// A lock in etcd's way reads what it has just put.
func TestTxnReadsItsOwnWrites(t *testing.T) {
	r := newRig(t)
	res := r.must(&Txn{Then: []Op{&Put{Key: "l/2"}, &Get{Span: Prefix("l/"), KeysOnly: true}}})
	if e := res.Txn.Results[1].Entries; len(e) != 1 || e[0].Create != 2 || e[0].Seq != 1 || e[0].Modified == 0 {
		t.Fatalf("got %+v", e)
	}
}

func TestDuplicateKeys(t *testing.T) {
	a, b := &Put{Key: "a"}, &Put{Key: "b"}
	del := func(sp Span) Op { return &Delete{Span: sp} }
	for name, c := range map[string]struct {
		ops  []Op
		want error
	}{
		"two puts":               {[]Op{a, b, a}, ErrDuplicateKey},
		"put and delete":         {[]Op{a, del(Span{Key: "a"})}, ErrDuplicateKey},
		"put in a deleted range": {[]Op{del(Span{"", "\x00"}), a}, ErrDuplicateKey},
		"put beside a range":     {[]Op{del(Span{"b", "c"}), a}, nil},
		"end of a range":         {[]Op{del(Span{"a", "b"}), b}, nil},
		"two deletes":            {[]Op{del(Prefix("a")), del(Prefix("a"))}, nil},
		"nested put":             {[]Op{a, &Txn{Else: []Op{a}}}, ErrDuplicateKey},
		"within nested":          {[]Op{&Txn{Else: []Op{a, a}}}, ErrDuplicateKey},
		"nested delete":          {[]Op{a, &Txn{Else: []Op{del(Prefix("a"))}}}, ErrDuplicateKey},
		"two nested":             {[]Op{&Txn{Then: []Op{a}}, &Txn{Else: []Op{a}}}, ErrDuplicateKey},
		"then or else":           {[]Op{b, &Txn{Then: []Op{a}, Else: []Op{del(Prefix("a"))}}}, nil},
		"put twice in then/else": {[]Op{b, &Txn{Then: []Op{a}, Else: []Op{a}}}, nil},
	} {
		for _, txn := range []*Txn{{Then: c.ops}, {Else: c.ops}} {
			r := newRig(t)
			if res := r.apply(txn); res.Err != c.want {
				t.Errorf("%s: got error %v, want %v", name, res.Err, c.want)
			}
		}
	}
}

func TestTxnLimits(t *testing.T) {
	nested := func(depth int) *Txn {
		txn := puts("k")
		for range depth - 1 {
			txn = &Txn{Then: []Op{txn}}
		}
		return txn
	}
	many := func(n int) *Txn {
		txn := &Txn{Compares: make([]Compare, n/2)}
		for i := range txn.Compares {
			txn.Compares[i] = Compare{Span: Span{Key: "k"}, Target: TargetMod, Relation: Less, Number: 9}
		}
		for len(txn.Then) < n-n/2 {
			txn.Then = append(txn.Then, &Get{Span: Span{Key: "k"}})
		}
		return txn
	}
	big := func(size, n int) *Txn {
		txn := &Txn{}
		for range n {
			txn.Then = append(txn.Then, &Put{Key: string(rune('a' + n)), Value: make([]byte, size)})
		}
		return txn
	}
	for name, c := range map[string]struct {
		txn  *Txn
		want error
	}{
		"depth 4":       {nested(4), nil},
		"depth 5":       {nested(5), ErrTooLarge},
		"4,096 ops":     {many(4096), nil},
		"4,097 ops":     {many(4097), ErrTooLarge},
		"1 MiB":         {big(MaxValue, 1), nil},
		"above 1 MiB":   {big(MaxValue+1, 1), ErrMalformed},
		"2 MiB in all":  {big(MaxValue, 2), ErrTooLarge},
		"empty key":     {&Txn{Then: []Op{&Put{}}}, ErrMalformed},
		"long key":      {puts(string(make([]byte, MaxKey+1))), ErrMalformed},
		"longest key":   {puts(string(make([]byte, MaxKey))), nil},
		"empty span":    {&Txn{Then: []Op{&Get{}}}, ErrMalformed},
		"everything":    {&Txn{Then: []Op{&Get{Span: Prefix("")}}}, nil},
		"token of many": {&Txn{Compares: []Compare{{Span: Prefix("a"), Target: TargetToken, Relation: Equal}}}, ErrMalformed},
	} {
		b, err := (&Command{Body: c.txn}).AppendBinary([]byte("x"))
		if err != c.want {
			t.Errorf("%s: got error %v, want %v", name, err, c.want)
		}
		if err != nil && string(b) != "x" {
			t.Errorf("%s: left %d bytes behind", name, len(b))
		}
		if err == nil {
			wantErr(t, New().Apply(1, b[1:]).Err, nil)
		}
	}
}

// A transaction that reads too much is undone.
func TestResultIsBounded(t *testing.T) {
	r := newRig(t)
	for _, k := range []string{"a", "b", "c", "d"} {
		r.must(&Txn{Then: []Op{&Put{Key: k, Value: make([]byte, MaxValue)}}})
	}
	before := r.m.View()
	all := &Get{Span: Prefix("")}
	for name, txn := range map[string]*Txn{
		"get":    {Then: []Op{&Put{Key: "x"}, &Delete{Span: Span{Key: "a"}}, &Txn{Then: []Op{all, all}}}},
		"delete": {Then: []Op{&Put{Key: "x"}, &Delete{Span: Prefix("a"), Prev: true}, &Delete{Span: Span{"b", "e"}, Prev: true}}},
	} {
		if res := r.apply(txn); res.Err != ErrTooLarge || res.Txn.Results != nil {
			t.Fatalf("%s: got %v", name, res.Err)
		}
	}
	if after := r.m.View(); after.Get("x") != nil || after.Get("a") == nil || after.Status().Revision != before.Status().Revision {
		t.Fatal("a failed transaction left something behind")
	}
	r.same()
	r.swap()
	r.must(&Txn{Then: []Op{&Delete{Span: Prefix("")}}})
}

func TestVisitedIsBounded(t *testing.T) {
	m := New()
	txn := &Txn{}
	for i := range 2048 {
		txn.Then = append(txn.Then, &Put{Key: string([]byte{byte(i >> 8), byte(i)})})
	}
	wantErr(t, m.Apply(1, encode(t, Command{Body: txn})).Err, nil)
	count := &Txn{}
	for range MaxVisited/2048 + 1 {
		count.Then = append(count.Then, &Get{Span: Prefix(""), NoEntries: true})
	}
	wantErr(t, m.Apply(2, encode(t, Command{Body: count})).Err, ErrTooLarge)
	count.Then = count.Then[1:]
	wantErr(t, m.Apply(3, encode(t, Command{Body: count})).Err, nil)
}

func TestPrefix(t *testing.T) {
	for p, want := range map[string]Span{
		"": {"", "\x00"}, "net1": {"net1", "net2"}, "a\xff": {"a\xff", "b"}, "\xff\xff": {"\xff\xff", "\x00"}, "net1/": {"net1/", "net10"},
	} {
		if got := Prefix(p); got != want {
			t.Errorf("%q: got %q, want %q", p, got, want)
		}
	}
}
