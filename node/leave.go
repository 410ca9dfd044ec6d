package node

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/gossip"
)

// JoinKeyspace makes this node hold a keyspace from now on, over restarts. It
// takes puts at once; reads go to a member until all has arrived.
func (n *Node) JoinKeyspace(ctx context.Context, name string) error {
	if err := checkUserKeyspace(name); err != nil {
		return err
	}
	if err := n.wanted.join(name); err != nil {
		return err
	}
	if !n.strongs.is(name) { // of which a copy comes, unless there is a replica
		if _, err := n.open(name); err != nil {
			return err
		}
	}
	n.announceAll()
	return n.register(ctx)
}

// leaveAfter is when a keyspace that takes no writes any more has told all peers
// of what it has: they are told of changes within a second.
const leaveAfter = 2 * time.Second

// LeaveKeyspace makes this node hold a keyspace no longer, over restarts, and
// drops its data here. Writes to it are refused from now on until a peer that
// holds it has all that this node has; with force it is dropped at once, and what
// nobody else has is lost. If ctx ends first, nothing has changed.
func (n *Node) LeaveKeyspace(ctx context.Context, name string, force bool) error {
	if err := checkUserKeyspace(name); err != nil {
		return err
	}
	h := n.held(name)
	if h != nil && !force {
		h.leaving.Store(true)
		if err := n.handOver(ctx, h); err != nil {
			h.leaving.Store(false)
			return err
		}
	}
	if err := n.wanted.leave(name); err != nil {
		if h != nil {
			h.leaving.Store(false)
		}
		return err
	}
	n.linkMu.Lock()
	var finish func(context.Context) error
	if h = n.held(name); h != nil {
		finish = n.release(time.Now(), h)
	}
	n.linkMu.Unlock()
	n.announceAll()
	if finish != nil { // whatever comes of the record: this node tells its peers itself
		err := finish(ctx)
		if err != nil {
			return err
		}
	}
	return n.register(ctx)
}

// handOver waits until a peer has all that the holding has.
func (n *Node) handOver(ctx context.Context, h *holding) error {
	done := h.ks.Stats().SessionsDone
	frozen := time.Now()
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	for {
		links := h.ks.Links()
		equal := len(links) > 0 && !slices.ContainsFunc(links, func(l gossip.LinkStats) bool { return !l.InSync || l.QueuedOps > 0 })
		if h.ks.Stats().SessionsDone > done || equal && time.Since(frozen) > leaveAfter {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%w: no member of keyspace %s is known to have all that this node has: wait, or leave by force and lose what nobody else has: %w",
				client.ErrUnavailable, h.id.Name, ctx.Err())
		}
	}
}
