package machine

import (
	"cmp"
	"slices"
)

// A Txn is a transaction: if all Compares hold, Then is done, otherwise Else. The
// operations run in order, and each sees what those before it did. No key may be
// changed twice, neither by two Puts nor by a Put and a Delete that covers its key;
// the Then and Else of one nested transaction exclude each other and may share keys.
type Txn struct {
	Compares   []Compare
	Then, Else []Op
}

// An Op is an operation of a transaction: a *Put, *Delete, *Get or *Txn.
type Op interface {
	op() opKind
}

type opKind uint64

const (
	opPut opKind = iota + 1
	opDelete
	opGet
	opTxn
)

// A Put writes one key.
type Put struct {
	Key   string
	Value []byte
	// Lease deletes the key when it ends. 0 detaches the key from the one it had.
	Lease LeaseID
	// KeepValue and KeepLease keep what the key has; it must exist (ErrKeyNotFound).
	KeepValue, KeepLease bool
	// Prev asks for the entry that was replaced.
	Prev bool
}

// A Delete deletes the keys of a span.
type Delete struct {
	Span Span
	// Prev asks for the entries that were deleted.
	Prev bool
}

// A Get reads the keys of a span, ascending.
type Get struct {
	Span Span
	// Revision is the one to read at; 0: now, with what the transaction did so far.
	Revision Revision
	// Limit bounds the entries; 0: no bound but MaxResult.
	Limit uint64
	// Count asks for the number of keys, even beyond the limit: it looks at all.
	Count bool
	// NoEntries asks for no entries, only the count.
	NoEntries bool
	// KeysOnly leaves the values out.
	KeysOnly bool
}

func (*Put) op() opKind    { return opPut }
func (*Delete) op() opKind { return opDelete }
func (*Get) op() opKind    { return opGet }
func (*Txn) op() opKind    { return opTxn }

// A Compare is a condition on every key of a span. A key that is not there has
// version, revisions and lease 0; comparing its value fails, whatever the relation,
// and so does comparing the values of a span without keys.
type Compare struct {
	Span     Span
	Target   Target
	Relation Relation
	// Number is what the target is compared with, unless that is Value.
	Number uint64
	Value  []byte
}

// A Target is what a Compare looks at.
type Target uint64

// The targets. For TargetToken the key names a lock and the number is compared with
// the tokens under which it is held now, 0 if it is not: Equal holds if one of them
// is equal, NotEqual if none is, Less and Greater go by the highest.
const (
	TargetVersion Target = iota + 1
	TargetCreate
	TargetMod
	TargetValue
	TargetLease
	TargetToken
)

// A Relation is how the target must relate to what is given.
type Relation uint64

// The relations: target = given, and so on.
const (
	Equal Relation = iota + 1
	NotEqual
	Less
	Greater
)

func (rel Relation) holds(order int) bool {
	switch rel {
	case Equal:
		return order == 0
	case NotEqual:
		return order != 0
	case Less:
		return order < 0
	}
	return order > 0
}

func (*Txn) kind() kind { return kindTxn }

func (t *Txn) write(w writer) {
	w.ArrayLen(3)
	w.ArrayLen(len(t.Compares))
	for i := range t.Compares {
		c := &t.Compares[i]
		w.fields(6, uint64(c.Target), uint64(c.Relation), c.Number)
		w.span(c.Span)
		w.Bin(c.Value)
	}
	for _, ops := range [...][]Op{t.Then, t.Else} {
		w.ArrayLen(len(ops))
		for _, op := range ops {
			w.op(op)
		}
	}
}

func (w writer) op(op Op) {
	switch op := op.(type) {
	case *Put:
		w.fields(7, uint64(opPut), uint64(op.Lease))
		w.Bool(op.KeepValue)
		w.Bool(op.KeepLease)
		w.Bool(op.Prev)
		w.Str(op.Key)
		w.Bin(op.Value)
	case *Delete:
		w.fields(4, uint64(opDelete))
		w.span(op.Span)
		w.Bool(op.Prev)
	case *Get:
		w.fields(8, uint64(opGet), uint64(op.Revision), op.Limit)
		w.span(op.Span)
		w.Bool(op.Count)
		w.Bool(op.NoEntries)
		w.Bool(op.KeysOnly)
	case *Txn:
		w.fields(2, uint64(opTxn))
		op.write(w)
	}
}

