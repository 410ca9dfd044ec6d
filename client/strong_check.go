package client

import (
	"fmt"
	"time"
)

// Bounds of strong keyspaces.
const (
	// MaxTxnOps bounds the compares and operations of a Txn, nested ones included.
	MaxTxnOps = 4096
	// MaxTxnDepth bounds the nesting of Txns; one without nested ones has 1.
	MaxTxnDepth = 4
	// MinSessionTTL and MaxSessionTTL bound the TTL of a session.
	MinSessionTTL, MaxSessionTTL = time.Second, 24 * time.Hour

	maxName        = 1024    // bytes of keys and of the names of locks and pools
	maxStrongValue = 1 << 20 // bytes
	maxLabel       = 1024    // bytes
	maxRequest     = 64      // bytes
)

// Check refuses what can be no transaction. That a key is changed twice is found by
// the keyspace.
func (t *Txn) Check() error {
	left := MaxTxnOps
	return t.checkNested(1, &left)
}

func (t *Txn) checkNested(depth int, left *int) error {
	if depth > MaxTxnDepth {
		return fmt.Errorf("%w: transactions are nested at most %d deep", ErrBadRequest, MaxTxnDepth)
	}
	if *left -= len(t.Compares) + len(t.Then) + len(t.Else); *left < 0 {
		return fmt.Errorf("%w: a transaction has at most %d compares and operations, with those of nested ones: split it", ErrBadRequest, MaxTxnOps)
	}
	for i := range t.Compares {
		if err := t.Compares[i].check(); err != nil {
			return fmt.Errorf("compare %d: %w", i+1, err)
		}
	}
	for _, branch := range [...]struct {
		name string
		ops  []TxnOp
	}{{"then", t.Then}, {"else", t.Else}} {
		for i := range branch.ops {
			if err := branch.ops[i].check(depth, left); err != nil {
				return fmt.Errorf("%s operation %d: %w", branch.name, i+1, err)
			}
		}
	}
	return nil
}

func (c *Compare) check() error {
	if c.Target < TargetVersion || c.Target > TargetToken {
		return fmt.Errorf("%w: its target is none of TargetVersion to TargetToken", ErrBadRequest)
	}
	if c.Relation < Equal || c.Relation > Greater {
		return fmt.Errorf("%w: its relation is none of Equal, NotEqual, Less and Greater", ErrBadRequest)
	}
	if c.Target == TargetToken && c.End != "" {
		return fmt.Errorf("%w: a token is that of one lock, not of a range", ErrBadRequest)
	}
	if len(c.Value) > maxStrongValue {
		return fmt.Errorf("%w: a value of %d bytes, at most %d", ErrTooLarge, len(c.Value), maxStrongValue)
	}
	return checkSpan(c.Key, c.End)
}

func (op *TxnOp) check(depth int, left *int) error {
	set := 0
	for _, is := range [...]bool{op.Put != nil, op.Delete != nil, op.Get != nil, op.Txn != nil} {
		if is {
			set++
		}
	}
	if set != 1 {
		return fmt.Errorf("%w: an operation is exactly one of Put, Delete, Get and Txn, this one is %d of them", ErrBadRequest, set)
	}
	switch {
	case op.Put != nil:
		if len(op.Put.Value) > maxStrongValue {
			return fmt.Errorf("%w: a value of %d bytes, at most %d", ErrTooLarge, len(op.Put.Value), maxStrongValue)
		}
		return checkSpan(op.Put.Key, "")
	case op.Delete != nil:
		return checkSpan(op.Delete.Key, op.Delete.End)
	case op.Get != nil:
		if op.Get.Limit < 0 {
			return fmt.Errorf("%w: a limit cannot be negative, this one is %d", ErrBadRequest, op.Get.Limit)
		}
		return checkSpan(op.Get.Key, op.Get.End)
	}
	return op.Txn.checkNested(depth+1, left)
}

// checkSpan checks a key, or the bounds of a range, which may begin with no key.
func checkSpan(key, end string) error {
	if end == "" {
		return checkStrongName("key", key)
	}
	if len(key) > maxName || len(end) > maxName {
		return fmt.Errorf("%w: the bounds of a range have at most %d bytes, these have %d and %d", ErrBadRequest, maxName, len(key), len(end))
	}
	return nil
}

func checkStrongName(what, name string) error {
	if len(name) == 0 || len(name) > maxName {
		return fmt.Errorf("%w: the name of a %s has 1 to %d bytes, this one has %d", ErrBadRequest, what, maxName, len(name))
	}
	return nil
}

func checkTTL(ttl time.Duration) error {
	if ttl < MinSessionTTL || ttl > MaxSessionTTL {
		return fmt.Errorf("%w: the TTL of a session is from %s to %s, not %s", ErrBadRequest, MinSessionTTL, MaxSessionTTL, ttl)
	}
	return nil
}

var errSessionID = fmt.Errorf("%w: a session is named by the number that it was given", ErrBadRequest)

// PrefixEnd is the End of the range of all keys that begin with prefix, whose Key is the
// prefix itself.
func PrefixEnd(prefix string) string {
	for i := len(prefix) - 1; i >= 0; i-- {
		if prefix[i] < 0xff {
			return prefix[:i] + string([]byte{prefix[i] + 1})
		}
	}
	return "\x00"
}
