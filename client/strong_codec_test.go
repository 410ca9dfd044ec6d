package client

import (
	"errors"
	"reflect"
	"testing"

	"github.com/vmihailenco/msgpack/v5"
	"pgregory.net/rapid"
)

func genText(t *rapid.T, label string) string {
	return rapid.SampledFrom([]string{"a", "b", "\xff\x00", "lock/1"}).Draw(t, label)
}

func genBlob(t *rapid.T, label string) []byte {
	return append([]byte{}, rapid.SliceOfN(rapid.Byte(), 0, 8).Draw(t, label)...)
}

func genU64(t *rapid.T, label string) uint64 { return rapid.Uint64().Draw(t, label) }

func genTxn(t *rapid.T, depth int) *Txn {
	txn := &Txn{}
	for range rapid.IntRange(0, 2).Draw(t, "compares") {
		c := Compare{
			Key: genText(t, "key"), Target: CompareTarget(rapid.IntRange(1, 6).Draw(t, "target")),
			Relation: CompareRelation(rapid.IntRange(1, 4).Draw(t, "relation")), Number: genU64(t, "number"), Value: genBlob(t, "value"),
		}
		if c.Target != TargetToken && rapid.Bool().Draw(t, "range") {
			c.End = "\x00"
		}
		txn.Compares = append(txn.Compares, c)
	}
	for _, ops := range []*[]TxnOp{&txn.Then, &txn.Else} {
		for range rapid.IntRange(0, 2).Draw(t, "ops") {
			var op TxnOp
			switch rapid.IntRange(0, 3).Draw(t, "op") {
			case 0:
				op.Put = &TxnPut{genText(t, "key"), genBlob(t, "value"), SessionID(genU64(t, "session"))}
			case 1:
				op.Delete = &TxnDelete{genText(t, "key"), rapid.SampledFrom([]string{"", "z"}).Draw(t, "end")}
			case 2:
				op.Get = &TxnGet{genText(t, "key"), rapid.SampledFrom([]string{"", "z"}).Draw(t, "end"), genU64(t, "revision"), rapid.IntRange(0, maxLimit).Draw(t, "limit")}
			default:
				if depth == MaxTxnDepth {
					continue
				}
				op.Txn = genTxn(t, depth+1)
			}
			*ops = append(*ops, op)
		}
	}
	return txn
}

func genStrongCall(t *rapid.T) StrongCall {
	c := StrongCall{
		Kind: StrongCallKind(rapid.IntRange(1, int(CallStatus)).Draw(t, "kind")), Request: genText(t, "request"), Name: genText(t, "name"),
		Session: SessionID(genU64(t, "session")), Claim: genU64(t, "claim"), Mode: LockMode(rapid.Byte().Draw(t, "mode")), Places: genU64(t, "places"),
		Try: rapid.Bool().Draw(t, "try"), Exact: rapid.Bool().Draw(t, "exact"), Delay: rapid.Int64().Draw(t, "delay"), TTL: rapid.Int64().Draw(t, "ttl"),
		Wait: rapid.Int64().Draw(t, "wait"), Value: genBlob(t, "value"), Token: FencingToken(genU64(t, "token")), First: genU64(t, "first"),
		Last: genU64(t, "last"), Size: genU64(t, "size"), Align: genU64(t, "align"), Label: genText(t, "label"), Revision: genU64(t, "revision"),
	}
	if rapid.Bool().Draw(t, "txn") {
		c.Txn = genTxn(t, 1)
	}
	return c
}

func genTxnResult(t *rapid.T, depth int) (r TxnResult) {
	r.Succeeded, r.Revision = rapid.Bool().Draw(t, "succeeded"), genU64(t, "revision")
	for range rapid.IntRange(0, 2).Draw(t, "results") {
		op := TxnOpResult{Deleted: genU64(t, "deleted"), More: rapid.Bool().Draw(t, "more")}
		for range rapid.IntRange(0, 2).Draw(t, "entries") {
			op.Entries = append(op.Entries, StrongEntry{
				genText(t, "key"), genBlob(t, "value"), genU64(t, "create"), genU64(t, "mod"), genU64(t, "version"), SessionID(genU64(t, "session")), rapid.Int64().Draw(t, "at"),
			})
		}
		if depth < MaxTxnDepth && rapid.Bool().Draw(t, "nested") {
			nested := genTxnResult(t, depth+1)
			op.Txn = &nested
		}
		r.Results = append(r.Results, op)
	}
	return r
}

