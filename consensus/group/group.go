package group

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// A Group is one replica of a Raft group. Safe for concurrent use.
type Group struct {
	cfg       Config
	raft      *raft.Raft
	log       *aheadLog
	transport *transport
	progress  *progress
	applier   *applier
	reads     *reader

	leadership leadership

	ctx    context.Context // ends when Raft has
	cancel context.CancelFunc
	work   sync.WaitGroup // the reader with its askers, the teller, and watchLeadership

	mu       sync.Mutex // protects the fields below
	closing  bool
	inFlight int64         // bytes
	pending  int           // proposals and barriers
	idle     chan struct{} // closed when closing and pending is 0
	done     chan struct{} // closed when Close has ended
	err      error         // of Close
}

// Open starts a replica. It takes part in elections at once. Close must be called.
func Open(c Config) (*Group, error) {
	c, err := c.withDefaults()
	if err != nil {
		return nil, err
	}
	logger := newLogger(c.Logger)
	g := &Group{cfg: c, progress: newProgress(), idle: make(chan struct{}), done: make(chan struct{})}
	snapshots, err := raft.NewFileSnapshotStoreWithLogger(c.Dir, keptSnapshots, logger)
	if err != nil {
		if c.Heartbeats != nil {
			c.Heartbeats.Close()
		}
		return nil, fmt.Errorf("open snapshots: %w", errors.Join(err, c.Transport.Close()))
	}
	// Raft writes to its log before it is known here.
	var running atomic.Pointer[raft.Raft]
	g.log = newAheadLog(c.Log, func() bool { r := running.Load(); return r != nil && r.State() == raft.Leader })
	g.applier = newApplier(c.FSM, snapshots, g.log.await)
	g.transport = newTransport(c.Transport, g.progress, g.log.limit, c.Heartbeats)
	rc := c.raft(logger)
	notify := make(chan bool)
	rc.NotifyCh = notify
	if err := c.bootstrap(rc, snapshots, g.transport); err != nil {
		return nil, fmt.Errorf("bootstrap group: %w", errors.Join(err, g.transport.Close()))
	}
	if g.raft, err = raft.NewRaft(rc, g.applier, g.log, g.log, snapshots, g.transport); err != nil {
		return nil, fmt.Errorf("start raft: %w", errors.Join(err, g.transport.Close()))
	}
	running.Store(g.raft)
	if c.Heartbeats != nil {
		c.Heartbeats.Handle(g.answerBeat)
	}
	g.ctx, g.cancel = context.WithCancel(context.Background()) // until Close
	g.leadership.changed = make(chan struct{})
	g.work.Go(func() { g.watchLeadership(notify) })
	g.work.Go((&teller{g: g}).run)
	g.reads = newReader(g)
	g.work.Go(g.reads.run)
	return g, nil
}

// Done is closed when the replica has ended, by Close.
func (g *Group) Done() <-chan struct{} { return g.ctx.Done() }

// begin counts a call that Raft will answer, with n bytes in flight.
func (g *Group) begin(n int) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.closing:
		return notApplied(ErrClosed)
	case g.inFlight > 0 && g.inFlight+int64(n) > g.cfg.MaxInFlight:
		return notApplied(ErrOverloaded)
	}
	g.inFlight += int64(n)
	g.pending++
	return nil
}

func (g *Group) end(n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inFlight -= int64(n)
	if g.pending--; g.closing && g.pending == 0 {
		close(g.idle)
	}
}

// Close ends the replica. It waits for the outcome of what is in flight and hands
// its leadership, if it has it, to another voter, both until ctx is done; then it
// stops, which waits for no other replica, but for the log and the FSM. If commands
// were in flight at that moment, their callers get ErrUnknownOutcome. It may be
// called twice.
func (g *Group) Close(ctx context.Context) error {
	g.mu.Lock()
	if g.closing {
		g.mu.Unlock()
		<-g.done
		return g.err
	}
	g.closing = true
	if g.pending == 0 {
		close(g.idle)
	}
	g.mu.Unlock()
	defer close(g.done)

	// Raft answers everything as long as it runs, but may forget what is in its
	// queue when it is shut down: so the queue comes first.
	select {
	case <-g.idle:
	case <-ctx.Done():
	}
	g.handOver(ctx)
	stopped := g.raft.Shutdown()
	// Raft closes its transport when nothing uses it any more; a snapshot that stops
	// coming in has no deadline, and one that goes out hours if it is large.
	err := g.transport.Close() // and the streams with it
	g.log.close()
	g.err = errors.Join(err, stopped.Error())
	g.log.rest()
	g.cancel()
	g.work.Wait()
	return g.err
}

