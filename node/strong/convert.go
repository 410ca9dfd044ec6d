package strong

import (
	"fmt"
	"time"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/consensus/machine"
)

// The numbers of targets, relations and modes are the same on both sides; the compiler checks it.
var (
	_ = [1]struct{}{}[int(client.TargetToken)-int(machine.TargetToken)]
	_ = [1]struct{}{}[int(client.Greater)-int(machine.Greater)]
	_ = [1]struct{}{}[int(client.Place)-int(machine.Place)]
)

// entryOf is a key as the interface of all keyspaces shows it.
func entryOf(e *machine.Entry) client.Entry {
	return client.Entry{
		Key: e.Key, Value: e.Value, Version: versionOf(e.Mod), Modified: time.UnixMilli(e.Modified.WallMs()), Ephemeral: e.Lease != 0,
	}
}

func versionOf(rev machine.Revision) client.Version { return client.Version{Seq: uint64(rev)} }

func txnOf(t *client.Txn, depth int) (*machine.Txn, error) {
	if depth > machine.MaxTxnDepth {
		return nil, fmt.Errorf("%w: transactions nest at most %d deep", client.ErrBadRequest, machine.MaxTxnDepth)
	}
	out := &machine.Txn{}
	for i := range t.Compares {
		c := &t.Compares[i]
		if c.Target < client.TargetVersion || c.Target > client.TargetToken || c.Relation < client.Equal || c.Relation > client.Greater {
			return nil, fmt.Errorf("%w: compare %d has no target or relation", client.ErrBadRequest, i)
		}
		if c.Key == "" && c.End == "" {
			return nil, fmt.Errorf("%w: compare %d has no key", client.ErrBadRequest, i)
		}
		out.Compares = append(out.Compares, machine.Compare{
			Span: machine.Span{Key: c.Key, End: c.End}, Target: machine.Target(c.Target), Relation: machine.Relation(c.Relation), Number: c.Number, Value: c.Value,
		})
	}
	var err error
	if out.Then, err = opsOf(t.Then, depth); err == nil {
		out.Else, err = opsOf(t.Else, depth)
	}
	return out, err
}

func opsOf(ops []client.TxnOp, depth int) (out []machine.Op, err error) {
	for i, op := range ops {
		set := 0
		var o machine.Op
		if p := op.Put; p != nil {
			set++
			if err := checkWrite(p.Key, p.Value); err != nil {
				return nil, fmt.Errorf("operation %d: %w", i, err)
			}
			o = &machine.Put{Key: p.Key, Value: p.Value, Lease: machine.LeaseID(p.Session)}
		}
		if d := op.Delete; d != nil {
			set++
			o = &machine.Delete{Span: machine.Span{Key: d.Key, End: d.End}}
		}
		if g := op.Get; g != nil {
			set++
			if g.Limit < 0 {
				return nil, fmt.Errorf("%w: operation %d has a negative limit", client.ErrBadRequest, i)
			}
			o = &machine.Get{Span: machine.Span{Key: g.Key, End: g.End}, Revision: machine.Revision(g.Revision), Limit: uint64(g.Limit)}
		}
		if op.Txn != nil {
			set++
			if o, err = txnOf(op.Txn, depth+1); err != nil {
				return nil, err
			}
		}
		if set != 1 {
			return nil, fmt.Errorf("%w: operation %d must be one of put, delete, get and txn", client.ErrBadRequest, i)
		}
		out = append(out, o)
	}
	return out, nil
}

func txnResultOf(t *machine.TxnResult, rev machine.Revision) client.TxnResult {
	out := client.TxnResult{Succeeded: t.Succeeded, Revision: uint64(rev)}
	for i := range t.Results {
		op := &t.Results[i]
		r := client.TxnOpResult{Deleted: op.Count, More: op.More}
		for _, e := range op.Entries {
			r.Entries = append(r.Entries, strongEntryOf(e))
		}
		if op.Txn != nil {
			nested := txnResultOf(op.Txn, rev)
			r.Txn = &nested
		}
		out.Results = append(out.Results, r)
	}
	return out
}

func strongEntryOf(e *machine.Entry) client.StrongEntry {
	return client.StrongEntry{
		Key: e.Key, Value: e.Value, Create: uint64(e.Create), Mod: uint64(e.Mod), Version: e.Version, Session: client.SessionID(e.Lease),
		ModifiedMillis: e.Modified.WallMs(),
	}
}

func holdersOf(all []machine.Holder) []client.LockHolder {
	out := make([]client.LockHolder, 0, len(all))
	for _, h := range all {
		out = append(out, client.LockHolder{
			Session: client.SessionID(h.Claim.Session), Token: client.FencingToken(h.Token), Mode: client.LockMode(h.Mode), Value: h.Value, Delayed: h.Delay > 0,
		})
	}
	return out
}

// checkWrite refuses what no keyspace takes.
func checkWrite(key string, value []byte) error {
	if len(value) > MaxValueBytes {
		return fmt.Errorf("%w: a value has at most %d bytes, this one has %d", client.ErrTooLarge, MaxValueBytes, len(value))
	}
	return checkKey(key)
}

func checkKey(key string) error {
	if len(key) == 0 || len(key) > machine.MaxKey {
		return fmt.Errorf("%w: a key has 1 to %d bytes, this one has %d", client.ErrBadRequest, machine.MaxKey, len(key))
	}
	return nil
}

// MaxValueBytes bounds a value, as on eventual keyspaces.
const MaxValueBytes = 64 << 10