func genStrongReply(t *rapid.T) StrongReply {
	r := StrongReply{
		Revision: genU64(t, "revision"), Compacted: genU64(t, "compacted"), Txn: genTxnResult(t, 1), Session: SessionID(genU64(t, "session")),
		TTL: rapid.Int64().Draw(t, "ttl"), Token: FencingToken(genU64(t, "token")), Known: rapid.Bool().Draw(t, "known"), First: genU64(t, "first"), Size: genU64(t, "size"),
	}
	for _, holders := range []*[]LockHolder{&r.Holders, &r.Waiting} {
		for range rapid.IntRange(0, 2).Draw(t, "holders") {
			*holders = append(*holders, LockHolder{
				SessionID(genU64(t, "session")), FencingToken(genU64(t, "token")), LockMode(rapid.Byte().Draw(t, "mode")), genBlob(t, "value"), rapid.Bool().Draw(t, "delayed"),
			})
		}
	}
	for range rapid.IntRange(0, 2).Draw(t, "allocations") {
		r.Allocations = append(r.Allocations, Allocation{
			genU64(t, "first"), genU64(t, "size"), FencingToken(genU64(t, "token")), SessionID(genU64(t, "session")), genText(t, "label"),
		})
	}
	return r
}

func TestStrongCallRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := genStrongCall(t)
		b, err := want.AppendBinary(nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := msgpack.Unmarshal(b, new([]any)); err != nil {
			t.Fatalf("not msgpack: %v", err)
		}
		var got StrongCall
		if err := got.UnmarshalBinary(b); err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("got %+v, %v; want %+v", got, err, want)
		}
		n := rapid.IntRange(0, len(b)-1).Draw(t, "length")
		if err := got.UnmarshalBinary(b[:n:n]); !errors.Is(err, ErrBadRequest) {
			t.Fatalf("%d of %d bytes: got %v", n, len(b), err)
		}
	})
}

func TestStrongReplyRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := genStrongReply(t)
		b, err := want.AppendBinary(nil)
		if err != nil {
			t.Fatal(err)
		}
		var got StrongReply
		if err := got.UnmarshalBinary(b); err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("got %+v, %v; want %+v", got, err, want)
		}
		n := rapid.IntRange(0, len(b)-1).Draw(t, "length")
		if err := got.UnmarshalBinary(b[:n:n]); err == nil {
			t.Fatalf("%d of %d bytes are taken for a whole", n, len(b))
		}
	})
}

// nested is a transaction of the given depth.
func nested(depth int) *Txn {
	t := &Txn{Then: []TxnOp{{Get: &TxnGet{Key: "k"}}}}
	for range depth - 1 {
		t = &Txn{Then: []TxnOp{{Txn: t}}}
	}
	return t
}

func TestTxnCheck(t *testing.T) {
	long := string(make([]byte, maxName+1))
	put := TxnOp{Put: &TxnPut{Key: "k"}}
	equal := Compare{Key: "k", Target: TargetMod, Relation: Equal}
	for _, tt := range []struct {
		name string
		txn  *Txn
		want error
	}{
		{"nothing", &Txn{}, nil},
		{"everything", &Txn{Compares: []Compare{equal, Guard("lock", 7)}, Then: []TxnOp{put, {Get: &TxnGet{End: "\x00"}}}, Else: []TxnOp{{Delete: &TxnDelete{Key: "k"}}}}, nil},
		{"as many operations as may be", &Txn{Compares: []Compare{equal}, Then: make([]TxnOp, MaxTxnOps-1)}, errors.New("filled below")},
		{"too many operations", &Txn{Compares: []Compare{equal}, Then: make([]TxnOp, MaxTxnOps)}, ErrBadRequest},
		{"as deep as may be", nested(MaxTxnDepth), nil},
		{"too deep", nested(MaxTxnDepth + 1), ErrBadRequest},
		{"an operation of no kind", &Txn{Then: []TxnOp{{}}}, ErrBadRequest},
		{"an operation of two kinds", &Txn{Then: []TxnOp{{Put: put.Put, Get: &TxnGet{Key: "k"}}}}, ErrBadRequest},
		{"no key", &Txn{Then: []TxnOp{{Put: &TxnPut{}}}}, ErrBadRequest},
		{"a key too long", &Txn{Else: []TxnOp{{Put: &TxnPut{Key: long}}}}, ErrBadRequest},
		{"an end too long", &Txn{Then: []TxnOp{{Delete: &TxnDelete{Key: "k", End: long}}}}, ErrBadRequest},
		{"a negative limit", &Txn{Then: []TxnOp{{Get: &TxnGet{Key: "k", Limit: -1}}}}, ErrBadRequest},
		{"a value too large", &Txn{Then: []TxnOp{{Put: &TxnPut{Key: "k", Value: make([]byte, maxStrongValue+1)}}}}, ErrTooLarge},
		{"no target", &Txn{Compares: []Compare{{Key: "k", Relation: Equal}}}, ErrBadRequest},
		{"no relation", &Txn{Compares: []Compare{{Key: "k", Target: TargetMod}}}, ErrBadRequest},
		{"tokens of a range", &Txn{Compares: []Compare{{Key: "k", End: "z", Target: TargetToken, Relation: Equal}}}, ErrBadRequest},
	} {
		if tt.name == "as many operations as may be" {
			for i := range tt.txn.Then {
				tt.txn.Then[i] = put
			}
			tt.want = nil
		}
		if err := tt.txn.Check(); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
		if _, err := (&StrongCall{Kind: CallTxn, Txn: tt.txn}).AppendBinary(nil); !errors.Is(err, tt.want) {
			t.Errorf("%s, encoded: got %v, want %v", tt.name, err, tt.want)
		}
	}
}

