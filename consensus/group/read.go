package group

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

const (
	// readers is how many reads may wait for the next round; more wait for a place.
	readers = 1024
	// confirmTimeout bounds a round.
	confirmTimeout = time.Second
)

// ReadIndex returns when the FSM here holds everything that was committed before
// the call, at the leader, so that a read of it is linearizable; the index is what
// it holds at least. Reads that wait share a round. The error matches ErrNotLeader,
// ErrOverloaded or ErrClosed, or is that of ctx; a read has no effect, so it may
// always be tried again.
//
// A round (Raft, Ongaro 2014, §6.4): after an entry of this term was committed, it
// takes the commit index, and then asks the other voters for their terms. If a
// majority, this replica included, has no higher one, no later leader had
// committed anything when the round began: its votes would overlap with that
// majority. The question is a heartbeat, sent after the round began; whoever has
// a higher term refuses it.
//
// raft.VerifyLeader is not enough. It counts answers that arrive after the call,
// also those to heartbeats sent before it:
//
//	A leads and sends a heartbeat to B; B's answer is slow
//	B is elected by B and C (a transfer needs no timeout) and commits x=2
//	a client asks A for x; A calls VerifyLeader
//	B's answer from the old term arrives: A and B are two of three, A serves x=1
func (g *Group) ReadIndex(ctx context.Context) (uint64, error) {
	r := &read{done: make(chan struct{})}
	select {
	case g.reads.queue <- r:
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	case <-g.ctx.Done():
		return 0, notApplied(ErrClosed)
	}
	select {
	case <-r.done:
		return r.index, r.err
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	case <-g.ctx.Done():
		return 0, notApplied(ErrClosed)
	}
}

// A read waits for a round; the other fields are final when done is closed.
type read struct {
	index uint64
	err   error
	done  chan struct{}
}

// reader is the goroutine that makes the rounds, one after the other.
type reader struct {
	g        *Group
	queue    chan *read
	confirms atomic.Uint64

	settled atomic.Uint64     // the term of which an entry is known to be committed
	askers  map[Server]*asker // one for each other voter
	turn    int               // who is asked first
}

func newReader(g *Group) *reader {
	return &reader{g: g, queue: make(chan *read, readers), askers: make(map[Server]*asker)}
}

func (r *reader) run() {
	var batch []*read
	for {
		select {
		case <-r.g.ctx.Done():
			return // whoever waits sees it too
		case first := <-r.queue:
			batch = append(batch[:0], first)
		}
		for len(batch) < readers && len(r.queue) > 0 {
			batch = append(batch, <-r.queue)
		}
		index, err := r.round()
		for _, b := range batch {
			b.index, b.err = index, err
			close(b.done)
		}
	}
}

// round is what ReadIndex describes.
func (r *reader) round() (uint64, error) {
	ctx, cancel := context.WithTimeoutCause(r.g.ctx, confirmTimeout, fmt.Errorf("no majority answered: %w", r.g.notLeader()))
	defer cancel()
	term, ok := r.g.leads()
	if !ok {
		return 0, r.g.notLeader()
	}
	if r.settled.Load() != term {
		// The commit index of a new leader may lag behind that of the last one.
		err := r.g.submit(ctx, 0, func(timeout time.Duration) raft.Future { return r.g.raft.Barrier(timeout) })
		if errors.Is(err, ErrUnknownOutcome) {
			err = r.g.notLeader() // an empty entry has no effect
		}
		if err != nil {
			return 0, err
		}
		if now, ok := r.g.leads(); !ok || now != term {
			return 0, r.g.notLeader()
		}
		r.settled.Store(term)
	}
	index := r.g.commitIndex()
	if err := r.confirm(ctx, term); err != nil {
		return 0, err
	}
	if now, ok := r.g.leads(); !ok || now != term {
		return 0, r.g.notLeader()
	}
	r.confirms.Add(1)
	return index, r.await(ctx, index)
}

// await returns when all commands up to index are applied. Entries of Raft's own
// never reach the FSM.
func (r *reader) await(ctx context.Context, index uint64) error {
	for ; index > r.g.applier.applied(); index-- {
		var log raft.Log
		err := r.g.cfg.Log.GetLog(index, &log)
		if errors.Is(err, raft.ErrLogNotFound) {
			return nil // only what was applied is compacted
		}
		if err != nil {
			return fmt.Errorf("read entry %d: %w", index, err)
		}
		if log.Type == raft.LogCommand || log.Type == raft.LogConfiguration {
			return r.g.applier.wait(ctx, index)
		}
	}
	return nil
}

