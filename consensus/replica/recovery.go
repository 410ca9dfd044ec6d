package replica

import (
	"github.com/meshkv/meshkv/consensus/group"
)

// NewRecovery is the FSM for group.Recover of a replica of a group of epoch began; it begins epoch. What it
// leaves behind gives no token and no revision again that a lost member may have given.
func NewRecovery(began, epoch uint64) group.FSM {
	return &recovery{newState(began), epoch}
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
