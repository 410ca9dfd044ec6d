package client

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// A Version names one write. It is comparable with ==, good for equality only.
// The zero Version names none.
type Version struct {
	Inc uint64 // incarnation of the writing replica; 0 on a strong keyspace
	Seq uint64 // its count of writes, or the revision
}

// IsZero reports whether v names no write.
func (v Version) IsZero() bool { return v == Version{} }

// String is the opaque form used by the CLI and HTTP: empty for the zero
// Version, decimal for a revision.
func (v Version) String() string {
	switch {
	case v.IsZero():
		return ""
	case v.Inc == 0:
		return strconv.FormatUint(v.Seq, 10)
	}
	return fmt.Sprintf("%x-%x", v.Inc, v.Seq)
}

// ParseVersion is the inverse of String.
func ParseVersion(s string) (Version, error) {
	if s == "" {
		return Version{}, nil
	}
	inc, seq, dotted := strings.Cut(s, "-")
	if !dotted {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			return Version{}, fmt.Errorf("%w: version %q is not one that meshkv printed", ErrBadRequest, s)
		}
		return Version{Seq: n}, nil
	}
	i, err1 := strconv.ParseUint(inc, 16, 64)
	q, err2 := strconv.ParseUint(seq, 16, 64)
	if err1 != nil || err2 != nil || i == 0 || q == 0 {
		return Version{}, fmt.Errorf("%w: version %q is not one that meshkv printed", ErrBadRequest, s)
	}
	return Version{Inc: i, Seq: q}, nil
}

// A Token names the writes that a reader has seen; opaque. The empty Token
// names none. Version.Token is the token of one write.
type Token string

// Token names the one write v.
func (v Version) Token() Token { return Token(v.String()) }

// A Cursor is a position in one node's stream of changes; opaque.
type Cursor string

// An Entry is one key as the serving node shows it.
type Entry struct {
	Key       string
	Type      Type   // with another than a register, Value is nil: see View and Elements
	Value     []byte // shared: not to be modified
	Version   Version
	Origin    string    // name of the node that wrote it, or its incarnation in hex if the name is not known here
	Modified  time.Time // by the clock of the writer
	Expires   time.Time // zero if it does not expire
	Ephemeral bool
	Siblings  []Sibling // concurrent values, newest first; only on request
}

// A Sibling is a value that was written concurrently with the one shown.
type Sibling struct {
	Value    []byte
	Version  Version
	Origin   string
	Modified time.Time
}

// A Deletion is the outcome of a Delete.
type Deletion struct {
	Deleted bool
	Version Version // of the deletion; zero if nothing was deleted
}

// EventType says what an Event reports.
type EventType string

// The types of events.
const (
	EventPut       EventType = "put"       // Entry is the key's new state, Prev its former one if known
	EventDelete    EventType = "delete"    // Entry.Key is gone, Prev its last state if known
	EventSynced    EventType = "synced"    // the snapshot is complete
	EventResync    EventType = "resync"    // changes were missed: forget all, a snapshot follows
	EventHeartbeat EventType = "heartbeat" // nothing happened
)

// Reason says why a key went away.
type Reason string

// The reasons of delete events.
const (
	ReasonDeleted     Reason = "deleted"
	ReasonExpired     Reason = "expired"
	ReasonOwnerFailed Reason = "owner-failed"
)

// An Event is one item of a Watch.
type Event struct {
	Type   EventType
	Entry  Entry
	Prev   *Entry // shared: not to be modified
	Reason Reason // of a delete
	Cursor Cursor // resume after this event
	// More says that the next event belongs to the same transaction. The Cursor of all
	// its events is that of the transaction before, but for the last one.
	More bool
	// Mine says that a Put or Delete at the serving node made the change. False: it came from
	// elsewhere, or that is not known.
	Mine bool
}

// KeyspaceInfo describes a keyspace at one node.
type KeyspaceInfo struct {
	Name    string
	Mode    string   // "eventual" or "strong"
	Members []string // names of the nodes known to hold it, ascending
	Keys    int      // visible keys
	Cells   int      // live cells, hidden ones included
	Bytes   int64    // of keys, paths and values of live cells
	Digest  string   // hex
	// Settings that this node applies to writes, and what it found against them.
	Settings KeyspaceSettings
	Invalid  uint64 // values from elsewhere that Settings would have refused, since the node knows of them
}

// A Digest summarises a keyspace at one node. Contents equal on two nodes give
// equal Digest; Clock also equal means that both know the same writes.
type Digest struct {
	Keyspace string
	Digest   string // hex
	Clock    string // hex
	Entries  int    // live cells
}
