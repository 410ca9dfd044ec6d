package gossip

// A Role says what a link is for in one keyspace. Each side decides for itself;
// whatever comes over a link is taken, whatever its role here.
type Role uint8

const (
	// RoleDirect: every member is a neighbour. Ops that are minted here go out
	// at once, those of others are only announced.
	RoleDirect Role = iota
	// RoleTree: a neighbour in a sparse overlay. The ops of an origin go out at
	// once until the peer prunes that origin, and are announced from then on.
	RoleTree
	// RoleQuiet: no neighbour. Summaries and sessions only.
	RoleQuiet
)

// String is the role for people.
func (r Role) String() string {
	switch r {
	case RoleDirect:
		return "direct"
	case RoleTree:
		return "tree"
	default:
		return "quiet"
	}
}
