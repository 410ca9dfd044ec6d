package client

import (
	"fmt"
	"time"
)

// A Type is what a key of an eventual keyspace holds. A key has one type, that of its
// newest cell, until it is deleted.
type Type string

// The types. A key that was written by Put is a register.
const (
	TypeRegister    Type = ""
	TypeCounter     Type = "counter"
	TypeSet         Type = "set"
	TypeMap         Type = "map"
	TypeFlag        Type = "flag"         // enabled wins over concurrently disabled
	TypeInverseFlag Type = "inverse-flag" // disabled wins over concurrently enabled
	TypeLog         Type = "log"
	TypeBounded     Type = "bounded"
)

// String is the name of the type for people: register where the type is empty.
func (t Type) String() string {
	if t == TypeRegister {
		return "register"
	}
	return string(t)
}

// ErrRights: the serving node has not the rights that the decrement of a bounded counter
// needs. It is an ErrConflict; a RightsError says how many there are.
var ErrRights = fmt.Errorf("%w: too few rights at this node", ErrConflict)

// A RightsError is an ErrRights with its numbers. A remote client gets the text alone.
type RightsError struct {
	Have, Need int64
}

// Error implements error.
func (e *RightsError) Error() string {
	return fmt.Sprintf("%v: it has %d and %d are needed: let another node that has some transfer them, or make the change there", ErrRights, e.Have, e.Need)
}

// Unwrap makes it an ErrRights.
func (e *RightsError) Unwrap() error { return ErrRights }

// UpdateOptions modify an Update. Nil and zero values are usable.
type UpdateOptions struct {
	// Durable waits until the changes are on the serving node's disk, and on that of each
	// member that Acks counts.
	Durable bool
	// Acks waits until so many members have the changes.
	Acks AckPolicy
}

// A View is one key as the serving node shows it: all but its elements.
type View struct {
	Key      string
	Type     Type
	Version  Version   // equal contents have equal versions, at every node
	Modified time.Time // of the newest cell, by the clock of its writer
	Len      int       // elements of a set, fields with a value of a map, entries of a log
	Number   int64     // of a counter and of a bounded counter
	Enabled  bool      // of a flag
	Bound    int64     // of a bounded counter
	Rights   int64     // of a bounded counter: what the serving node alone may take from it
}

// A Position is where an element stands in the order of its key: opaque, and good at
// every node. The empty one is before all.
type Position string

// An Element is one element of a set, one field of a map that has a value, or one entry
// of a log.
type Element struct {
	Path      []string // the element of a set, alone; the fields of a map; nil in a log
	Value     []byte   // of a field and of an entry; shared: not to be modified
	Position  Position
	Version   Version
	Origin    string    // as in Entry
	Modified  time.Time // by the clock of the writer
	Expires   time.Time // zero if it does not expire
	Ephemeral bool
}

// ElementsOptions modify an Elements. Nil and zero values are usable.
type ElementsOptions struct {
	// Type is what the key is to be of: ErrWrongType if it is not. Empty: set, map or log.
	Type Type
	// Under yields, of a map, the field of that path and what is under it; of a set, that
	// element alone. Refused with a log.
	Under []string
	// After skips everything up to and including that position.
	After Position
	// Limit bounds the number of elements. 0: no bound.
	Limit int
	// Seen waits until the serving node has seen the writes named by the token, and fails
	// with ErrNotCaughtUp if ctx ends first.
	Seen Token
}

// WrongType is the ErrWrongType of a call that meant a key of type have to be of type want.
func WrongType(have, want Type) error {
	return fmt.Errorf("%w: %v, not %v: use the calls of that type, or delete the key first", ErrWrongType, have, want)
}

// ErrTypes is the error of Update, View and Elements of a strong keyspace.
func ErrTypes(keyspace string) error {
	return fmt.Errorf("%w: %s is strong and has plain keys only: use a transaction (Txn, POST /v1/txn)", ErrNeedsEventual, keyspace)
}
