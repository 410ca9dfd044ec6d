package client

import (
	"bytes"
	"fmt"

	"github.com/meshkv/meshkv/client/wire"
)

// The bodies of calls of strong keyspaces and of their replies, in the native
// protocol and between nodes. Arrays may be longer than known here: fields are added
// at the end.

const (
	callFields       = 21
	replyFields      = 12
	holderFields     = 5
	allocationFields = 5
	compareFields    = 6
	txnFields        = 3
	txnResultFields  = 3
	opResultFields   = 4
	strongEntryLen   = 7
)

// Kinds of operations of a transaction. Append only.
const (
	txnOpPut = iota + 1
	txnOpDelete
	txnOpGet
	txnOpTxn
)

// AppendBinary appends the call. ErrBadRequest if its transaction is not one.
func (c *StrongCall) AppendBinary(b []byte) ([]byte, error) {
	if c.Txn != nil {
		if err := c.Txn.Check(); err != nil {
			return b, err
		}
	}
	b = wire.AppendArray(b, callFields)
	b = wire.AppendUint(b, uint64(c.Kind))
	b = wire.AppendBin(b, c.Request)
	b = appendTxn(b, c.Txn)
	b = wire.AppendBin(b, c.Name)
	b = wire.AppendUint(b, uint64(c.Session))
	b = wire.AppendUint(b, c.Claim)
	b = wire.AppendUint(b, uint64(c.Mode))
	b = wire.AppendUint(b, c.Places)
	b = wire.AppendBool(b, c.Try)
	b = wire.AppendBool(b, c.Exact)
	b = wire.AppendInt(b, c.Delay)
	b = wire.AppendInt(b, c.TTL)
	b = wire.AppendInt(b, c.Wait)
	b = wire.AppendBin(b, c.Value)
	b = wire.AppendUint(b, uint64(c.Token))
	b = wire.AppendUint(b, c.First)
	b = wire.AppendUint(b, c.Last)
	b = wire.AppendUint(b, c.Size)
	b = wire.AppendUint(b, c.Align)
	b = wire.AppendBin(b, c.Label)
	b = wire.AppendUint(b, c.Revision)
	return b, nil
}

// UnmarshalBinary reads what AppendBinary wrote; nothing in c refers to b
// afterwards. ErrBadRequest for anything else.
func (c *StrongCall) UnmarshalBinary(b []byte) error {
	d := wire.NewDecoder(b)
	*c = StrongCall{}
	extra := d.Fields(callFields)
	c.Kind = StrongCallKind(min(d.Uint(), 255))
	c.Request = d.Str()
	left := MaxTxnOps
	c.Txn = readTxn(d, 1, &left)
	c.Name = d.Str()
	c.Session, c.Claim = SessionID(d.Uint()), d.Uint()
	c.Mode, c.Places = LockMode(min(d.Uint(), 255)), d.Uint()
	c.Try, c.Exact = d.Bool(), d.Bool()
	c.Delay, c.TTL, c.Wait = d.Int(), d.Int(), d.Int()
	c.Value = bytes.Clone(d.Bin())
	c.Token = FencingToken(d.Uint())
	c.First, c.Last, c.Size, c.Align = d.Uint(), d.Uint(), d.Uint(), d.Uint()
	c.Label = d.Str()
	c.Revision = d.Uint()
	d.Skip(extra, 0)
	if err := d.End(); err != nil {
		return fmt.Errorf("%w: %w", ErrBadRequest, err)
	}
	if c.Txn != nil {
		return c.Txn.Check()
	}
	return nil
}

func appendTxn(b []byte, t *Txn) []byte {
	if t == nil {
		return wire.AppendNil(b)
	}
	b = wire.AppendArray(b, txnFields)
	b = wire.AppendArray(b, len(t.Compares))
	for i := range t.Compares {
		c := &t.Compares[i]
		b = wire.AppendArray(b, compareFields)
		b = wire.AppendBin(b, c.Key)
		b = wire.AppendBin(b, c.End)
		b = wire.AppendUint(b, uint64(c.Target))
		b = wire.AppendUint(b, uint64(c.Relation))
		b = wire.AppendUint(b, c.Number)
		b = wire.AppendBin(b, c.Value)
	}
	for _, ops := range [...][]TxnOp{t.Then, t.Else} {
		b = wire.AppendArray(b, len(ops))
		for i := range ops {
			b = appendTxnOp(b, &ops[i])
		}
	}
	return b
}

