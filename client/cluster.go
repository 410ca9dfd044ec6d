package client

import (
	"context"
	"time"
)

// A Cluster is what an embedded node and a remote client have in common. Safe
// for concurrent use.
type Cluster interface {
	// Keyspace opens an eventual keyspace, which comes into being at its first
	// use. ErrBadRequest if the name is not [a-z0-9][a-z0-9._-]{0,62}.
	Keyspace(ctx context.Context, name string) (Keyspace, error)
	// Keyspaces describes all keyspaces that the node holds, by name.
	Keyspaces(ctx context.Context) ([]KeyspaceInfo, error)
	// Members are the known nodes, by name.
	Members(ctx context.Context) ([]Member, error)
	// Status describes the serving node.
	Status(ctx context.Context) (Status, error)
	// Leave makes the serving node leave the cluster for good and stop.
	Leave(ctx context.Context) error
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

// Status describes one node.
type Status struct {
	Name      string
	Inc       string // incarnation, hex
	Version   string // of the program
	MeshAddr  string
	APIAddr   string
	Uptime    time.Duration
	Ready     bool
	NotReady  []string // what readiness waits for
	Members   map[MemberStatus]int
	Links     []LinkStatus // by peer
	Keyspaces []KeyspaceStatus
	Storage   StorageStatus
	Drops     map[string]uint64 // dropped items by reason
	Warnings  []string          // what an operator should look at
}

// LinkStatus is the stream to one peer.
type LinkStatus struct {
	Peer      string
	Addr      string
	RTT       time.Duration
	SentBytes uint64
	RecvBytes uint64
	Queued    int // ops waiting to be sent
}

// KeyspaceStatus is one keyspace at one node.
type KeyspaceStatus struct {
	Name            string
	Keys            int
	Cells           int
	Pending         int // pending deaths, the size of D
	ClockEntries    int // incarnations in the clock, the size of C
	Watchers        int
	OpsIssued       uint64
	OpsApplied      uint64
	OpsDuplicate    uint64
	SessionsDone    uint64
	SessionsAborted uint64
	Diverged        bool // a peer's summary differs from ours
}

// StorageStatus is the state of the disk store.
type StorageStatus struct {
	Path     string        // empty: memory only
	Bytes    int64         // on disk
	Lag      time.Duration // age of the oldest change that is not on disk
	LogBytes int64         // of the op log since the last checkpoint
	Commits  uint64
	Backlog  int64 // bytes that are not on disk yet
}
