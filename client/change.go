package client

import (
	"fmt"
	"time"
)

// Limits of the types. Nodes refuse what is beyond.
const (
	MaxUpdateChanges = 1024      // of one Update
	MaxUpdateBytes   = 256 << 10 // of one Update: keys, paths and values, 32 bytes added for each change
	MaxElement       = 1024      // bytes of an element of a set
	MaxField         = 255       // bytes of a field of a map
	MaxFields        = 8         // in the path of a map, one within the other
	MaxLogCap        = 4096      // entries of a log
)

// A Verb says what a Change does.
type Verb uint8

// The verbs. Their numbers are those of the native protocol: append only.
const (
	VerbPut                Verb = iota + 1 // a register: Key, Value, TTL, Ephemeral
	VerbDelete                             // a key of any type: Key
	VerbCounterAdd                         // Key, N
	VerbCounterReset                       // Key
	VerbSetAdd                             // Key, Path: the element; TTL, Ephemeral
	VerbSetRemove                          // Key, Path: the element
	VerbMapPut                             // Key, Path: the fields; Value, TTL, Ephemeral
	VerbMapRemove                          // Key, Path: the fields, with all that is under them
	VerbFlagEnable                         // Key
	VerbFlagDisable                        // Key
	VerbInverseFlagEnable                  // Key
	VerbInverseFlagDisable                 // Key
	VerbLogAppend                          // Key, Value
	VerbLogCap                             // Key, N: entries to keep
	VerbBoundedCreate                      // Key, Bound, N: the first value
	VerbBoundedAdd                         // Key, N
	VerbBoundedTransfer                    // Key, N: rights, To
	verbs
)

// verbNames are those of the HTTP API and of the command line. Never modified.
var verbNames = [verbs]string{
	VerbPut: "put", VerbDelete: "delete", VerbCounterAdd: "counter-add", VerbCounterReset: "counter-reset",
	VerbSetAdd: "set-add", VerbSetRemove: "set-remove", VerbMapPut: "map-put", VerbMapRemove: "map-remove",
	VerbFlagEnable: "flag-enable", VerbFlagDisable: "flag-disable",
	VerbInverseFlagEnable: "inverse-flag-enable", VerbInverseFlagDisable: "inverse-flag-disable",
	VerbLogAppend: "log-append", VerbLogCap: "log-cap",
	VerbBoundedCreate: "bounded-create", VerbBoundedAdd: "bounded-add", VerbBoundedTransfer: "bounded-transfer",
}

// String is the verb's name in the HTTP API.
func (v Verb) String() string {
	if v > 0 && v < verbs {
		return verbNames[v]
	}
	return fmt.Sprintf("verb %d", uint8(v))
}

// ParseVerb is the inverse of String.
func ParseVerb(name string) (Verb, error) {
	for v, n := range verbNames {
		if n == name && v > 0 {
			return Verb(v), nil
		}
	}
	return 0, fmt.Errorf("%w: there is no verb %q", ErrBadRequest, name)
}

// A Change is one step of an Update. Each verb takes the fields that stand beside it
// and no others. The handles (CounterOf, SetOf, …) make Changes.
type Change struct {
	Verb      Verb
	Key       string
	Path      []string // the element of a set, alone; the fields of a map, outermost first
	Value     []byte
	N         int64
	Bound     int64         // what a bounded counter never falls below; fixed at its creation
	To        string        // of a transfer: a member's name, or its incarnation in hex
	TTL       time.Duration // hides the element or field that long after; 0: never
	Ephemeral bool          // bound to the life of the node that executes the Update
}

// errNoChanges: an Update of nothing has no version.
var errNoChanges = fmt.Errorf("%w: an update has 1 to %d changes", ErrBadRequest, MaxUpdateChanges)

// ErrUpdateSize: the changes do not fit into one Update. It is an ErrTooLarge.
var ErrUpdateSize = fmt.Errorf("%w: an update has at most %d changes and %d bytes: split it", ErrTooLarge, MaxUpdateChanges, MaxUpdateBytes)

// CheckChanges reports what is wrong with the changes of an Update, whatever the keys hold.
func CheckChanges(changes []Change) error {
	switch {
	case len(changes) == 0:
		return errNoChanges
	case len(changes) > MaxUpdateChanges:
		return ErrUpdateSize
	}
	size := 0
	for i := range changes {
		c := &changes[i]
		if err := c.check(); err != nil {
			if len(changes) > 1 {
				err = fmt.Errorf("change %d: %w", i+1, err)
			}
			return err
		}
		if size += c.size(); size > MaxUpdateBytes {
			return ErrUpdateSize
		}
	}
	return nil
}

