package node

import (
	"context"
	"fmt"

	"github.com/meshkv/meshkv/client"
)

// History implements client.KeyspaceOperator. A keyspace that this node does not hold is
// asked of a member.
func (n *Node) History(ctx context.Context, name, key string, o *client.HistoryOptions) (client.History, error) {
	return n.history(ctx, name, key, o, false)
}

// History is the node's, but forwards nothing to others.
func (b backend) History(ctx context.Context, name, key string, o *client.HistoryOptions) (client.History, error) {
	return b.history(ctx, name, key, o, b.member)
}

func (n *Node) history(ctx context.Context, name, key string, o *client.HistoryOptions, member bool) (h client.History, err error) {
	base, eventual := eventualName(name)
	if err := checkKeyspaceName(base); err != nil {
		return h, err
	}
	if n.strongs.is(base) && !eventual {
		return h, fmt.Errorf("%w: %s is strong; its revisions tell the history: read the key at an earlier one", client.ErrNeedsEventual, name)
	}
	if cur := n.held(base); cur != nil {
		return cur.ks.History(ctx, key, o)
	}
	switch {
	case n.wanted.wants(base):
		return h, fmt.Errorf("keyspace %s: %w", name, client.ErrNotFound)
	case member, o != nil && o.Local:
		return h, errNotHeld
	}
	err = n.forward.try(ctx, base, forwardLong, func(ctx context.Context, fc *forwarded) (err error) {
		h, err = fc.client.History(ctx, base, key, o)
		return err
	})
	return h, err
}
