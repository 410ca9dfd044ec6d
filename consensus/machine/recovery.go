package machine

// recoveredRevisions is how far a recovery raises the revision: more commands than a group
// carries out in the time that its last members may have been ahead of the survivor.
const recoveredRevisions = 1 << 32

// RaiseAfterLoss makes the state one that no client can take for an earlier one, after the
// newest commands may have been lost with the majority of a group: tokens and revisions
// that they gave are not given again. floor is above all tokens of the former groups. What
// was kept of history ends: a watch that goes on from a revision before gets ErrCompacted.
// It is not a command: the one replica that is left does it before others join.
func (m *Machine) RaiseAfterLoss(floor Token) {
	m.view = nil
	m.token = max(m.token, floor)
	m.revision += recoveredRevisions
	var res Result
	(&Compact{Revision: m.revision}).apply(m, &res)
}
