package node

import (
	"slices"
	"strings"
	"time"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/consensus/host"
	"github.com/meshkv/meshkv/consensus/placement"
	"github.com/meshkv/meshkv/consensus/replica"
	"github.com/meshkv/meshkv/keyspace"
)

// strongStatuses are the replicas here and the copies, and how old they may be.
func (n *Node) strongStatuses(now time.Time) (all []client.StrongStatus) {
	n.strongs.entries.Range(func(name string, e host.Entry) bool {
		if e.Keyspace.Removed {
			return true
		}
		if r, _ := n.replicaOf(name); r != nil {
			if st, ok := replicaStatus(name, r, now); ok {
				all = append(all, st)
			}
		} else if ks, ok := n.mirror(name); ok {
			all = append(all, copyStatus(name, ks.MirrorPosition(), now))
		}
		return true
	})
	slices.SortFunc(all, func(a, b client.StrongStatus) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// replicaStatus is false for a replica that has ended.
func replicaStatus(name string, r *replica.Replica, now time.Time) (client.StrongStatus, bool) {
	g, err := r.Group().Status()
	if err != nil {
		return client.StrongStatus{}, false
	}
	st := client.StrongStatus{
		Name: name, Role: strings.ToLower(g.State), Leader: placement.NodeOf(g.Leader.ID), Revision: uint64(r.View().Status().Revision),
		Behind: g.Waiting, Age: -1,
	}
	switch {
	case g.State == "Leader":
		st.Age = 0
	case !g.Heard.IsZero():
		st.Age = max(now.Sub(g.Heard), 0)
	}
	return st, true
}

func copyStatus(name string, p keyspace.MirrorPosition, now time.Time) client.StrongStatus {
	st := client.StrongStatus{Name: name, Role: "copy", Revision: p.Revision, Behind: p.Behind, Age: -1}
	if !p.AsOf.IsZero() {
		st.Age = max(now.Sub(p.AsOf), 0) // by the clocks of two nodes
	}
	return st
}
