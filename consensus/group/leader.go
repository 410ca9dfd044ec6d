package group

// Leader is who leads the group, as far as this replica knows; zero if it does not.
func (g *Group) Leader() Server {
	addr, id := g.raft.LeaderWithID()
	return Server{ID: string(id), Addr: string(addr)}
}

// Term is the present one, as far as this replica knows.
func (g *Group) Term() uint64 { return g.raft.CurrentTerm() }
