package client

import "time"

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
	Links     []LinkStatus     // by peer
	Keyspaces []KeyspaceStatus // eventual ones, and copies of strong ones
	Strong    []StrongStatus   // what is here of strong keyspaces, by name
	Storage   StorageStatus
	Clock     ClockStatus
	Drops     map[string]uint64 // dropped items by reason, those of keyspaces aside
	Warnings  []string          // what an operator should look at
}

// LinkStatus is the stream to one peer. What waits on it is over all keyspaces.
type LinkStatus struct {
	Peer        string
	Addr        string
	RTT         time.Duration
	SentBytes   uint64
	RecvBytes   uint64
	Queued      int // ops waiting to be sent
	QueuedBytes int
	// Roles is the number of keyspaces for which the peer is a neighbour in a
	// full mesh (direct) or in a sparse overlay (tree), or none (quiet).
	Roles    map[string]int
	InSync   int // keyspaces whose last summary was equal
	Behind   int // keyspaces whose queue was dropped and that wait for a session
	Sessions int // running
}

// KeyspaceStatus is one keyspace at one node.
type KeyspaceStatus struct {
	Name         string
	Keys         int
	Cells        int
	Bytes        int64  // of keys and values
	Pending      int    // pending deaths, the size of D
	ClockEntries int    // incarnations in the clock, the size of C
	ClockClosed  int    // of these, incarnations that ended
	ClockSealed  int    // of these, those on which all members agree
	Rejected     uint64 // cells given up after a long absence, since the keyspace was opened
	Watchers     int

	OpsIssued    uint64
	OpsApplied   uint64
	OpsDuplicate uint64
	QueuedOps    int // waiting to be sent, over all links
	QueuedBytes  int
	RecentBytes  int // of the recent ops that peers may ask for again

	Neighbours  int // links over which ops go out
	LinksBehind int // links whose queue was dropped and that wait for a session
	Unequal     int // peers whose last two summaries or more were unequal

	SessionsRunning  int
	SessionsDone     uint64
	SessionsAborted  uint64
	SessionSentBytes uint64
	SessionRecvBytes uint64
	FuseHeld         int // cells that a session would drop, waiting for a second verdict
	Bootstrap        BootstrapStatus
	Scrub            ScrubStatus

	Lag     LagStatus      // of all that arrived
	Origins []OriginStatus // the highest lag first, at most 20

	Diverged    bool // there are Divergences
	Divergences []DivergenceStatus
	Drops       map[string]uint64 // by reason

	Refused map[string]uint64 // writes of clients that the settings did not allow, by reason
	Invalid uint64            // values from elsewhere that they would not have allowed
}

// StrongStatus is what one node has of a strong keyspace: how old its local reads and
// watches may be.
type StrongStatus struct {
	Name string
	// Role of the replica here: leader, follower or candidate; or copy, which is no
	// replica and is kept up to date by gossip.
	Role     string
	Leader   string // node that leads, as far as a replica knows
	Revision uint64 // reached here
	// Behind is how many entries, of a copy changes, are known to be missing here.
	Behind uint64
	// Age is for how long something may be missing of which this node does not know: since
	// the leader was heard, or since the moment whose state a copy has. Negative: not known yet.
	Age time.Duration
}

// BootstrapStatus is how far an empty keyspace has been filled.
type BootstrapStatus struct {
	Running bool
	Peer    string // from which
	Done    int    // cells
	Total   int    // cells at the peer when it began; 0: not known yet
}

// ScrubStatus is what comparing the tries with the cells has found.
type ScrubStatus struct {
	Runs        uint64
	Differences uint64 // cells and sums that were wrong, and were repaired
}

// LagStatus describes how old writes were when they arrived, by the clocks of
// their writer and of this node.
type LagStatus struct {
	Count    uint64        // in the last five minutes or so, as are the quantiles
	P50, P99 time.Duration // upper bounds, at most half an octave too high; 0: no count
}

// OriginStatus is the lag of what one node wrote.
type OriginStatus struct {
	Name  string    // of the node, or its incarnation in hex where that is not known
	Heard time.Time // when its newest write or beacon arrived
	LagStatus
}

// DivergenceStatus is an alarm: a peer holds something else, and that does not
// go by itself.
type DivergenceStatus struct {
	Peer   string
	Since  time.Time
	Reason string
	Keys   []string // a sample of those that the last session found different
}

// ClockStatus compares this node's clock with those of its neighbours.
type ClockStatus struct {
	Offset     time.Duration // of the median neighbour from ours
	Neighbours int           // compared
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
