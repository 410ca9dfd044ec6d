package node

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/gossip"
	"github.com/meshkv/meshkv/gossip/mesh"
	"github.com/meshkv/meshkv/keyspace"
	"github.com/meshkv/meshkv/storage"
)

// maxKeyspaces bounds what peers and clients can make this node hold.
const maxKeyspaces = 1024

var keyspaceName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)

// Keyspace implements client.Cluster.
func (n *Node) Keyspace(_ context.Context, name string) (client.Keyspace, error) {
	ks, err := n.open(name)
	if err != nil {
		return nil, err
	}
	return ks, nil
}

// Lookup is the keyspace of that name, if this node holds it; unlike Keyspace it
// makes none. client.ErrNotFound if there is none.
func (n *Node) Lookup(name string) (client.Keyspace, error) {
	if ks := n.find(name); ks != nil {
		return ks, nil
	}
	if err := checkKeyspaceName(name); err != nil {
		return nil, err
	}
	return nil, fmt.Errorf("keyspace %s: %w", name, client.ErrNotFound)
}

func checkKeyspaceName(name string) error {
	if !keyspaceName.MatchString(name) {
		return fmt.Errorf("%w: keyspace name %q: use 1 to 63 of a-z 0-9 . _ -, beginning with a letter or digit", client.ErrBadRequest, name)
	}
	return nil
}

// find is the keyspace of that name, or nil.
func (n *Node) find(name string) *keyspace.Keyspace {
	ks, _ := n.keyspaces.Load(name)
	return ks
}

// open is the keyspace of that name, made now if there is none.
func (n *Node) open(name string) (*keyspace.Keyspace, error) {
	if ks := n.find(name); ks != nil {
		return ks, nil
	}
	if err := checkKeyspaceName(name); err != nil {
		return nil, err
	}
	n.linkMu.Lock()
	defer n.linkMu.Unlock()
	if ks := n.find(name); ks != nil {
		return ks, nil
	}
	if n.keyspaces.Size() >= maxKeyspaces {
		return nil, fmt.Errorf("%w: this node holds %d keyspaces, and no more fit", client.ErrTooLarge, maxKeyspaces)
	}
	if n.draining.Load() {
		return nil, client.ErrDraining
	}
	now := time.Now()
	ks := keyspace.Open(name, n.env, storage.KeyspaceState{}, now)
	n.keyspaces.Store(name, ks)
	for _, p := range n.allPeers() {
		ks.LinkUp(now, p.id, gossip.RoleDirect)
	}
	return ks, nil
}

// sorted are the keyspaces by name.
func (n *Node) sorted() []*keyspace.Keyspace {
	all := make([]*keyspace.Keyspace, 0, n.keyspaces.Size())
	n.keyspaces.Range(func(_ string, ks *keyspace.Keyspace) bool {
		all = append(all, ks)
		return true
	})
	slices.SortFunc(all, func(a, b *keyspace.Keyspace) int { return strings.Compare(a.Name(), b.Name()) })
	return all
}

// Keyspaces implements client.Cluster.
func (n *Node) Keyspaces(ctx context.Context) ([]client.KeyspaceInfo, error) {
	members := n.alive()
	var infos []client.KeyspaceInfo
	for _, ks := range n.sorted() {
		info, err := ks.Info(ctx)
		if err != nil {
			return nil, fmt.Errorf("describe keyspace %s: %w", ks.Name(), err)
		}
		info.Members = members
		infos = append(infos, info)
	}
	return infos, nil
}

// alive are the names of the nodes that are alive, this one included. Every one
// of them holds every keyspace.
func (n *Node) alive() []string { return n.owners.Alive() }

// Members implements client.Cluster.
func (n *Node) Members(context.Context) ([]client.Member, error) {
	var out []client.Member
	for _, m := range n.mesh.Members() {
		out = append(out, client.Member{
			Name:    m.Name,
			Addr:    m.Addr,
			APIAddr: m.APIAddr,
			Status:  memberStatus(m.Status),
			Zone:    m.Zone,
			Roles:   m.Roles,
			Inc:     fmt.Sprintf("%016x", m.Inc),
			RTT:     m.RTT,
		})
	}
	slices.SortFunc(out, func(a, b client.Member) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

func memberStatus(s mesh.Status) client.MemberStatus {
	switch s {
	case mesh.StatusAlive:
		return client.MemberAlive
	case mesh.StatusSuspect:
		return client.MemberSuspect
	case mesh.StatusLeft:
		return client.MemberLeft
	}
	return client.MemberFailed
}

// Leave implements client.Cluster: the node leaves for good and stops. What it
// bound to itself is hidden everywhere, for ever.
func (n *Node) Leave(ctx context.Context) error {
	n.draining.Store(true)
	err := n.mesh.Leave(ctx)
	if errors.Is(err, mesh.ErrNotRunning) && !n.stopping() {
		n.draining.Store(false)
		return fmt.Errorf("%w: the node is still starting, or has ended: %w", client.ErrUnavailable, err)
	}
	n.cancel(errStopped) // the others may have been told: it cannot stay
	if err != nil {
		return fmt.Errorf("leave: the others may take it for failed: %w", err)
	}
	return nil
}