// handOver gives the leadership to another voter, if there is one that can take
// it, or until ctx is done. Raft gives up after two election timeouts.
func (g *Group) handOver(ctx context.Context) {
	if ctx.Err() != nil || g.raft.State() != raft.Leader {
		return
	}
	if voters, err := g.voters(); err != nil || len(voters) < 2 {
		return
	}
	outcome := make(chan error, 1)
	go func() { outcome <- g.raft.LeadershipTransfer().Error() }() // until Raft has given up, or ends
	var err error
	select {
	case err = <-outcome:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	if err != nil {
		g.cfg.Logger.Debug("leadership was not handed over", "err", err)
	}
}

// voters are those of the latest configuration, committed or not, as Raft itself
// counts them.
func (g *Group) voters() ([]Server, error) {
	f := g.raft.GetConfiguration()
	if err := f.Error(); err != nil {
		return nil, err
	}
	var voters []Server
	for _, s := range f.Configuration().Servers {
		if s.Suffrage == raft.Voter {
			voters = append(voters, Server{ID: string(s.ID), Addr: string(s.Address)})
		}
	}
	return voters, nil
}

// replicatesTo reports whether the latest configuration has s.
func (g *Group) replicatesTo(s raft.Server) bool {
	return slices.ContainsFunc(g.raft.GetConfiguration().Configuration().Servers, func(o raft.Server) bool {
		return o.ID == s.ID && o.Address == s.Address
	})
}

// Status is what a replica knows of its group.
type Status struct {
	State    string // Follower, Candidate, Leader or Shutdown
	Term     uint64
	Leader   Server // zero if unknown
	Voters   []Server
	Last     uint64    // index of the last entry
	Commit   uint64    // index up to which entries are committed
	Applied  uint64    // index up to which commands are applied
	Waiting  uint64    // committed entries, Raft's own among them, that are to be applied
	Heard    time.Time // when the leader was heard last; zero if never, and for the leader itself
	InFlight int64     // bytes of commands that wait for their outcome
	Confirms uint64    // rounds that proved the leadership for reads
	Appends  uint64    // requests that were sent to followers, without heartbeats
	Beats    uint64    // heartbeats that were sent to followers, without those by Config.Heartbeats
}

// Status is the present one.
func (g *Group) Status() (Status, error) {
	voters, err := g.voters()
	if err != nil {
		return Status{}, err
	}
	addr, id := g.raft.LeaderWithID()
	g.mu.Lock()
	inFlight := g.inFlight
	g.mu.Unlock()
	var heard time.Time
	if g.raft.State() != raft.Leader {
		heard = g.raft.LastContact()
	}
	commit := g.commitIndex()
	return Status{
		State: g.raft.State().String(), Term: g.raft.CurrentTerm(), Leader: Server{ID: string(id), Addr: string(addr)}, Voters: voters,
		Last: g.raft.LastIndex(), Commit: commit, Applied: g.applier.applied(),
		Waiting: commit - min(commit, g.raft.AppliedIndex()), Heard: heard, InFlight: inFlight,
		Confirms: g.reads.confirms.Load(), Appends: g.progress.sent.Load(), Beats: g.progress.beats.Load(),
	}, nil
}

// commitIndex is up to where entries are committed, and on this disk.
func (g *Group) commitIndex() uint64 { return g.log.limit(g.raft.CommitIndex()) }

// Snapshot takes a snapshot now, beside those that are taken by threshold.
func (g *Group) Snapshot() error {
	err := g.raft.Snapshot().Error()
	if errors.Is(err, raft.ErrNothingNewToSnapshot) {
		return nil
	}
	return err
}
