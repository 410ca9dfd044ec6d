package crdt

import (
	"cmp"
	"fmt"
)

// Kind says which typed view a cell belongs to.
type Kind uint8

// The kinds of cells. A plain value is a register with an empty path.
const (
	KindRegister    Kind = iota + 1
	KindSet              // one cell per element and dot
	KindMap              // one cell per field
	KindCounter          // one cell per actor, holding its running totals
	KindFlag             // enable wins over a concurrent disable
	KindInverseFlag      // disable wins over a concurrent enable
	KindLog              // one cell per entry
	KindBounded          // one cell per actor, holding its rights
)

// Valid reports whether k is one of these.
func (k Kind) Valid() bool { return k >= KindRegister && k <= KindBounded }

// String is the name of the type, as users see it.
func (k Kind) String() string {
	names := [...]string{"", "register", "set", "map", "counter", "flag", "inverse flag", "log", "bounded counter"}
	if k.Valid() {
		return names[k]
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Flags of a cell.
type Flags uint8

// FlagEphemeral: the cell is visible only while its writing incarnation lives.
const FlagEphemeral Flags = 1 << 0

// Limits of what one cell or op may hold.
const (
	MaxKeyBytes   = 1 << 10 // of a key, and of a path
	MaxValueBytes = 1 << 20 // of a value; keyspaces set a lower limit of their own
	MaxRemoves    = 4096    // dots that one op may remove
)

// A Cell is one written value, the unit of replication. Cells are immutable
// once they are part of a replica: they are shared by readers, snapshots and
// queues without copying, and Value must not be modified.
type Cell struct {
	// What every read needs comes first, in as few cache lines as possible.
	Key     string // 1..MaxKeyBytes opaque bytes
	Value   []byte
	Dot     Dot   // the write that made the cell
	HLC     HLC   // of that write; orders cells for display
	Expires int64 // ms since the Unix epoch at which the cell is hidden; 0 = never
	Kind    Kind
	Flags   Flags
	Path    string // empty for a register; element or field otherwise
}

// Ephemeral reports whether the cell is bound to the life of its writer.
func (c *Cell) Ephemeral() bool { return c.Flags&FlagEphemeral != 0 }

// Compare orders cells by (HLC, Inc, Seq): the highest is the one shown. Dots
// are unique, so two distinct cells are never equal and the winner does not
// depend on arrival order.
func (c *Cell) Compare(other *Cell) int {
	return cmp.Or(cmp.Compare(c.HLC, other.HLC), c.Dot.Compare(other.Dot))
}

// OwnerState is what a node knows of the incarnation that wrote a cell.
type OwnerState uint8

// The states of an owner. Only OwnerClosed is for ever.
const (
	OwnerAlive OwnerState = iota // alive, or suspected
	OwnerFailed
	OwnerClosed
)

// Visibility is whether a cell is shown, and if not, why.
type Visibility uint8

// The outcomes of Visible.
const (
	Shown Visibility = iota
	HiddenExpired
	HiddenOwnerFailed
	HiddenOwnerClosed
)

// Visible decides whether c is shown at nowMs (ms since the Unix epoch), given
// the state of its writer. Lifetimes are views: hiding a cell changes nothing
// in the replica.
func Visible(c *Cell, nowMs int64, owner OwnerState) Visibility {
	switch {
	case c.Expires != 0 && nowMs >= c.Expires:
		return HiddenExpired
	case c.Ephemeral() && owner == OwnerClosed:
		return HiddenOwnerClosed
	case c.Ephemeral() && owner == OwnerFailed:
		return HiddenOwnerFailed
	}
	return Shown
}
