package replica

import (
	"github.com/meshkv/meshkv/consensus/group"
	"github.com/meshkv/meshkv/consensus/machine"
)

// tokensPerEpoch is how many fencing tokens a group can give before a recovery: more than
// any will.
const tokensPerEpoch = 1 << 40

// NewRecovery is the FSM for group.Recover of a replica, that begins the epoch. What it
// leaves behind gives no token and no revision again that a lost member may have given.
func NewRecovery(epoch uint64) group.FSM {
	return &recovery{newState(), machine.Token(epoch * tokensPerEpoch)}
}

type recovery struct {
	*state
	floor machine.Token
}

// Snapshot implements group.FSM. It is taken once, when all there is was applied.
func (r *recovery) Snapshot() (group.Snapshot, error) {
	r.mu.Lock()
	r.machine.RaiseAfterLoss(r.floor)
	r.mu.Unlock()
	return r.state.Snapshot()
}
