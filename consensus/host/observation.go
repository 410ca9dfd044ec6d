package host

import (
	"github.com/meshkv/meshkv/consensus/group"
	"github.com/meshkv/meshkv/consensus/placement"
)

// observationOf is what the leader of a group, which this replica was found to be, says of it.
func observationOf(g *group.Group) placement.Observation {
	c := g.Configuration()
	o := placement.Observation{Leader: g.Leader().ID, Index: c.Index}
	for _, m := range c.Members {
		behind, known := g.Behind(m.ID)
		if !known {
			behind = placement.UnknownLag
		}
		o.Members = append(o.Members, placement.Member{ID: m.ID, Server: placement.NodeOf(m.ID), Voter: m.Voter, Lag: behind})
	}
	return o
}
