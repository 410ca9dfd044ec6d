package group

import "github.com/hashicorp/raft"

// VerifyLeader asks Raft, as a read that relies on it would, and does not wait for
// the answer.
func VerifyLeader(g *Group) raft.Future { return g.raft.VerifyLeader() }

// TransferTo starts to hand the leadership to a voter, and does not wait.
func TransferTo(g *Group, s Server) {
	g.raft.LeadershipTransferToServer(raft.ServerID(s.ID), raft.ServerAddress(s.Addr))
}