// TestHostileCalls: a few bytes that announce much cost little.
func TestHostileCalls(t *testing.T) {
	head := []byte{0xdc, 0, 21, 1, 0xc4, 0}
	hostile := [][]byte{
		{0x93, 0xdd, 0xff, 0xff, 0xff, 0xff},             // compares
		{0x93, 0x90, 0xdd, 0x7f, 0xff, 0xff, 0xff},       // operations
		{0xc0, 0xc6, 0xff, 0xff, 0xff, 0xff},             // a name
		{0x93, 0x90, 0x91, 0x92, 4, 0x93, 0x90, 0x91, 0}, // an operation that is none
	}
	for i := range hostile {
		hostile[i] = append(append([]byte{}, head...), hostile[i]...)
	}
	allocated := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			for _, in := range hostile {
				var c StrongCall
				if err := c.UnmarshalBinary(in); !errors.Is(err, ErrBadRequest) {
					b.Fatalf("%x: got %v", in, err)
				}
			}
		}
	}).AllocedBytesPerOp()
	if allocated > 8<<10 {
		t.Errorf("allocated %d bytes", allocated)
	}
}

func FuzzStrongCall(f *testing.F) {
	for _, c := range []StrongCall{{Kind: CallTxn, Txn: nested(MaxTxnDepth)}, {Kind: CallAcquire, Name: "l", Value: []byte("v"), Mode: Exclusive}} {
		b, err := c.AppendBinary(nil)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var c, again StrongCall
		if err := c.UnmarshalBinary(b); err != nil {
			if !errors.Is(err, ErrBadRequest) && !errors.Is(err, ErrTooLarge) {
				t.Errorf("got %v", err)
			}
			return
		}
		out, err := c.AppendBinary(nil)
		if err != nil {
			t.Fatalf("encoded again: %v", err)
		}
		if err := again.UnmarshalBinary(out); err != nil || again.Name != c.Name || again.Kind != c.Kind || (again.Txn == nil) != (c.Txn == nil) {
			t.Errorf("decoded again: got %+v, %v; want %+v", again, err, c)
		}
	})
}

func FuzzStrongReply(f *testing.F) {
	r := StrongReply{Txn: TxnResult{Results: []TxnOpResult{{Entries: []StrongEntry{{Key: "k"}}, Txn: &TxnResult{}}}}, Holders: []LockHolder{{}}, Allocations: []Allocation{{}}}
	b, err := r.AppendBinary(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		var r, again StrongReply
		if r.UnmarshalBinary(b) != nil {
			return
		}
		out, err := r.AppendBinary(nil)
		if err != nil {
			t.Fatalf("encoded again: %v", err)
		}
		if err := again.UnmarshalBinary(out); err != nil || len(again.Txn.Results) != len(r.Txn.Results) || len(again.Holders) != len(r.Holders) {
			t.Errorf("decoded again: got %+v, %v; want %+v", again, err, r)
		}
	})
}
