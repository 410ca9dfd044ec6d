package node

import (
	"context"
	"fmt"
	"time"

	"github.com/meshkv/meshkv/client"
)

// maxAllowDrops bounds for how long a fuse stays open: it is a safeguard.
const maxAllowDrops = time.Hour

// AllowDrops lets sessions drop any number of values of a keyspace at this node
// for the time given: the verdict of an operator who has seen that the fuse holds
// one (ADR 0004), and finds it right.
func (n *Node) AllowDrops(_ context.Context, name string, d time.Duration) error {
	if d <= 0 || d > maxAllowDrops {
		return fmt.Errorf("%w: drops are allowed for up to %s, not for %s", client.ErrBadRequest, maxAllowDrops, d)
	}
	if err := checkKeyspaceName(name); err != nil {
		return err
	}
	h := n.held(name)
	if h == nil {
		return fmt.Errorf("keyspace %s is not held here: %w", name, client.ErrNotFound)
	}
	n.log.Warn("reconciliation may drop any number of values", "keyspace", name, "for", d)
	h.ks.OpenFuse(time.Now(), d)
	return nil
}
