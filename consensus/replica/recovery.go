package replica

import (
	"github.com/meshkv/meshkv/consensus/group"
)

// NewRecovery is the FSM for group.Recover of a replica, that begins the epoch. What it
// leaves behind gives no token and no revision again that a lost member may have given.
func NewRecovery(epoch uint64) group.FSM {
	return &recovery{newState(0), epoch}
}

type recovery struct {
	*state
	epoch uint64
}

// Snapshot implements group.FSM. It is taken once, when all there is was applied.
func (r *recovery) Snapshot() (group.Snapshot, error) {
	r.mu.Lock()
	r.machine.RaiseAfterLoss(r.epoch)
	r.mu.Unlock()
	return r.state.Snapshot()
}
