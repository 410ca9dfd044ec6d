package machine

import "github.com/meshkv/meshkv/crdt"

// A Result is what a command did. The fields that do not concern it are zero.
type Result struct {
	// Err is nil if the command was applied, or one of the package's errors.
	Err error
	// Revision is the keyspace's after the command.
	Revision Revision
	// Duplicate says that the request was applied before and this is its old result.
	Duplicate bool

	Txn   TxnResult // of a Txn
	Lease LeaseID   // of a Grant
	Token Token     // of Acquire, 0 while it waits; of Abort, 0 if it waited; of Allocate
	First uint64    // of Allocate: where the block begins

	// Changes and Locks are effects, in order, for watchers and for those who wait.
	// A duplicate has none.
	Changes []*Change
	Locks   []LockEvent
}

// A TxnResult is what a transaction did.
type TxnResult struct {
	Succeeded bool
	Results   []OpResult // one for each operation of the branch taken
}

// An OpResult is what one operation of a transaction did.
type OpResult struct {
	// Entries are those read by a Get, or those replaced or deleted if asked for.
	Entries []*Entry
	// Count is the number of keys deleted, or of those there were if asked for.
	Count uint64
	// More says that the limit of a Get left some out.
	More bool
	// Txn is the result of a nested transaction.
	Txn *TxnResult
}

// AppendBinary appends what a proposer is told of a result: all but Changes and Locks.
func (res *Result) AppendBinary(b []byte) ([]byte, error) {
	w := writer{crdt.NewEncoder()}
	w.Reset(b)
	w.fields(2)
	w.Bool(res.Duplicate)
	w.extended(res)
	return w.Bytes(), nil
}

// UnmarshalBinary is the inverse of AppendBinary. It fails with ErrMalformed.
func (res *Result) UnmarshalBinary(b []byte) error {
	r := newReader(b)
	r.fields(2)
	duplicate := r.bool()
	*res = r.extended()
	res.Duplicate = duplicate
	r.end()
	return r.err
}

// answeredErrors are those of a Result that is not kept: the command took no effect. Their
// codes begin at answeredBase.
var answeredErrors = [...]error{ErrMalformed, ErrRequestForgotten, ErrApplied}

const answeredBase = 1 << 16

// extended is appendResult with the errors that are not kept, whose codes are beyond.
func (w writer) extended(res *Result) {
	for i, err := range answeredErrors {
		if res.Err == err {
			w.fields(6, uint64(answeredBase+i), uint64(res.Revision), 0, 0, 0)
			w.txnResult(&TxnResult{})
			return
		}
	}
	appendResult(w, res)
}

func (r *reader) extended() Result {
	var res Result
	r.fields(6)
	code := r.uint()
	switch {
	case code < uint64(len(resultErrors)):
		res.Err = resultErrors[code]
	case code >= answeredBase && code-answeredBase < uint64(len(answeredErrors)):
		res.Err = answeredErrors[code-answeredBase]
	default:
		r.fail(ErrMalformed)
	}
	r.restOf(&res)
	return res
}

// appendResult encodes what is kept of a result for a retry of its request.
func appendResult(w writer, res *Result) {
	code := 0
	for i, err := range resultErrors {
		if err == res.Err {
			code = i
		}
	}
	w.fields(6, uint64(code), uint64(res.Revision), uint64(res.Lease), uint64(res.Token), res.First)
	w.txnResult(&res.Txn)
}

func (w writer) txnResult(t *TxnResult) {
	w.ArrayLen(2)
	w.Bool(t.Succeeded)
	w.ArrayLen(len(t.Results))
	for i := range t.Results {
		op := &t.Results[i]
		w.fields(4, op.Count)
		w.Bool(op.More)
		w.ArrayLen(len(op.Entries))
		for _, e := range op.Entries {
			w.entry(e)
		}
		if op.Txn == nil {
			w.Nil()
			continue
		}
		w.txnResult(op.Txn)
	}
}

func (r *reader) result() Result {
	var res Result
	r.fields(6)
	if code := r.upTo(uint64(len(resultErrors) - 1)); r.err == nil {
		res.Err = resultErrors[code]
	}
	r.restOf(&res)
	return res
}

// restOf reads what follows the code of the error.
func (r *reader) restOf(res *Result) {
	res.Revision, res.Lease, res.Token, res.First = Revision(r.uint()), LeaseID(r.uint()), Token(r.uint()), r.uint()
	res.Txn = r.txnResult(1)
}

func (r *reader) txnResult(depth int) (t TxnResult) {
	if r.fields(2); depth > MaxTxnDepth {
		r.fail(ErrMalformed)
	}
	t.Succeeded = r.bool()
	if n := r.array(MaxTxnOps); n > 0 {
		t.Results = make([]OpResult, n)
	}
	for i := range t.Results {
		if r.err != nil {
			return t
		}
		op := &t.Results[i]
		r.fields(4)
		op.Count, op.More = r.uint(), r.bool()
		for n := r.array(MaxResult); n > 0 && r.err == nil; n-- {
			op.Entries = append(op.Entries, r.entry())
		}
		if r.err == nil && !r.d.Nil() {
			nested := r.txnResult(depth + 1)
			op.Txn = &nested
		}
	}
	return t
}