func (c *Change) size() int {
	n := 32 + len(c.Key) + len(c.Value) + len(c.To)
	for _, p := range c.Path {
		n += 1 + len(p)
	}
	return n
}

// takes are the fields of Change that a verb takes beside Key.
type takes uint8

const (
	takesPath takes = 1 << iota
	takesValue
	takesN
	takesBound
	takesTo
	takesLife // TTL, Ephemeral
)

var verbTakes = [verbs]takes{
	VerbPut: takesValue | takesLife, VerbCounterAdd: takesN,
	VerbSetAdd: takesPath | takesLife, VerbSetRemove: takesPath,
	VerbMapPut: takesPath | takesValue | takesLife, VerbMapRemove: takesPath,
	VerbLogAppend: takesValue, VerbLogCap: takesN,
	VerbBoundedCreate: takesN | takesBound, VerbBoundedAdd: takesN, VerbBoundedTransfer: takesN | takesTo,
}

// given are the fields beside Key that are set.
func (c *Change) given() (f takes) {
	if c.Path != nil {
		f |= takesPath
	}
	if c.Value != nil {
		f |= takesValue
	}
	if c.N != 0 {
		f |= takesN
	}
	if c.Bound != 0 {
		f |= takesBound
	}
	if c.To != "" {
		f |= takesTo
	}
	if c.TTL != 0 || c.Ephemeral {
		f |= takesLife
	}
	return f
}

func (c *Change) check() error {
	if c.Verb == 0 || c.Verb >= verbs {
		return fmt.Errorf("%w: unknown %v", ErrBadRequest, c.Verb)
	}
	if len(c.Key) == 0 || len(c.Key) > maxKey {
		return fmt.Errorf("%w: a key has 1 to %d bytes, this one has %d", ErrBadRequest, maxKey, len(c.Key))
	}
	if c.given()&^verbTakes[c.Verb] != 0 {
		return fmt.Errorf("%w: %v takes fewer fields than were given", ErrBadRequest, c.Verb)
	}
	if c.TTL < 0 {
		return fmt.Errorf("%w: a time to live cannot be negative, this one is %s", ErrBadRequest, c.TTL)
	}
	switch c.Verb {
	case VerbSetAdd, VerbSetRemove:
		return checkElement(c.Path)
	case VerbMapPut, VerbMapRemove:
		return CheckFields(c.Path)
	case VerbLogCap:
		if c.N < 1 || c.N > MaxLogCap {
			return fmt.Errorf("%w: a log keeps 1 to %d entries, not %d", ErrBadRequest, MaxLogCap, c.N)
		}
	case VerbBoundedCreate:
		if c.N < c.Bound {
			return fmt.Errorf("%w: the first value %d is below the bound %d", ErrBadRequest, c.N, c.Bound)
		}
	case VerbBoundedTransfer:
		if c.N < 1 || c.To == "" {
			return fmt.Errorf("%w: a transfer names a positive number of rights and who gets them", ErrBadRequest)
		}
	}
	return nil
}

// maxKey is the longest key.
const maxKey = 1024

func checkElement(path []string) error {
	if len(path) != 1 || len(path[0]) == 0 || len(path[0]) > MaxElement {
		return fmt.Errorf("%w: an element of a set has 1 to %d bytes", ErrBadRequest, MaxElement)
	}
	return nil
}

// CheckFields reports what is wrong with the path of a field of a map.
func CheckFields(path []string) error {
	if len(path) == 0 || len(path) > MaxFields {
		return fmt.Errorf("%w: the path of a map has 1 to %d fields, this one has %d", ErrBadRequest, MaxFields, len(path))
	}
	total := 0
	for _, f := range path {
		if len(f) == 0 || len(f) > MaxField {
			return fmt.Errorf("%w: a field of a map has 1 to %d bytes, this one has %d", ErrBadRequest, MaxField, len(f))
		}
		total += 1 + len(f)
	}
	if total > MaxElement {
		return fmt.Errorf("%w: the fields of a path have at most %d bytes together, one added for each", ErrBadRequest, MaxElement)
	}
	return nil
}
