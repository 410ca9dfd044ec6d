package machine

import (
	"bytes"
	"cmp"
)

// An evaluation is a transaction that runs. After the first error it does nothing
// more, and its batch must be undone.
type evaluation struct {
	batch
	visited int // entries looked at
	size    int // of the result, in bytes
	err     error
}

func (t *Txn) apply(m *Machine, res *Result) {
	for _, branch := range [...][]Op{t.Then, t.Else} {
		if _, _, ok := touches(branch); !ok {
			res.Err = ErrDuplicateKey
			return
		}
	}
	ev := evaluation{batch: batch{m: m}}
	answer := ev.txn(t)
	if ev.err == nil && ev.growth > 0 && !m.fits(ev.growth) {
		ev.err = ErrNoSpace
	}
	if ev.err != nil {
		ev.undo()
		res.Err = ev.err
		return
	}
	res.Txn = answer
	res.Changes = ev.commit()
}

func (ev *evaluation) txn(t *Txn) (res TxnResult) {
	res.Succeeded = true
	for i := range t.Compares {
		if !ev.holds(&t.Compares[i]) {
			res.Succeeded = false
			break
		}
	}
	ops := t.Else
	if res.Succeeded {
		ops = t.Then
	}
	if len(ops) > 0 {
		res.Results = make([]OpResult, len(ops))
	}
	for i, op := range ops {
		if ev.err != nil {
			break
		}
		ev.do(op, &res.Results[i])
	}
	return res
}

func (ev *evaluation) do(op Op, res *OpResult) {
	switch op := op.(type) {
	case *Put:
		ev.doPut(op, res)
	case *Delete:
		ev.doDelete(op, res)
	case *Get:
		ev.get(op, res)
	case *Txn:
		nested := ev.txn(op)
		res.Txn = &nested
	}
}

func (ev *evaluation) doPut(op *Put, res *OpResult) {
	value, lease := op.Value, op.Lease
	if op.KeepValue || op.KeepLease {
		e, ok := ev.m.live.Get(&Entry{Key: op.Key})
		if !ok {
			ev.err = ErrKeyNotFound
			return
		}
		if op.KeepValue {
			value = e.Value
		}
		if op.KeepLease {
			lease = e.Lease
		}
	}
	if lease != 0 && ev.m.lease(lease) == nil {
		ev.err = ErrLeaseNotFound
		return
	}
	if prev := ev.put(op.Key, value, lease); op.Prev && prev != nil {
		ev.give(prev, res)
	}
}

func (ev *evaluation) doDelete(op *Delete, res *OpResult) {
	var found []*Entry
	ev.m.scan(op.Span, ev.m.revision+1, func(e *Entry) bool {
		found = append(found, e)
		return true
	})
	for _, e := range found {
		ev.remove(e)
		if op.Prev {
			ev.give(e, res)
		}
	}
	res.Count = uint64(len(found))
}

func (ev *evaluation) get(op *Get, res *OpResult) {
	rev, err := ev.m.readable(op.Revision)
	if err != nil {
		ev.err = err
		return
	}
	if op.Revision == 0 {
		rev = ev.m.revision + 1 // with what this command has put
	}
	ev.m.scan(op.Span, rev, func(e *Entry) bool { return ev.visit() && op.take(e, res) && ev.add(e, op, res) })
}

// add counts what take has put into the result.
func (ev *evaluation) add(e *Entry, op *Get, res *OpResult) bool {
	if op.NoEntries || res.More {
		return true
	}
	return ev.count(res.Entries[len(res.Entries)-1].size())
}

// give puts e into the result.
func (ev *evaluation) give(e *Entry, res *OpResult) {
	if ev.count(e.size()) {
		res.Entries = append(res.Entries, e)
	}
}

func (ev *evaluation) count(size int) bool {
	if ev.size += size; ev.size > MaxResult {
		ev.err = ErrTooLarge
	}
	return ev.err == nil
}

func (ev *evaluation) visit() bool {
	if ev.visited++; ev.visited > MaxVisited {
		ev.err = ErrTooLarge
	}
	return ev.err == nil
}

func (ev *evaluation) holds(c *Compare) bool {
	if c.Target == TargetToken {
		return ev.m.tokenHolds(c)
	}
	all, some := true, false
	ev.m.scan(c.Span, ev.m.revision+1, func(e *Entry) bool {
		some = true
		all = ev.visit() && c.holds(e)
		return all
	})
	if !some {
		return c.Target != TargetValue && c.holds(&Entry{})
	}
	return all
}

func (c *Compare) holds(e *Entry) bool {
	var have uint64
	switch c.Target {
	case TargetValue:
		return c.Relation.holds(bytes.Compare(e.Value, c.Value))
	case TargetVersion:
		have = e.Version
	case TargetCreate:
		have = uint64(e.Create)
	case TargetMod:
		have = uint64(e.Mod)
	case TargetLease:
		have = uint64(e.Lease)
	}
	return c.Relation.holds(cmp.Compare(have, c.Number))
}
