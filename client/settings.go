package client

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/meshkv/meshkv/client/wire"
)

// A KeyspaceOperator is what operators of eventual keyspaces ask of a node. An
// embedded node and a remote client implement it.
type KeyspaceOperator interface {
	// Settings are those that the serving node knows of.
	Settings(ctx context.Context, keyspace string) (KeyspaceSettings, error)
	// ChangeSettings changes what the change names, and returns the outcome. It holds
	// at the serving node at once, and at every other as soon as that learns of it:
	// in a partition that is not before its end. An eventual keyspace that does not
	// exist comes into being. ErrNeedsEventual if the keyspace is strong.
	ChangeSettings(ctx context.Context, keyspace string, change SettingsChange) (KeyspaceSettings, error)
	// History tells what happened to a key of an eventual keyspace lately, the
	// newest first. Nil options are usable.
	History(ctx context.Context, keyspace, key string, o *HistoryOptions) (History, error)
}

// KeyspaceSettings limit the writes to an eventual keyspace. Every node applies them
// to the writes that it serves itself. What arrives from other nodes is never
// refused, or replicas would not converge: so while a node does not know of a setting, or
// several nodes write at once, a limit can be passed. Then growth is refused until
// the keyspace is below it again. Zero values: no limit.
type KeyspaceSettings struct {
	// Frozen refuses puts and deletes with ErrFrozen. Replication, reads, watches and the
	// end of what expires go on.
	Frozen bool `json:"frozen"`
	// MaxValue is the largest value of a Put, in bytes: ErrTooLarge beyond. The
	// node's own limit of 64 KiB holds nevertheless.
	MaxValue int64 `json:"max_value,omitempty"`
	// MaxKeys is how many keys there may be, hidden ones included: a Put of one more is
	// refused with ErrFull.
	MaxKeys int64 `json:"max_keys,omitempty"`
	// MaxBytes is how large keys and values may be together: a Put that adds to them
	// is refused with ErrFull.
	MaxBytes int64 `json:"max_bytes,omitempty"`
	// Rate is how many puts a node takes in a second, on average over one: the next
	// are refused with ErrOverloaded. It holds for each node by itself.
	Rate int64 `json:"rate,omitempty"`
	// Schema is a JSON Schema (draft 4 to 2020-12) that values must conform to:
	// ErrBadRequest if one does not, or is no JSON.
	Schema string `json:"schema,omitempty"`
}

// Bounds of settings.
const (
	MaxSchema = 48 << 10 // bytes of a schema
	maxRate   = 1 << 30
)

// A SettingsChange names the settings to change; nil ones stay as they are, zero ones
// are taken away. Two changes that did not know of each other are both kept; of the
// same setting the later one holds, but a freeze outlasts a thaw that did not know
// of it.
type SettingsChange struct {
	Frozen   *bool   `json:"frozen,omitempty"`
	MaxValue *int64  `json:"max_value,omitempty"`
	MaxKeys  *int64  `json:"max_keys,omitempty"`
	MaxBytes *int64  `json:"max_bytes,omitempty"`
	Rate     *int64  `json:"rate,omitempty"`
	Schema   *string `json:"schema,omitempty"`
}

// Empty reports whether the change names nothing.
func (c SettingsChange) Empty() bool { return c == SettingsChange{} }

// Check finds numbers that are out of range. It does not read the schema.
func (c SettingsChange) Check() error {
	for _, n := range []struct {
		name  string
		value *int64
		most  int64
	}{
		{"max_value", c.MaxValue, 1 << 20}, {"max_keys", c.MaxKeys, 1 << 40}, {"max_bytes", c.MaxBytes, 1 << 50}, {"rate", c.Rate, maxRate},
	} {
		if n.value != nil && (*n.value < 0 || *n.value > n.most) {
			return fmt.Errorf("%w: %s is 0, for none, to %d, this one is %d", ErrBadRequest, n.name, n.most, *n.value)
		}
	}
	if c.Schema != nil && len(*c.Schema) > MaxSchema {
		return fmt.Errorf("%w: a schema has at most %d bytes, this one has %d", ErrTooLarge, MaxSchema, len(*c.Schema))
	}
	return nil
}

// UnmarshalJSON reads a change. The schema is JSON as it is, or a string that holds it; an
// empty string or null takes it away. What is not known is refused: it would not be done.
func (c *SettingsChange) UnmarshalJSON(b []byte) error {
	type plain SettingsChange
	body := struct {
		*plain
		Schema json.RawMessage `json:"schema"`
	}{plain: (*plain)(c)}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&body); err != nil {
		return err
	}
	text := string(body.Schema)
	switch {
	case body.Schema == nil:
		return nil
	case body.Schema[0] == '"':
		if err := json.Unmarshal(body.Schema, &text); err != nil {
			return err
		}
	case text == "null":
		text = ""
	}
	c.Schema = &text
	return nil
}

