package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/crdt"
	"github.com/meshkv/meshkv/gossip/mesh"
	"github.com/meshkv/meshkv/keyspace"
)

// ForceLeave gives up a member that failed: it counts as having left, its
// incarnations are closed for ever, and what it bound to itself is collected. If
// that process lives after all it comes back under a new incarnation, with all
// that it has. A member that left already is no error.
func (n *Node) ForceLeave(ctx context.Context, name string) error {
	err := n.mesh.ForceLeave(ctx, name)
	switch {
	case errors.Is(err, mesh.ErrAlive):
		return fmt.Errorf("%w: %w: stop it, or wait until it counts as failed", client.ErrBadRequest, err)
	case errors.Is(err, mesh.ErrUnknownMember):
		return fmt.Errorf("%w: %w", client.ErrNotFound, err)
	case err != nil:
		return fmt.Errorf("%w: %w", client.ErrUnavailable, err)
	}
	// The mesh tells of it, too; what the caller reads next should show it already.
	now := time.Now()
	for _, inc := range n.owners.Named(name) {
		if n.owners.Get(inc).State != crdt.OwnerClosed {
			n.owners.Set(inc, keyspace.Owner{Name: name, State: crdt.OwnerClosed})
			n.close(now, inc, name)
		}
	}
	return nil
}
