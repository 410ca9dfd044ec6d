package machine

// RevisionsPerEpoch is how many revisions there are in an epoch: more than any will take. Epoch e has
// those from e times that on.
const RevisionsPerEpoch = 1 << 32

// SameLife reports whether two revisions of a keyspace have no recovery between them.
func SameLife(a, b uint64) bool { return a/RevisionsPerEpoch == b/RevisionsPerEpoch }

// Begin makes an empty machine one of an epoch, all of whose tokens and revisions are above those of
// the epochs before. Epoch 0 begins with revision 1. It is called before anything is applied.
func (m *Machine) Begin(epoch uint64) {
	m.view = nil
	m.token = Token(epoch * tokensPerEpoch)
	m.revision = Revision(epoch*RevisionsPerEpoch + 1)
	if epoch > 0 {
		m.compacted = m.revision
	}
}

// tokensPerEpoch is how many fencing tokens there are in an epoch: more than any will give.
const tokensPerEpoch = 1 << 40

// RaiseAfterLoss makes the state one that no client can take for an earlier one, after the
// newest commands may have been lost with the majority of a group: tokens and revisions
// that they gave are not given again. epoch is the next one. What
// was kept of history ends: a watch that goes on from a revision before gets ErrCompacted.
// It is not a command: the one replica that is left does it before others join.
func (m *Machine) RaiseAfterLoss(epoch uint64) {
	m.view = nil
	m.token = max(m.token, Token(epoch*tokensPerEpoch))
	m.revision = max(m.revision+1, Revision(epoch*RevisionsPerEpoch+1))
	var res Result
	(&Compact{Revision: m.revision}).apply(m, &res)
}
