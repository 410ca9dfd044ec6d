package host

import (
	"context"

	"github.com/meshkv/meshkv/consensus/replica"
)

// AwaitReplica waits until this server has a replica of a keyspace.
func (h *Host) AwaitReplica(ctx context.Context, name string) (r *replica.Replica, err error) {
	err = h.await(ctx, func() bool {
		e, ok := h.entries[name]
		if run := h.running[e.Keyspace.Group()]; ok && run != nil {
			r = run.replica
		}
		return r != nil
	})
	return r, err
}
