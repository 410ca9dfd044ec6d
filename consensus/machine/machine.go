package machine

// A Machine is one strong keyspace. Not safe for concurrent use: its owner applies the
// log and hands out Views, which others read.
type Machine struct {
	state
	view *View
	wall int64 // of the command that is applied
}

// New is the machine of an empty keyspace.
func New() *Machine { return &Machine{state: newState()} }

// View is the state now. It costs little, and nothing if nothing was applied since the
// last one.
func (m *Machine) View() *View {
	if m.view == nil {
		m.view = &View{m.state.copy()}
	}
	return m.view
}

// Apply applies the command at an index of the log, above those before. Whatever the
// bytes, it returns the same on every replica; cmd is not kept.
func (m *Machine) Apply(index uint64, cmd []byte) Result {
	if index <= m.applied {
		return Result{Err: ErrApplied, Revision: m.revision}
	}
	m.view = nil
	m.applied = index
	var c Command
	if err := c.UnmarshalBinary(cmd); err != nil {
		return Result{Err: err, Revision: m.revision}
	}
	client, before, answered := m.recall(c.Request)
	if answered {
		return before
	}
	m.wall = c.Wall
	var res Result
	c.Body.apply(m, &res)
	res.Revision = m.revision
	m.record(client, c.Request, &res)
	return res
}