// confirm returns when a majority of the voters has been found to have no higher
// term than term, after the call.
func (r *reader) confirm(ctx context.Context, term uint64) error {
	voters, err := r.g.voters()
	if err != nil {
		return err
	}
	need := len(voters)/2 + 1
	q := question{term: term, answers: make(chan answer, len(voters))}
	askers := r.askersOf(voters)
	if len(askers) < len(voters) {
		need-- // this replica is a voter
	}
	// As many as are needed first, in turns, those that answered last time before others: a process that
	// is woken costs more than its answer. All, if one of them is slow.
	first := min(need, len(askers))
	for _, a := range askers[:first] {
		a.ask(q)
	}
	slow := time.NewTimer(slowVoter)
	defer slow.Stop()
	for need > 0 {
		select {
		case a := <-q.answers:
			switch a {
			case follows:
				need--
			case higher:
				return r.g.notLeader()
			}
		case <-slow.C:
			for _, a := range askers[first:] {
				a.ask(q)
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// slowVoter is how long a round waits for those that it asked before it asks the others.
const slowVoter = 5 * time.Millisecond

// askersOf are those of the voters but this replica, in the order in which they are to be asked.
func (r *reader) askersOf(voters []Server) []*asker {
	asked := make(map[Server]bool, len(voters))
	all := make([]*asker, 0, len(voters))
	r.turn++
	for i := range voters {
		v := voters[(r.turn+i)%len(voters)]
		if v.ID == r.g.cfg.ID {
			continue
		}
		asked[v] = true
		a := r.askers[v]
		if a == nil {
			a = newAsker(r.g, v)
			r.askers[v] = a
		}
		all = append(all, a)
	}
	for v, a := range r.askers {
		if !asked[v] {
			a.cancel()
			delete(r.askers, v)
		}
	}
	slices.SortStableFunc(all, func(a, b *asker) int { return int(a.failed.Load()) - int(b.failed.Load()) })
	return all
}

// ReadIndexFor is ReadIndex for another voter that asks, and that had the given term after the reads began
// for which it asks. If there are three voters at most, the two of us are a majority without a later term,
// and nobody else needs to be asked; otherwise it is ReadIndex.
func (g *Group) ReadIndexFor(ctx context.Context, voter string, term uint64) (uint64, error) {
	now, leads := g.leads()
	if !leads {
		return 0, g.notLeader()
	}
	voters, err := g.voters()
	if err != nil {
		return 0, err
	}
	two := 0
	for _, v := range voters {
		if v.ID == voter || v.ID == g.cfg.ID {
			two++
		}
	}
	if now != term || g.reads.settled.Load() != term || two != 2 || voter == g.cfg.ID || len(voters) > 3 {
		return g.ReadIndex(ctx)
	}
	index := g.commitIndex()
	if now, leads = g.leads(); !leads || now != term {
		return 0, g.notLeader()
	}
	return index, g.reads.await(ctx, index)
}

// Hasten tells another member at once, if this replica leads, that entries up to index are committed:
// somebody there waits for it. Otherwise it learns a little later, with the next entry.
func (g *Group) Hasten(member string, index uint64) {
	if term, leads := g.leads(); leads {
		g.progress.waits(raft.ServerID(member), term, index)
	}
}

// An answer to the question for a voter's term.
type answer int

const (
	follows answer = iota // it is that of the question
	higher
)

// A question is one round's; answers has room for those of all voters. A voter
// that cannot be reached gives none.
type question struct {
	term    uint64
	answers chan answer
}

// asker asks one voter, one question after the other. One that is slow is asked
// the newest alone.
type asker struct {
	g      *Group
	to     Server
	mail   chan question // of capacity 1
	failed atomic.Int32  // 1: the last question was not answered
	ctx    context.Context
	cancel context.CancelFunc
}

func newAsker(g *Group, to Server) *asker {
	a := &asker{g: g, to: to, mail: make(chan question, 1)}
	a.ctx, a.cancel = context.WithCancel(g.ctx)
	g.work.Go(a.run) // within the reader, which work counts too
	return a
}

// ask is called by the reader alone.
func (a *asker) ask(q question) {
	select {
	case <-a.mail: // of a round that is over
	default:
	}
	a.mail <- q
}

func (a *asker) run() {
	defer a.cancel()
	for {
		select {
		case <-a.ctx.Done():
			return
		case q := <-a.mail:
			a.heartbeat(q)
		}
	}
}

func (a *asker) heartbeat(q question) {
	req := a.g.appendRequest(q.term)
	var resp raft.AppendEntriesResponse
	if err := a.g.transport.ask(raft.Server{ID: raft.ServerID(a.to.ID), Address: raft.ServerAddress(a.to.Addr)}, &req, &resp); err != nil {
		a.failed.Store(1)
		a.g.cfg.Logger.Debug("voter was not asked for its term", "peer", a.to.ID, "err", err)
		return
	}
	a.failed.Store(0)
	switch {
	case resp.Term > q.term:
		q.answers <- higher
	case resp.Success:
		q.answers <- follows
	}
}