// Settings implements KeyspaceOperator.
func (c *Client) Settings(ctx context.Context, keyspace string) (KeyspaceSettings, error) {
	return c.settings(ctx, keyspace, SettingsChange{})
}

// ChangeSettings implements KeyspaceOperator.
func (c *Client) ChangeSettings(ctx context.Context, keyspace string, change SettingsChange) (KeyspaceSettings, error) {
	if err := change.Check(); err != nil {
		return KeyspaceSettings{}, err
	}
	return c.settings(ctx, keyspace, change)
}

func (c *Client) settings(ctx context.Context, keyspace string, change SettingsChange) (s KeyspaceSettings, err error) {
	if !validName(keyspace) {
		return s, errName(keyspace)
	}
	call := wire.SettingsCall{Keyspace: keyspace}
	if !change.Empty() {
		if call.Change, err = json.Marshal(change); err != nil {
			return s, err
		}
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.opts.Timeout)
		defer cancel()
	}
	reply, err := c.carryOut(ctx, &wire.Request{Type: wire.Settings, Value: wire.AppendSettings(nil, &call)}, !change.Empty())
	if err != nil {
		return s, err
	}
	return s, unmarshalDocument(reply.Body, &s)
}

// HistoryOptions modify a History. Nil and zero values are usable.
type HistoryOptions struct {
	// Limit bounds the number of events. 0: 100; at most MaxHistory.
	Limit int
	// Local asks the serving node only, instead of a member where it does not hold
	// the keyspace.
	Local bool
}

// MaxHistory bounds the events of one History.
const MaxHistory = 1000

// HistoryType says what an event of a History reports.
type HistoryType string

// The types of events.
const (
	HistoryPut         HistoryType = "put"          // Version was written; it was shown if Shown
	HistoryReappeared  HistoryType = "reappeared"   // Version is shown again: what hid it went, or its owner returned
	HistoryDelete      HistoryType = "delete"       // Removes were removed, and nothing is shown any more
	HistoryRemoved     HistoryType = "removed"      // Removes were removed, and none of them was shown
	HistoryExpired     HistoryType = "expired"      // the shown value's time was over
	HistoryOwnerFailed HistoryType = "owner-failed" // the shown value was bound to a node that failed or left
)

// A HistoryEvent is one step in the life of a key, as one node saw it.
type HistoryEvent struct {
	Type HistoryType
	// Version that was written, that expired, or of the op that removed. Zero where this
	// node does not know it: a removal is too long ago, or it came by a reconciliation,
	// which tells only what is gone.
	Version  Version
	Origin   string    // the node that wrote Version; empty if that is not known
	Modified time.Time // when, by that node's clock; zero if that is not known
	// Arrived is when it took effect at this node, by its clock; zero if that was before
	// what this node remembers.
	Arrived time.Time
	Removes []Version // the versions that went with it, at most 64 of them
	Shown   bool      // Version is what the key showed from then on
	Bytes   int       // of the value
	Value   []byte    // of a put; nil where all of them would be too large for one answer. Not to be modified.
}

// Lag is how long the event was on its way, by the clocks of both nodes; 0 if that is
// not known. A clock that is ahead can make it negative.
func (e HistoryEvent) Lag() time.Duration {
	if e.Modified.IsZero() || e.Arrived.IsZero() {
		return 0
	}
	return e.Arrived.Sub(e.Modified)
}

// A History is what one node remembers of a key.
type History struct {
	Keyspace string
	Key      string
	Node     string // that remembers
	// Since is from when on this node remembers every change of what the key
	// showed there. Earlier events are of values that are there still.
	Since time.Time
	// OpsSince is from when on it remembers the ops that peers sent, which tell who
	// removed something; zero if it remembers none.
	OpsSince time.Time
	Events   []HistoryEvent // newest first
	More     bool           // there were more than Limit
}

// History implements KeyspaceOperator.
func (c *Client) History(ctx context.Context, keyspace, key string, o *HistoryOptions) (History, error) {
	if !validName(keyspace) {
		return History{}, errName(keyspace)
	}
	if len(key) > wire.MaxRequest-1024 {
		return History{}, fmt.Errorf("%w: a request of %d bytes", ErrTooLarge, len(key))
	}
	call := wire.HistoryCall{Keyspace: keyspace, Key: key}
	if o != nil {
		if o.Limit < 0 {
			return History{}, fmt.Errorf("%w: a limit cannot be negative, this one is %d", ErrBadRequest, o.Limit)
		}
		call.Limit, call.Local = uint64(o.Limit), o.Local
	}
	return ask[History](ctx, c, &wire.Request{Type: wire.History, Value: wire.AppendHistory(nil, &call)})
}
