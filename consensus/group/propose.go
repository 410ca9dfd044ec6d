package group

import (
	"context"
	"errors"
	"time"

	"github.com/hashicorp/raft"
)

// Propose has cmd applied by all replicas, and returns what the FSM here returned
// for it. cmd must not be changed afterwards. The error matches ErrNotApplied (and
// ErrNotLeader, ErrOverloaded or ErrClosed) if cmd has no effect and never will
// have, and ErrUnknownOutcome if it may: so when ctx ends first. Commands that are
// proposed at the same time share their way to the disk and to the followers.
func (g *Group) Propose(ctx context.Context, cmd []byte) (any, error) {
	if err := ctx.Err(); err != nil {
		return nil, notApplied(err)
	}
	if g.raft.State() != raft.Leader {
		return nil, g.notLeader()
	}
	var f raft.ApplyFuture
	err := g.submit(ctx, len(cmd), func(timeout time.Duration) raft.Future {
		f = g.raft.Apply(cmd, timeout)
		return f
	})
	if err != nil {
		return nil, err
	}
	if err, ok := f.Response().(error); ok && errors.Is(err, errNotStored) {
		return nil, unknown(err) // the others may have it
	}
	return f.Response(), nil
}

// submit calls fn, which hands n bytes to Raft, and waits for its outcome or for
// the end of ctx.
func (g *Group) submit(ctx context.Context, n int, fn func(timeout time.Duration) raft.Future) error {
	if err := g.begin(n); err != nil {
		return err
	}
	answered, err := g.await(ctx, n, fn)
	if !answered {
		return unknown(err)
	}
	return g.outcome(err)
}

// await calls fn and returns what Raft answers, or why it waits no more. Who calls it
// has called begin.
func (g *Group) await(ctx context.Context, n int, fn func(timeout time.Duration) raft.Future) (answered bool, err error) {
	timeout := enqueueTimeout
	if deadline, ok := ctx.Deadline(); ok {
		timeout = max(time.Millisecond, min(timeout, time.Until(deadline))) // 0 would mean for ever
	}
	outcome := make(chan error, 1)
	go func() { // Close waits for it, by pending: Raft's futures know no context
		err := fn(timeout).Error()
		g.end(n)
		outcome <- err
	}()
	select {
	case err := <-outcome:
		return true, err
	case <-ctx.Done():
		return false, context.Cause(ctx)
	case <-g.ctx.Done():
		return false, ErrClosed
	}
}
