package group

// Leader is who leads the group, as far as this replica knows; zero if it does not.
func (g *Group) Leader() Server {
	addr, id := g.raft.LeaderWithID()
	return Server{ID: string(id), Addr: string(addr)}
}