func (t *Txn) read(r *reader) {
	left := MaxTxnOps
	t.readNested(r, 1, &left)
}

// readNested reads a transaction at the given depth, with room for left compares and
// operations.
func (t *Txn) readNested(r *reader, depth int, left *int) {
	if depth > MaxTxnDepth {
		r.fail(ErrTooLarge)
		return
	}
	r.fields(3)
	take := func() (n int) {
		if n = r.array(MaxCommand); n > *left {
			r.fail(ErrTooLarge)
			return 0
		}
		*left -= n
		return n
	}
	if n := take(); n > 0 {
		t.Compares = make([]Compare, n)
	}
	for i := range t.Compares {
		t.Compares[i].read(r)
	}
	for _, ops := range [...]*[]Op{&t.Then, &t.Else} {
		n := take()
		if n > 0 {
			*ops = make([]Op, 0, n)
		}
		for range n {
			if r.err != nil {
				return
			}
			*ops = append(*ops, r.op(depth, left))
		}
	}
}

func (c *Compare) read(r *reader) {
	r.fields(6)
	c.Target, c.Relation, c.Number = Target(r.uint()), Relation(r.uint()), r.uint()
	c.Span, c.Value = r.span(), r.bin(MaxValue)
	r.check(c.Target >= TargetVersion && c.Target <= TargetToken)
	r.check(c.Relation >= Equal && c.Relation <= Greater)
	r.check(c.Target != TargetToken || c.Span.one())
}

func (r *reader) op(depth int, left *int) Op {
	n := r.array(8)
	switch k := opKind(r.uint()); {
	case k == opPut && n == 7:
		op := &Put{Lease: LeaseID(r.uint()), KeepValue: r.bool(), KeepLease: r.bool(), Prev: r.bool()}
		op.Key, op.Value = r.name(), r.bin(MaxValue)
		return op
	case k == opDelete && n == 4:
		return &Delete{Span: r.span(), Prev: r.bool()}
	case k == opGet && n == 8:
		op := &Get{Revision: Revision(r.uint()), Limit: r.uint()}
		op.Span = r.span()
		op.Count, op.NoEntries, op.KeysOnly = r.bool(), r.bool(), r.bool()
		return op
	case k == opTxn && n == 2:
		op := &Txn{}
		op.readNested(r, depth+1, left)
		return op
	}
	r.fail(ErrMalformed)
	return nil
}

// A touch is a key or span that the i-th operation of a list may change.
type touch struct {
	span Span
	i    int
}

// touches are the puts and deletes of ops, in any branch of nested transactions. ok
// is false if two operations that may both run change one key.
func touches(ops []Op) (puts, deletes []touch, ok bool) {
	for i, op := range ops {
		switch op := op.(type) {
		case *Put:
			puts = append(puts, touch{Span{Key: op.Key}, i})
		case *Delete:
			deletes = append(deletes, touch{op.Span, i})
		case *Txn:
			for _, branch := range [...][]Op{op.Then, op.Else} {
				p, d, ok := touches(branch)
				if !ok {
					return nil, nil, false
				}
				for _, t := range p {
					puts = append(puts, touch{t.span, i})
				}
				for _, t := range d {
					deletes = append(deletes, touch{t.span, i})
				}
			}
		}
	}
	if len(puts) == 0 || len(puts)+len(deletes) == 1 {
		return puts, deletes, true
	}
	slices.SortFunc(puts, func(a, b touch) int {
		return cmp.Or(cmp.Compare(a.span.Key, b.span.Key), cmp.Compare(a.i, b.i))
	})
	for j := 1; j < len(puts); j++ {
		if puts[j].span.Key == puts[j-1].span.Key && puts[j].i != puts[j-1].i {
			return nil, nil, false
		}
	}
	for _, d := range deletes {
		j, _ := slices.BinarySearchFunc(puts, d.span.Key, func(p touch, key string) int { return cmp.Compare(p.span.Key, key) })
		for ; j < len(puts) && d.span.before(puts[j].span.Key); j++ {
			if puts[j].i != d.i {
				return nil, nil, false
			}
		}
	}
	return puts, deletes, true
}
