package client

import (
	"context"
	"time"
)

// A Cluster is what an embedded node and a remote client have in common. Safe
// for concurrent use.
type Cluster interface {
	// Keyspace opens a keyspace. One that is not strong is eventual, and comes into being
	// at its first use. ErrBadRequest if the name is not [a-z0-9][a-z0-9._-]{0,62}.
	Keyspace(ctx context.Context, name string) (Keyspace, error)
	// Strong opens a strong keyspace, which was created before: ErrNeedsStrong or
	// ErrNotFound, at its first use at the latest, where there is none of that name. The
	// same name gives the same handle; its default session ends with the Cluster.
	Strong(ctx context.Context, name string) (Strong, error)
	StrongAdmin
	// Keyspaces describes all keyspaces that the node holds, by name.
	Keyspaces(ctx context.Context) ([]KeyspaceInfo, error)
	// Members are the known nodes, by name.
	Members(ctx context.Context) ([]Member, error)
	// Status describes the serving node.
	Status(ctx context.Context) (Status, error)
	// Leave makes the serving node leave the cluster for good and stop.
	Leave(ctx context.Context) error
	// ForceLeave gives up a member that failed: it counts as having left, and what
	// it had bound to itself is gone for ever. A member that left is no error.
	// ErrBadRequest if it is alive, ErrNotFound if there is none of that name.
	ForceLeave(ctx context.Context, name string) error
}

// MemberStatus is a node's liveness as the serving node sees it.
type MemberStatus string

// The statuses of a member.
const (
	MemberAlive   MemberStatus = "alive"
	MemberSuspect MemberStatus = "suspect"
	MemberFailed  MemberStatus = "failed"
	MemberLeft    MemberStatus = "left"
)

// A Member is one node of the cluster.
type Member struct {
	Name    string
	Addr    string // host:port of the mesh port
	APIAddr string // host:port of the API; empty if it serves none or it is not known
	Status  MemberStatus
	Zone    string
	Roles   []string
	Inc     string        // incarnation, hex
	RTT     time.Duration // estimated; 0 if unknown
}