func appendTxnOp(b []byte, op *TxnOp) []byte {
	switch {
	case op.Put != nil:
		b = wire.AppendArray(b, 4)
		b = wire.AppendUint(b, txnOpPut)
		b = wire.AppendBin(b, op.Put.Key)
		b = wire.AppendBin(b, op.Put.Value)
		return wire.AppendUint(b, uint64(op.Put.Session))
	case op.Delete != nil:
		b = wire.AppendArray(b, 3)
		b = wire.AppendUint(b, txnOpDelete)
		b = wire.AppendBin(b, op.Delete.Key)
		return wire.AppendBin(b, op.Delete.End)
	case op.Get != nil:
		b = wire.AppendArray(b, 5)
		b = wire.AppendUint(b, txnOpGet)
		b = wire.AppendBin(b, op.Get.Key)
		b = wire.AppendBin(b, op.Get.End)
		b = wire.AppendUint(b, op.Get.Revision)
		return wire.AppendUint(b, uint64(max(op.Get.Limit, 0)))
	}
	b = wire.AppendArray(b, 2)
	b = wire.AppendUint(b, txnOpTxn)
	return appendTxn(b, op.Txn)
}

// readTxn reads a transaction at the given depth, with room for left conditions and
// operations.
func readTxn(d *wire.Decoder, depth int, left *int) *Txn {
	if d.Nil() || d.Err() != nil {
		return nil
	}
	if depth > MaxTxnDepth {
		d.Fail("transactions nested too deeply")
		return nil
	}
	t := &Txn{}
	extra := d.Fields(txnFields)
	take := func() int {
		n := d.Array()
		if *left -= n; *left < 0 {
			d.Fail("too many operations")
			return 0
		}
		return n
	}
	for n := take(); n > 0 && d.Err() == nil; n-- {
		more := d.Fields(compareFields)
		t.Compares = append(t.Compares, Compare{
			Key: d.Str(), End: d.Str(), Target: CompareTarget(min(d.Uint(), 255)), Relation: CompareRelation(min(d.Uint(), 255)),
			Number: d.Uint(), Value: bytes.Clone(d.Bin()),
		})
		d.Skip(more, 0)
	}
	for _, ops := range [...]*[]TxnOp{&t.Then, &t.Else} {
		for n := take(); n > 0 && d.Err() == nil; n-- {
			*ops = append(*ops, readTxnOp(d, depth, left))
		}
	}
	d.Skip(extra, 0)
	return t
}

func readTxnOp(d *wire.Decoder, depth int, left *int) (op TxnOp) {
	extra := d.Fields(1)
	need := func(n int) {
		if extra -= n; extra < 0 {
			d.Fail("fields missing")
		}
	}
	switch d.Uint() {
	case txnOpPut:
		need(3)
		op.Put = &TxnPut{Key: d.Str(), Value: bytes.Clone(d.Bin()), Session: SessionID(d.Uint())}
	case txnOpDelete:
		need(2)
		op.Delete = &TxnDelete{Key: d.Str(), End: d.Str()}
	case txnOpGet:
		need(4)
		op.Get = &TxnGet{Key: d.Str(), End: d.Str(), Revision: d.Uint(), Limit: int(min(d.Uint(), maxLimit))}
	case txnOpTxn:
		need(1)
		if op.Txn = readTxn(d, depth+1, left); op.Txn == nil {
			d.Fail("no transaction")
		}
	default:
		d.Fail("unknown operation")
	}
	d.Skip(extra, 0)
	return op
}

// maxLimit is as good as no limit, and fits into any int.
const maxLimit = 1<<31 - 1

// AppendBinary appends the reply.
func (r *StrongReply) AppendBinary(b []byte) ([]byte, error) {
	b = wire.AppendArray(b, replyFields)
	b = wire.AppendUint(b, r.Revision)
	b = wire.AppendUint(b, r.Compacted)
	b = appendTxnResult(b, &r.Txn)
	b = wire.AppendUint(b, uint64(r.Session))
	b = wire.AppendInt(b, r.TTL)
	b = wire.AppendUint(b, uint64(r.Token))
	b = wire.AppendBool(b, r.Known)
	for _, holders := range [...][]LockHolder{r.Holders, r.Waiting} {
		b = wire.AppendArray(b, len(holders))
		for i := range holders {
			h := &holders[i]
			b = wire.AppendArray(b, holderFields)
			b = wire.AppendUint(b, uint64(h.Session))
			b = wire.AppendUint(b, uint64(h.Token))
			b = wire.AppendUint(b, uint64(h.Mode))
			b = wire.AppendBin(b, h.Value)
			b = wire.AppendBool(b, h.Delayed)
		}
	}
	b = wire.AppendUint(b, r.First)
	b = wire.AppendUint(b, r.Size)
	b = wire.AppendArray(b, len(r.Allocations))
	for i := range r.Allocations {
		a := &r.Allocations[i]
		b = wire.AppendArray(b, allocationFields)
		b = wire.AppendUint(b, a.First)
		b = wire.AppendUint(b, a.Size)
		b = wire.AppendUint(b, uint64(a.Token))
		b = wire.AppendUint(b, uint64(a.Session))
		b = wire.AppendBin(b, a.Label)
	}
	return b, nil
}

