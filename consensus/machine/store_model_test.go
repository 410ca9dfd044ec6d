package machine

import (
	"cmp"
	"maps"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// A book is the dumb model of the store: all changes there ever were. Each state is
// recomputed from them.
type book struct {
	changes   []Change
	revision  Revision
	compacted Revision
	leases    map[LeaseID]bool
}

var bookKeys = []string{"a", "a\x00", "ab", "b", "c", "\xff"}

// at is the state at a revision.
func (bk *book) at(rev Revision) map[string]*Entry { return replay(bk.changes, rev) }

func replay(changes []Change, rev Revision) map[string]*Entry {
	state := map[string]*Entry{}
	for _, c := range changes {
		if c.Revision > rev {
			break
		}
		if c.Next == nil {
			delete(state, c.Prev.Key)
		} else {
			state[c.Next.Key] = c.Next
		}
	}
	return state
}

func within(state map[string]*Entry, sp Span) (found []*Entry) {
	for _, k := range slices.Sorted(maps.Keys(state)) {
		if sp.End == "" && k == sp.Key || sp.End != "" && k >= sp.Key && (sp.End == "\x00" || k < sp.End) {
			found = append(found, state[k])
		}
	}
	return found
}

// A trial is a transaction that the model runs.
type trial struct {
	bk      *book
	changes []Change
	err     error
}

func (tr *trial) now() map[string]*Entry {
	return replay(append(slices.Clone(tr.bk.changes), tr.changes...), tr.bk.revision+1)
}

func (tr *trial) txn(t *Txn) TxnResult {
	res := TxnResult{Succeeded: true}
	for i := range t.Compares {
		c := &t.Compares[i]
		some := within(tr.now(), c.Span)
		if len(some) == 0 && c.Target == TargetValue {
			res.Succeeded = false
		}
		if len(some) == 0 {
			some = []*Entry{{}}
		}
		for _, e := range some {
			if !bookHolds(c, e) {
				res.Succeeded = false
			}
		}
	}
	ops := t.Then
	if !res.Succeeded {
		ops = t.Else
	}
	for _, op := range ops {
		var r OpResult
		if tr.err == nil {
			r = tr.do(op)
		}
		res.Results = append(res.Results, r)
	}
	return res
}

func bookHolds(c *Compare, e *Entry) bool {
	got := map[Target]uint64{TargetVersion: e.Version, TargetCreate: uint64(e.Create), TargetMod: uint64(e.Mod), TargetLease: uint64(e.Lease)}
	order := cmp.Compare(got[c.Target], c.Number)
	if c.Target == TargetValue {
		order = cmp.Compare(string(e.Value), string(c.Value))
	}
	return order == 0 && c.Relation == Equal || order != 0 && c.Relation == NotEqual || order < 0 && c.Relation == Less || order > 0 && c.Relation == Greater
}

func (tr *trial) do(op Op) (r OpResult) {
	switch op := op.(type) {
	case *Put:
		prev := tr.now()[op.Key]
		e := &Entry{Key: op.Key, Value: op.Value, Create: tr.bk.revision + 1, Mod: tr.bk.revision + 1, Version: 1, Lease: op.Lease}
		if prev != nil {
			e.Create, e.Version = prev.Create, prev.Version+1
			if op.Prev {
				r.Entries = []*Entry{prev}
			}
		}
		if op.KeepValue || op.KeepLease {
			if prev == nil {
				tr.err = ErrKeyNotFound
				return r
			}
			if op.KeepValue {
				e.Value = prev.Value
			}
			if op.KeepLease {
				e.Lease = prev.Lease
			}
		}
		if e.Lease != 0 && !tr.bk.leases[e.Lease] {
			tr.err = ErrLeaseNotFound
			return r
		}
		tr.add(prev, e)
	case *Delete:
		found := within(tr.now(), op.Span)
		r.Count = uint64(len(found))
		if op.Prev {
			r.Entries = found
		}
		for _, e := range found {
			tr.add(e, nil)
		}
	case *Get:
		switch {
		case op.Revision == 0:
			return bookGet(op, tr.now())
		case op.Revision > tr.bk.revision:
			tr.err = ErrFutureRevision
		case op.Revision < tr.bk.compacted:
			tr.err = ErrCompacted
		default:
			return bookGet(op, tr.bk.at(op.Revision))
		}
	case *Txn:
		nested := tr.txn(op)
		r.Txn = &nested
	}
	return r
}

func bookGet(op *Get, state map[string]*Entry) (r OpResult) {
	found := within(state, op.Span)
	if op.Count || op.NoEntries {
		r.Count = uint64(len(found))
	}
	if op.NoEntries {
		return r
	}
	if op.Limit > 0 && uint64(len(found)) > op.Limit {
		found, r.More = found[:op.Limit], true
	}
	for _, e := range found {
		if op.KeysOnly {
			c := *e
			c.Value = nil
			e = &c
		}
		r.Entries = append(r.Entries, e)
	}
	return r
}

func (tr *trial) add(prev, next *Entry) {
	seq := Seq(len(tr.bk.changes) + len(tr.changes) + 1)
	if next != nil {
		next.Seq = seq
	}
	tr.changes = append(tr.changes, Change{Prev: prev, Next: next, Revision: tr.bk.revision + 1, Seq: seq})
}

// changed are the keys that op may put and those that it may delete.
func changed(op Op) (put, del map[string]bool) {
	put, del = map[string]bool{}, map[string]bool{}
	switch op := op.(type) {
	case *Put:
		put[op.Key] = true
	case *Delete:
		for _, k := range bookKeys {
			del[k] = op.Span.contains(k)
		}
	case *Txn:
		for _, o := range append(slices.Clone(op.Then), op.Else...) {
			p, d := changed(o)
			for _, k := range bookKeys {
				put[k], del[k] = put[k] || p[k], del[k] || d[k]
			}
		}
	}
	return put, del
}

func conflicting(ops []Op) bool {
	for i, op := range ops {
		if nested, ok := op.(*Txn); ok && (conflicting(nested.Then) || conflicting(nested.Else)) {
			return true
		}
		p, _ := changed(op)
		for j, other := range ops {
			q, d := changed(other)
			for _, k := range bookKeys {
				if i != j && p[k] && (q[k] || d[k]) {
					return true
				}
			}
		}
	}
	return false
}

func (bk *book) apply(t *Txn) (TxnResult, []Change, error) {
	if conflicting(t.Then) || conflicting(t.Else) {
		return TxnResult{}, nil, ErrDuplicateKey
	}
	tr := &trial{bk: bk}
	res := tr.txn(t)
	if tr.err != nil {
		return TxnResult{}, nil, tr.err
	}
	bk.commit(tr.changes)
	return res, tr.changes, nil
}

func (bk *book) commit(changes []Change) {
	if len(changes) > 0 {
		bk.revision++
		bk.changes = append(bk.changes, changes...)
	}
}

func genSpan(t *rapid.T) Span {
	k := pick(t, "key", bookKeys...)
	return Span{k, pick(t, "end", "", "", "\x00", "b", "c", k+"\x00")}
}

func (bk *book) genGet(t *rapid.T) *Get {
	return &Get{
		Span: genSpan(t), Revision: Revision(rapid.Uint64Range(0, uint64(bk.revision)+1).Draw(t, "revision")), Limit: rapid.Uint64Range(0, 2).Draw(t, "limit"),
		Count: rapid.Bool().Draw(t, "count"), NoEntries: pick(t, "no entries", false, false, true), KeysOnly: rapid.Bool().Draw(t, "keys only"),
	}
}

func (bk *book) genTxn(t *rapid.T, depth int) *Txn {
	txn := &Txn{}
	for range rapid.IntRange(0, 2).Draw(t, "compares") {
		txn.Compares = append(txn.Compares, Compare{
			Span: genSpan(t), Target: Target(rapid.IntRange(1, 5).Draw(t, "target")), Relation: Relation(rapid.IntRange(1, 4).Draw(t, "relation")),
			Number: rapid.Uint64Range(0, 4).Draw(t, "number"), Value: []byte(pick(t, "value", "", "x", "y")),
		})
	}
	for _, ops := range []*[]Op{&txn.Then, &txn.Else} {
		for range rapid.IntRange(0, 3).Draw(t, "ops") {
			*ops = append(*ops, bk.genOp(t, depth))
		}
	}
	return txn
}

func (bk *book) genOp(t *rapid.T, depth int) Op {
	switch k := rapid.IntRange(0, 9).Draw(t, "op"); {
	case k < 5:
		return &Put{
			Key: pick(t, "key", bookKeys...), Value: []byte(pick(t, "value", "", "x", "y")), Lease: pick[LeaseID](t, "lease", 0, 0, 0, 1, 2, 3),
			KeepValue: pick(t, "keep value", false, false, false, true), KeepLease: pick(t, "keep lease", false, false, false, true), Prev: rapid.Bool().Draw(t, "prev"),
		}
	case k < 7:
		return &Delete{Span: genSpan(t), Prev: rapid.Bool().Draw(t, "prev")}
	case k < 9 || depth == MaxTxnDepth:
		return bk.genGet(t)
	}
	return bk.genTxn(t, depth+1)
}

// undated are changes without the date, which the model does not know.
func undated(changes []*Change) (all []Change) {
	for _, c := range changes {
		d := *c
		d.Modified, d.Prev, d.Next = 0, undatedEntry(c.Prev), undatedEntry(c.Next)
		all = append(all, d)
	}
	return all
}

func undatedEntry(e *Entry) *Entry {
	if e == nil {
		return nil
	}
	d := *e
	d.Modified = 0
	return &d
}

func undatedResult(r TxnResult) TxnResult {
	r.Results = slices.Clone(r.Results)
	for i := range r.Results {
		r.Results[i] = undatedOp(r.Results[i])
	}
	return r
}

func undatedOp(op OpResult) OpResult {
	op.Entries = slices.Clone(op.Entries)
	for i, e := range op.Entries {
		op.Entries[i] = undatedEntry(e)
	}
	if op.Txn != nil {
		nested := undatedResult(*op.Txn)
		op.Txn = &nested
	}
	return op
}

// checkReads compares a view with the model as it was when the view was made.
func (bk *book) checkReads(t *rapid.T, v *View) {
	get := bk.genGet(t)
	got, err := v.Range(get)
	tr := &trial{bk: bk}
	want := tr.do(get)
	if err != tr.err {
		t.Fatalf("range %+v: got error %v, want %v", get, err, tr.err)
	}
	if got := undatedOp(got); err == nil && !reflect.DeepEqual(got, want) {
		t.Fatalf("range %+v:\ngot  %+v\nwant %+v", get, got, want)
	}
	from := Revision(rapid.Uint64Range(0, uint64(bk.revision)+1).Draw(t, "from"))
	limit := rapid.IntRange(0, 3).Draw(t, "limit")
	events, err := v.Events(from, limit)
	if from < bk.compacted {
		if err != ErrCompacted {
			t.Fatalf("events from %d: got error %v", from, err)
		}
		return
	}
	var all []Change
	for _, c := range bk.changes {
		if c.Revision < from {
			continue
		}
		if len(all) >= max(limit, 1) && all[len(all)-1].Revision != c.Revision {
			break
		}
		all = append(all, c)
	}
	if got := undated(events); err != nil || !reflect.DeepEqual(got, all) {
		t.Fatalf("events from %d: got %+v, %v, want %+v", from, got, err, all)
	}
}

func TestStoreEqualsModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := newRig(t)
		bk := &book{revision: 1, leases: map[LeaseID]bool{1: true, 2: true}}
		r.must(&Grant{ID: 1, TTL: MinTTL})
		r.must(&Grant{ID: 2, TTL: MinTTL})
		type moment struct {
			view *View
			book book
		}
		var moments []moment
		for range rapid.IntRange(1, 25).Draw(t, "commands") {
			switch rapid.IntRange(0, 9).Draw(t, "command") {
			case 0:
				to := Revision(rapid.Uint64Range(0, uint64(bk.revision)+1).Draw(t, "compact"))
				want := error(nil)
				if to <= bk.compacted {
					want = ErrCompacted
				} else if to > bk.revision {
					want = ErrFutureRevision
				} else {
					bk.compacted = to
				}
				if res := r.apply(&Compact{to}); res.Err != want {
					t.Fatalf("compact %d: got %v, want %v", to, res.Err, want)
				}
			case 1:
				r.swap()
			case 2:
				moments = append(moments, moment{r.m.View(), *bk})
			default:
				txn := bk.genTxn(t, 1)
				res := r.apply(txn)
				want, changes, err := bk.apply(txn)
				if res.Err != err || res.Revision != bk.revision {
					t.Fatalf("txn: got error %v and revision %d, want %v and %d", res.Err, res.Revision, err, bk.revision)
				}
				if got := undatedResult(res.Txn); !reflect.DeepEqual(got, want) {
					t.Fatalf("txn:\ngot  %+v\nwant %+v", got, want)
				}
				if got := undated(res.Changes); !reflect.DeepEqual(got, changes) {
					t.Fatalf("changes:\ngot  %+v\nwant %+v", got, changes)
				}
			}
			bk.checkReads(t, r.m.View())
			bk.checkReads(t, r.twin.View())
		}
		for _, mo := range moments {
			mo.book.checkReads(t, mo.view)
		}
		r.same()
		bk.checkBytes(t, r.m)
	})
}

// checkBytes recounts what the quota counts.
func (bk *book) checkBytes(t *rapid.T, m *Machine) {
	want, history := uint64(leaseCost*len(bk.leases)), uint64(0)
	for _, e := range bk.at(bk.revision) {
		want += e.cost()
	}
	for _, c := range bk.changes {
		if c.Revision >= bk.compacted {
			history += changeCost
			if c.Prev != nil {
				history += c.Prev.cost()
			}
		}
	}
	if want += history; m.bytes != want || m.history != history {
		t.Fatalf("bytes: got %d, of these history %d; want %d and %d", m.bytes, m.history, want, history)
	}
}
