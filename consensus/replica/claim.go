package replica

import (
	"context"

	"github.com/meshkv/meshkv/consensus/machine"
)

// AwaitClaim waits until a claim to a lock holds it, as this replica sees it, which has
// applied the command at index by then. It fails with machine.ErrLeaseNotFound if the claim
// has ended, with its session or by an Abort, and otherwise with the cause of ctx. One that is
// granted wakes its own waiter alone.
func (r *Replica) AwaitClaim(ctx context.Context, index uint64, name string, id machine.ClaimID) (machine.Holder, error) {
	if _, err := r.ViewAt(ctx, index); err != nil {
		return machine.Holder{}, err
	}
	for {
		view, changed, forget := r.lockChange(lockKey{name, id})
		h, ok := view.Claim(name, id)
		if !ok || h.Token != 0 {
			forget()
			if !ok {
				return machine.Holder{}, machine.ErrLeaseNotFound
			}
			return h, nil
		}
		select {
		case <-changed:
		case <-r.state.done:
			forget()
			return machine.Holder{}, r.state.over()
		case <-ctx.Done():
			forget()
			return machine.Holder{}, context.Cause(ctx)
		}
	}
}

// LockChange is the state, and a channel that is closed when something has happened to
// the lock since. forget must be called.
func (r *Replica) LockChange(name string) (view *machine.View, changed <-chan struct{}, forget func()) {
	return r.lockChange(lockKey{name: name})
}

func (r *Replica) lockChange(key lockKey) (*machine.View, <-chan struct{}, func()) {
	s := r.state
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.hub.lockChange(key)
	return s.machine.View(), c, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.hub.forget(key, c)
	}
}