func appendTxnResult(b []byte, t *TxnResult) []byte {
	b = wire.AppendArray(b, txnResultFields)
	b = wire.AppendBool(b, t.Succeeded)
	b = wire.AppendUint(b, t.Revision)
	b = wire.AppendArray(b, len(t.Results))
	for i := range t.Results {
		op := &t.Results[i]
		b = wire.AppendArray(b, opResultFields)
		b = wire.AppendUint(b, op.Deleted)
		b = wire.AppendBool(b, op.More)
		b = wire.AppendArray(b, len(op.Entries))
		for j := range op.Entries {
			e := &op.Entries[j]
			b = wire.AppendArray(b, strongEntryLen)
			b = wire.AppendBin(b, e.Key)
			b = wire.AppendBin(b, e.Value)
			b = wire.AppendUint(b, e.Create)
			b = wire.AppendUint(b, e.Mod)
			b = wire.AppendUint(b, e.Version)
			b = wire.AppendUint(b, uint64(e.Session))
			b = wire.AppendInt(b, e.ModifiedMillis)
		}
		if op.Txn == nil {
			b = wire.AppendNil(b)
		} else {
			b = appendTxnResult(b, op.Txn)
		}
	}
	return b
}

// UnmarshalBinary reads what AppendBinary wrote. Values are part of b.
func (r *StrongReply) UnmarshalBinary(b []byte) error {
	d := wire.NewDecoder(b)
	*r = StrongReply{}
	extra := d.Fields(replyFields)
	r.Revision, r.Compacted = d.Uint(), d.Uint()
	r.Txn = readTxnResult(d, 1)
	r.Session, r.TTL, r.Token, r.Known = SessionID(d.Uint()), d.Int(), FencingToken(d.Uint()), d.Bool()
	for _, holders := range [...]*[]LockHolder{&r.Holders, &r.Waiting} {
		for n := d.Array(); n > 0 && d.Err() == nil; n-- {
			more := d.Fields(holderFields)
			*holders = append(*holders, LockHolder{
				Session: SessionID(d.Uint()), Token: FencingToken(d.Uint()), Mode: LockMode(min(d.Uint(), 255)), Value: d.Bin(), Delayed: d.Bool(),
			})
			d.Skip(more, 0)
		}
	}
	r.First, r.Size = d.Uint(), d.Uint()
	for n := d.Array(); n > 0 && d.Err() == nil; n-- {
		more := d.Fields(allocationFields)
		r.Allocations = append(r.Allocations, Allocation{
			First: d.Uint(), Size: d.Uint(), Token: FencingToken(d.Uint()), Session: SessionID(d.Uint()), Label: d.Str(),
		})
		d.Skip(more, 0)
	}
	d.Skip(extra, 0)
	return d.End()
}

func readTxnResult(d *wire.Decoder, depth int) (t TxnResult) {
	if depth > MaxTxnDepth {
		d.Fail("results nested too deeply")
		return t
	}
	extra := d.Fields(txnResultFields)
	t.Succeeded, t.Revision = d.Bool(), d.Uint()
	for n := d.Array(); n > 0 && d.Err() == nil; n-- {
		var op TxnOpResult
		more := d.Fields(opResultFields)
		op.Deleted, op.More = d.Uint(), d.Bool()
		for m := d.Array(); m > 0 && d.Err() == nil; m-- {
			later := d.Fields(strongEntryLen)
			op.Entries = append(op.Entries, StrongEntry{
				Key: d.Str(), Value: d.Bin(), Create: d.Uint(), Mod: d.Uint(), Version: d.Uint(), Session: SessionID(d.Uint()), ModifiedMillis: d.Int(),
			})
			d.Skip(later, 0)
		}
		if !d.Nil() && d.Err() == nil {
			nested := readTxnResult(d, depth+1)
			op.Txn = &nested
		}
		d.Skip(more, 0)
		t.Results = append(t.Results, op)
	}
	d.Skip(extra, 0)
	return t
}
