package keyspace

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/crdt"
)

// rules are the settings of a keyspace, ready to be applied. They are asked for local
// writes only: what other nodes wrote is taken as it is, and what is against the
// rules is counted.
type rules struct {
	client.KeyspaceSettings
	schema    *Schema
	schemaErr error // it could not be read: values are not checked
}

// A refusal is why a local write was not done.
type refusal uint8

const (
	refusedFrozen refusal = iota
	refusedTooLarge
	refusedInvalid
	refusedKeys
	refusedBytes
	refusedRate
	refusals
)

// String is the label of metrics.
func (r refusal) String() string {
	return [...]string{"frozen", "too_large", "invalid", "max_keys", "max_bytes", "rate"}[r]
}

// judged is what the rules were found to be broken by.
type judged struct {
	refused [refusals]atomic.Uint64 // local writes
	invalid atomic.Uint64           // values that arrived
}

// SetSettings makes settings hold from now on: a write that is under way when it returns
// is under the new ones. The error is that of a schema that cannot be read here, though it
// could where it was set; then values are not checked.
func (k *Keyspace) SetSettings(now time.Time, s client.KeyspaceSettings) error {
	old := k.rules.Load()
	r := &rules{KeyspaceSettings: s}
	switch {
	case s.Schema == "":
	case old != nil && old.Schema == s.Schema:
		r.schema, r.schemaErr = old.schema, old.schemaErr
	default:
		r.schema, r.schemaErr = ReadSchema(s.Schema)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.rate.set(s.Rate, now.UnixMilli())
	k.rules.Store(r)
	return r.schemaErr
}

// Settings are those of SetSettings.
func (k *Keyspace) Settings() client.KeyspaceSettings {
	if r := k.rules.Load(); r != nil {
		return r.KeyspaceSettings
	}
	return client.KeyspaceSettings{}
}

// SchemaError is why values are not checked although there is a schema, or nil.
func (k *Keyspace) SchemaError() error {
	if r := k.rules.Load(); r != nil {
		return r.schemaErr
	}
	return nil
}

// Refused is the local writes that were refused, by reason; all of them are there.
func (k *Keyspace) Refused() map[string]uint64 {
	out := make(map[string]uint64)
	for r := range refusals {
		out[r.String()] = k.judged.refused[r].Load()
	}
	return out
}

func (k *Keyspace) refuse(why refusal, err error) error {
	k.judged.refused[why].Add(1)
	return &refusedError{err}
}

// A refusedError is an error that says all already, with the sentinel that it wraps.
type refusedError struct{ error }

func (e *refusedError) Unwrap() error { return e.error }

// failedWrite is the error of a change that was not made.
func failedWrite(err error) error {
	var refused *refusedError
	if errors.As(err, &refused) {
		return refused
	}
	return editError(err)
}

// checkValue looks at a value that is about to be put. It takes no lock.
func (k *Keyspace) checkValue(value []byte) error {
	if err := k.checkSize(value); err != nil {
		return err
	}
	if r := k.rules.Load(); r != nil && r.schema != nil {
		if err := r.schema.Check(value); err != nil {
			return k.refuse(refusedInvalid, fmt.Errorf("%w ('meshkv keyspace info %s -o json' shows it)", err, k.name))
		}
	}
	return nil
}

// checkSize is the same for a value that no schema is about: of a field, or of an entry of a log.
func (k *Keyspace) checkSize(value []byte) error {
	r := k.rules.Load()
	if r == nil {
		return nil
	}
	if r.MaxValue > 0 && int64(len(value)) > r.MaxValue {
		return k.refuse(refusedTooLarge, fmt.Errorf("%w: keyspace %s takes values of at most %d bytes, this one has %d ('meshkv keyspace set %s --max-value' changes that)",
			client.ErrTooLarge, k.name, r.MaxValue, len(value), k.name))
	}
	return nil
}

// growth is what a local write adds. The zero one is of a write that only removes.
type growth struct {
	keys  int64 // that have no cells yet
	bytes int64 // of keys, paths and values; negative if it makes the keyspace smaller
	puts  int64 // counted by the rate
}

// growthOf is that of a Put. Called with k.mu held.
func (k *Keyspace) growthOf(key string, value []byte) growth {
	if k.rules.Load() == nil {
		return growth{}
	}
	g := growth{bytes: int64(len(key) + len(value)), puts: 1}
	if k.index.top(key) == nil {
		g.keys = 1
	}
	for _, c := range k.index.ByPath(key, "") {
		g.bytes -= cellBytes(c)
	}
	return g
}

// growthOfBatch is that of an update. Called with k.mu held.
func (k *Keyspace) growthOfBatch(d *crdt.Draft) (g growth) {
	if k.rules.Load() == nil {
		return growth{}
	}
	fresh := make(map[string]struct{})
	for c := range d.Added() {
		g.bytes += cellBytes(c)
		if g.puts++; k.index.top(c.Key) == nil {
			fresh[c.Key] = struct{}{}
		}
	}
	for c := range d.Removed() {
		g.bytes -= cellBytes(c)
	}
	g.keys = int64(len(fresh))
	return g
}

// permit refuses a local write that the settings do not allow: whatever it is while the
// keyspace is frozen, and otherwise what makes it grow over a limit. Called with k.mu held.
func (k *Keyspace) permit(now time.Time, g growth) error {
	r := k.rules.Load()
	if r == nil {
		return nil
	}
	if r.Frozen {
		return k.refuse(refusedFrozen, fmt.Errorf("%w: %s takes no writes ('meshkv keyspace thaw %s' ends that)", client.ErrFrozen, k.name, k.name))
	}
	if keys := int64(k.index.keys.Len()); r.MaxKeys > 0 && g.keys > 0 && keys+g.keys > r.MaxKeys {
		return k.refuse(refusedKeys, fmt.Errorf("%w: %s has %d keys and takes at most %d (delete some, or 'meshkv keyspace set %s --max-keys')",
			client.ErrFull, k.name, keys, r.MaxKeys, k.name))
	}
	if bytes := k.index.bytes.Load(); r.MaxBytes > 0 && g.bytes > 0 && bytes+g.bytes > r.MaxBytes {
		return k.refuse(refusedBytes, fmt.Errorf("%w: %s has %d bytes and takes at most %d (delete something, or 'meshkv keyspace set %s --max-bytes')",
			client.ErrFull, k.name, bytes, r.MaxBytes, k.name))
	}
	if g.puts > 0 {
		if wait, ok := k.rate.take(g.puts, now.UnixMilli()); !ok {
			return k.refuse(refusedRate, fmt.Errorf("%w: keyspace %s takes %d puts a second at each node, the next in %s ('meshkv keyspace set %s --rate' changes that)",
				client.ErrOverloaded, k.name, r.Rate, wait.Round(time.Millisecond), k.name))
		}
	}
	return nil
}

// frozen reports whether what only tidies up the shown values waits, too.
func (k *Keyspace) frozen() bool {
	r := k.rules.Load()
	return r != nil && r.Frozen
}

// toJudge is the values of a change that came from elsewhere and that the settings say
// something about. Called with k.mu held.
func (k *Keyspace) toJudge(added []*crdt.Cell) (cells []*crdt.Cell) {
	r := k.rules.Load()
	if r == nil || r.MaxValue == 0 && r.schema == nil {
		return nil
	}
	own := k.rep.Replica().Inc()
	for _, c := range added {
		if c.Dot.Inc != own && c.Kind == crdt.KindRegister {
			cells = append(cells, c)
		}
	}
	return cells
}

// judge counts the values that would have been refused. Called without k.mu: reading a
// large value takes a while. It holds up the link that they came by, and so their writers.
func (k *Keyspace) judge(cells []*crdt.Cell) {
	r := k.rules.Load()
	for _, c := range cells {
		if r.MaxValue > 0 && int64(len(c.Value)) > r.MaxValue || r.schema != nil && r.schema.Check(c.Value) != nil {
			k.judged.invalid.Add(1)
		}
	}
}
