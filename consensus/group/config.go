package group

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"github.com/meshkv/meshkv/consensus/logstore"
	"github.com/meshkv/meshkv/consensus/raftnet"
)

// A Server is a replica of a group.
type Server struct {
	ID   string // of the replica, for ever: one that lost its disk gets another
	Addr string // where its node accepts streams
}

// Config of a Group. The fields up to FSM are required.
type Config struct {
	// ID of this replica.
	ID string
	// Dir holds the snapshots; it is made if need be. No other group may use it.
	Dir string
	// Log keeps the log and the votes. It must not be closed before the Group.
	Log logstore.Log
	// Transport leads to the other replicas of the group. The Group closes it.
	Transport *raftnet.Member
	FSM       FSM

	// Heartbeats carry the heartbeats of the group, if they can. The Group closes them.
	// Default: each travels alone.
	Heartbeats Heartbeats
	// Bootstrap are the voters of a group that begins. It must be the same, by a
	// decision that was made once, at all that are given any, and is ignored where
	// the group has begun already. Without it a replica waits to be added.
	Bootstrap []Server

	// Election is how long followers wait for a sign of the leader, at least; at
	// most it is three times that, and nobody votes for another who has not waited
	// as long. Default 500 ms: a new leader about 1 s after the last one's death.
	Election time.Duration
	// MaxInFlight bounds the bytes of commands that wait for their outcome; beyond
	// it Propose refuses with ErrOverloaded. Default 32 MiB.
	MaxInFlight int64
	// SnapshotThreshold is after how many entries a snapshot is taken, and
	// TrailingLogs how many entries stay behind it, for followers that lag.
	// Default 8,192 and 10,240.
	SnapshotThreshold, TrailingLogs uint64
	// SnapshotInterval is how often that is looked at; at most twice as long.
	// Default 30 s.
	SnapshotInterval time.Duration
	// Logger receives what Raft does at Debug, and its errors at Warn. Default:
	// discard.
	Logger *slog.Logger
}

const (
	defaultElection          = 500 * time.Millisecond
	defaultMaxInFlight       = 32 << 20
	defaultSnapshotThreshold = 8192
	defaultTrailingLogs      = 10240
	defaultSnapshotInterval  = 30 * time.Second

	// maxAppendEntries is how many entries go to the log, or to a follower, at
	// once. Raft makes room for all of them after each commitTimeout, for each
	// follower: 512 cost idle groups twice as much as 128.
	maxAppendEntries = 128
	// commitTimeout bounds how late an idle follower learns of a lone commit, to
	// twice that, if it was not given notice; and how soon Raft sends anew what was on
	// its way when a connection broke, if no other entry follows. Raft wakes after each,
	// for each follower: at 200 ms that was a fifth of what idle groups wake for.
	commitTimeout = 500 * time.Millisecond
	// reachTimeout bounds how long an append waits for its follower to be reached.
	reachTimeout = 30 * time.Second
	// enqueueTimeout bounds how long a command waits for a place in Raft's queue.
	enqueueTimeout = time.Second

	keptSnapshots = 2
)

// withDefaults is c with its defaults; the error says what is missing.
func (c Config) withDefaults() (Config, error) {
	if c.ID == "" || c.Dir == "" || c.Log == nil || c.Transport == nil || c.FSM == nil {
		return c, errors.New("group: ID, Dir, Log, Transport and FSM are required")
	}
	return c.defaults(), nil
}

func (c Config) defaults() Config {
	if c.Election == 0 {
		c.Election = defaultElection
	}
	if c.MaxInFlight == 0 {
		c.MaxInFlight = defaultMaxInFlight
	}
	if c.SnapshotThreshold == 0 {
		c.SnapshotThreshold = defaultSnapshotThreshold
	}
	if c.TrailingLogs == 0 {
		c.TrailingLogs = defaultTrailingLogs
	}
	if c.SnapshotInterval == 0 {
		c.SnapshotInterval = defaultSnapshotInterval
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// raft is Raft's own configuration. Pre-votes are on by default there: a replica
// that comes back from a partition disturbs nobody.
func (c Config) raft(logger hclog.Logger) *raft.Config {
	r := raft.DefaultConfig()
	r.LocalID = raft.ServerID(c.ID)
	r.HeartbeatTimeout = c.Election
	r.ElectionTimeout = c.Election
	// A leader that hears of no majority steps down about when another can be elected. No read relies on it.
	r.LeaderLeaseTimeout = c.Election
	r.CommitTimeout = commitTimeout
	r.MaxAppendEntries = maxAppendEntries
	r.BatchApplyCh = true
	r.SnapshotThreshold = c.SnapshotThreshold
	r.SnapshotInterval = c.SnapshotInterval
	r.TrailingLogs = c.TrailingLogs
	r.ShutdownOnRemove = false // whoever removed it closes it
	r.NoLegacyTelemetry = true
	r.Logger = logger
	return r
}

// bootstrap begins the group in the log, unless it has begun.
func (c Config) bootstrap(r *raft.Config, snapshots raft.SnapshotStore, transport raft.Transport) error {
	if len(c.Bootstrap) == 0 {
		return nil
	}
	begun, err := raft.HasExistingState(c.Log, c.Log, snapshots)
	if err != nil || begun {
		return err
	}
	var voters raft.Configuration
	for _, s := range c.Bootstrap {
		voters.Servers = append(voters.Servers, raft.Server{ID: raft.ServerID(s.ID), Address: raft.ServerAddress(s.Addr)})
	}
	return raft.BootstrapCluster(r, c.Log, c.Log, snapshots, transport, voters)
}

// logSink passes Raft's log on.
type logSink struct{ log *slog.Logger }

func newLogger(log *slog.Logger) hclog.Logger {
	l := hclog.NewInterceptLogger(&hclog.LoggerOptions{Output: io.Discard, Level: hclog.Off})
	l.RegisterSink(logSink{log})
	return l
}

// unreachable reports whether a message of Raft's only says that another member cannot be reached,
// which it says at every attempt. Who is gone, membership tells.
func unreachable(msg string) bool {
	return slices.ContainsFunc([]string{
		"failed to heartbeat to", "failed to appendEntries to", "failed to pipeline appendEntries", "failed to make requestVote RPC",
		"failed to make requestPreVote RPC", "failed to send snapshot to", "failed to make timeoutNow RPC",
	}, func(prefix string) bool { return strings.HasPrefix(msg, prefix) })
}

// Accept implements hclog.SinkAdapter.
func (s logSink) Accept(_ string, level hclog.Level, msg string, args ...any) {
	if level == hclog.Trace {
		return
	}
	for i, a := range args {
		if f, ok := a.(hclog.Format); ok {
			args[i] = fmt.Sprintf(fmt.Sprint(f[0]), f[1:]...)
		}
	}
	if level >= hclog.Error && !unreachable(msg) {
		s.log.Warn(msg, args...)
		return
	}
	s.log.Debug(msg, args...)
}
