package machine

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
	res.Revision, res.Lease, res.Token, res.First = Revision(r.uint()), LeaseID(r.uint()), Token(r.uint()), r.uint()
	res.Txn = r.txnResult(1)
	return res
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
