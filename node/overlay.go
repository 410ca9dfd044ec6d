package node

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"github.com/meshkv/meshkv/gossip"
	"github.com/meshkv/meshkv/gossip/mesh"
	"github.com/meshkv/meshkv/gossip/overlay"
)

const (
	// weaveDelay gathers the changes of membership and interest that come
	// together before the overlays are computed anew.
	weaveDelay = 200 * time.Millisecond
	// partnerEvery is how long a node keeps a random partner besides its
	// neighbours, with which it compares everything that both hold.
	partnerEvery = 30 * time.Second
)

// A table is who takes part in one keyspace, and which of them are this node's
// neighbours there.
type table struct {
	members    []string // alive, ascending, this node among them if it takes part
	neighbours []string // ascending
	complete   bool     // everybody is a neighbour
}

func newTable(self string, members []overlay.Member) table {
	t := table{}
	for _, m := range members {
		t.members = append(t.members, m.Name)
	}
	slices.Sort(t.members)
	t.neighbours, t.complete = overlay.New(members).Neighbours(self)
	return t
}

// role of a link to peer in the table's keyspace.
func (t table) role(peer string) gossip.Role {
	if t.complete {
		return gossip.RoleDirect
	}
	if _, found := slices.BinarySearch(t.neighbours, peer); found {
		return gossip.RoleTree
	}
	return gossip.RoleQuiet
}

// A fabric is the tables of all keyspaces, as last computed: immutable.
type fabric struct {
	everybody table // of the keyspaces that every node holds, and of those not listed
	keyspaces map[string]table
}

func (f *fabric) of(keyspace string) table {
	if t, ok := f.keyspaces[keyspace]; ok {
		return t
	}
	return f.everybody
}

// weaver keeps the fabric up to date.
type weaver struct {
	current atomic.Pointer[fabric]
	kicks   chan struct{} // of capacity 1
}

func newWeaver() *weaver {
	w := &weaver{kicks: make(chan struct{}, 1)}
	w.current.Store(&fabric{everybody: table{complete: true}})
	return w
}

// kick asks for a new computation.
func (w *weaver) kick() {
	select {
	case w.kicks <- struct{}{}:
	default:
	}
}

// role of a link to peer in a keyspace.
func (w *weaver) role(keyspace, peer string) gossip.Role {
	return w.current.Load().of(keyspace).role(peer)
}

// members are the nodes that are alive and hold a keyspace; empty if that is not
// known. It implements keyspace.HoldersFunc.
func (w *weaver) members(keyspace string) []string {
	f := w.current.Load()
	if isSystem(keyspace) {
		return f.everybody.members
	}
	return f.keyspaces[keyspace].members
}

// weave computes the overlays anew when something has changed, tells the
// keyspaces what each link is for, and the mesh which links are wanted.
func (n *Node) weave(ctx context.Context) {
	delay := time.NewTimer(0)
	defer delay.Stop()
	waiting := true
	again := time.NewTicker(partnerEvery)
	defer again.Stop()
	draw := rand.Uint64()
	for {
		select {
		case <-ctx.Done():
			return
		case <-n.overlay.kicks:
			if !waiting {
				waiting = true
				delay.Reset(weaveDelay)
			}
		case <-again.C:
			draw = rand.Uint64()
			n.overlay.kick()
		case <-delay.C:
			waiting = false
			n.reweave(draw)
		}
	}
}

// reweave does one computation. The random number chooses the partner.
func (n *Node) reweave(draw uint64) {
	self := overlay.Member{Name: n.cfg.Name, Zone: n.cfg.Zone}
	everybody := []overlay.Member{self}
	zones := map[string]string{}
	for _, m := range n.mesh.Members() {
		alive := m.Status == mesh.StatusAlive || m.Status == mesh.StatusSuspect
		if m.Name != self.Name && m.Inc != 0 && alive {
			everybody = append(everybody, overlay.Member{Name: m.Name, Zone: m.Zone})
			zones[m.Name] = m.Zone
		}
	}
	all := overlay.New(everybody)
	f := &fabric{everybody: newTable(self.Name, everybody), keyspaces: make(map[string]table)}
	wanted := slices.Clone(f.everybody.neighbours)
	for _, h := range n.allHeld() {
		if isSystem(h.id.Name) {
			continue
		}
		members := []overlay.Member{self}
		for _, other := range n.holders(h.id.Name) {
			if zone, alive := zones[other.name]; alive {
				members = append(members, overlay.Member{Name: other.name, Zone: zone})
			}
		}
		t := f.everybody
		if len(members) < len(everybody) {
			t = newTable(self.Name, members)
			wanted = append(wanted, t.neighbours...)
		}
		f.keyspaces[h.id.Name] = t
	}
	if !f.everybody.complete {
		if partner := all.Partner(self.Name, draw); partner != "" {
			wanted = append(wanted, partner)
		}
	}
	n.overlay.current.Store(f)
	slices.Sort(wanted)
	n.mesh.Want(slices.Compact(wanted))

	now := time.Now()
	n.linkMu.Lock()
	defer n.linkMu.Unlock()
	for _, p := range n.allPeers() {
		for name, up := range p.up {
			if role := f.of(name).role(p.link.Peer.Name); role != up.role {
				up.role = role
				p.up[name] = up
				up.h.ks.SetRole(now, p.id, role)
			}
		}
	}
}
