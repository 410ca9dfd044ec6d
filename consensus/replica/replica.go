package replica

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/meshkv/meshkv/consensus/calls"
	"github.com/meshkv/meshkv/consensus/group"
	"github.com/meshkv/meshkv/consensus/machine"
)

// A Caller carries calls to the replicas of the same group on other nodes; see calls.Client.
type Caller interface {
	Call(ctx context.Context, node, group string, kind calls.Kind, body []byte) ([]byte, error)
}

// Config of a Replica. The fields up to Calls are required.
type Config struct {
	// Group is that of the Raft group, without FSM. The address of a server is its id: the
	// name of its node, a slash, and what tells its disks apart.
	Group group.Config
	// Name of the group, as Calls and Serve know it.
	Name string
	// Node is the name of this node.
	Node  string
	Calls Caller

	// Epoch is that of the group when it began: tokens and revisions are above those of earlier ones.
	Epoch uint64
	// Quota bounds data and history, in bytes. 0: as it is, machine.DefaultQuota at first.
	Quota uint64
	// HistoryChanges, HistoryBytes and HistoryAge bound what can be read and watched of the past: changes of
	// keys, their bytes as the quota counts them, and their age. What is older than one of them
	// is compacted, but the newest 1,000 changes stay whatever their bytes. Default 50,000, 4 MiB and one hour.
	HistoryChanges int
	HistoryBytes   uint64
	HistoryAge     time.Duration
	// Halted is called once if the replica cannot go on: the log has a command of a later version. It is
	// called while commands are applied, and must not wait for the replica.
	Halted func(error)
	// Logger: default discard.
	Logger *slog.Logger
}

const (
	defaultHistoryChanges = 50_000
	defaultHistoryBytes   = 4 << 20
	defaultHistoryAge     = time.Hour
)

func (c Config) withDefaults() (Config, error) {
	if c.Name == "" || c.Node == "" || c.Calls == nil {
		return c, errors.New("replica: Name, Node and Calls are required")
	}
	if c.HistoryChanges == 0 {
		c.HistoryChanges = defaultHistoryChanges
	}
	if c.HistoryBytes == 0 {
		c.HistoryBytes = defaultHistoryBytes
	}
	if c.HistoryAge == 0 {
		c.HistoryAge = defaultHistoryAge
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c, nil
}

// A Replica is one strong keyspace at one member of its group. Safe for concurrent use.
type Replica struct {
	cfg      Config
	log      *slog.Logger
	group    *group.Group
	state    *state
	batcher  *batcher
	requests *requests
	reads    *reader
	duties   *duties

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	work   sync.WaitGroup
	once   sync.Once
	err    error
}

// Open starts a replica. Close must be called.
func Open(c Config) (*Replica, error) {
	c, err := c.withDefaults()
	if err != nil {
		return nil, errors.Join(err, c.Group.Transport.Close())
	}
	r := &Replica{cfg: c, log: c.Logger, state: newState(c.Epoch), requests: newRequests()}
	r.duties = newDuties(r)
	r.state.effects, r.state.halted = r.duties.note, c.Halted
	c.Group.FSM = r.state
	if r.group, err = group.Open(c.Group); err != nil {
		return nil, fmt.Errorf("open replica of %s: %w", c.Name, err)
	}
	r.batcher = &batcher{group: r.group}
	r.reads = newReader(r)
	r.ctx, r.cancel = context.WithCancel(context.Background()) // until Close
	r.work.Go(r.reads.run)
	r.work.Go(r.duties.run)
	return r, nil
}

// Close ends the replica, as group.Close does. It may be called twice.
func (r *Replica) Close(ctx context.Context) error {
	r.once.Do(func() {
		done := make(chan struct{})
		go func() { // what is in flight comes first; group.Close ends what would last too long
			defer close(done)
			r.batcher.close()
		}()
		select {
		case <-done:
		case <-ctx.Done():
		}
		r.cancel()
		r.state.end(false)
		r.err = r.group.Close(ctx)
		r.work.Wait()
		<-done
	})
	return r.err
}

// Group is the Raft group, for its status and its configuration.
func (r *Replica) Group() *group.Group { return r.group }

// Serves reports whether this replica is a voter of the group, as far as it knows: one that was not added
// yet, or was removed, has no leader to ask. One that has just started knows nothing else.
func (r *Replica) Serves() bool {
	c := r.group.Configuration()
	m, ok := c.Member(r.cfg.Group.ID)
	return c.Index == 0 || ok && m.Voter
}

// View is what this replica holds. It may be behind the leader's.
func (r *Replica) View() *machine.View { return r.state.view() }

// ViewAt is what this replica holds once it has applied the command at an index.
func (r *Replica) ViewAt(ctx context.Context, index uint64) (*machine.View, error) {
	return r.state.viewAt(ctx, index)
}
