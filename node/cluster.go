package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/gossip/mesh"
)

// Keyspace implements client.Cluster. A keyspace that this node does not hold is
// served by a member; where it is this node's to hold, it comes into being.
func (n *Node) Keyspace(_ context.Context, name string) (client.Keyspace, error) {
	base, eventual := eventualName(name)
	if err := checkKeyspaceName(base); err != nil {
		return nil, err
	}
	if n.strongs.is(base) {
		if eventual {
			return n.clashing(base)
		}
		return strongSpace{n: n, name: name}, nil
	}
	if eventual {
		return nil, errNoClash(base)
	}
	h := &handle{n: n, name: name}
	if n.wanted.wants(name) {
		cur, err := n.open(name)
		if err != nil {
			return nil, err
		}
		h.cur.Store(cur)
	}
	return h, nil
}

// Lookup is the keyspace of that name; unlike Keyspace it makes none.
// client.ErrNotFound if it would be this node's to hold, and does not exist.
func (n *Node) Lookup(name string) (client.Keyspace, error) { return n.lookup(name, false) }

func (n *Node) lookup(name string, member bool) (client.Keyspace, error) {
	if base, eventual := eventualName(name); eventual {
		return n.clashing(base)
	}
	if n.strongs.is(name) {
		return strongSpace{n, name, member}, nil
	}
	if cur := n.held(name); cur != nil {
		if member {
			return &cur.inner, nil
		}
		return &cur.handle, nil
	}
	if err := checkKeyspaceName(name); err != nil {
		return nil, err
	}
	switch {
	case n.wanted.wants(name):
		return nil, fmt.Errorf("keyspace %s: %w", name, client.ErrNotFound)
	case member:
		return nil, errNotHeld
	}
	return &handle{n: n, name: name}, nil
}

// A backend is the node as its API servers see it: the one for clients, and the
// one for other nodes, which forwards nothing.
type backend struct {
	*Node
	member bool
}

// Keyspace implements client.Cluster. Unlike the node's it makes none: a put
// does, and a watch that does not go on from a cursor.
func (b backend) Keyspace(_ context.Context, name string) (client.Keyspace, error) {
	if base, eventual := eventualName(name); eventual {
		return b.clashing(base)
	}
	if err := checkKeyspaceName(name); err != nil {
		return nil, err
	}
	if b.strongs.is(name) {
		return strongSpace{b.Node, name, b.member}, nil
	}
	if b.member && !b.wanted.wants(name) {
		return nil, errNotHeld
	}
	h := &handle{n: b.Node, name: name, member: b.member}
	h.cur.Store(b.held(name))
	return h, nil
}

// Lookup implements api.Backend.
func (b backend) Lookup(name string) (client.Keyspace, error) { return b.lookup(name, b.member) }

// Keyspaces implements client.Cluster: those of users, the eventual ones that this node holds and all
// strong ones.
func (n *Node) Keyspaces(ctx context.Context) ([]client.KeyspaceInfo, error) {
	infos := n.strongInfos()
	for _, h := range n.allHeld() {
		if isSystem(h.id.Name) || isMirror(h.id.Name) {
			continue
		}
		info, err := h.ks.Info(ctx) // of the handle, it might be forwarded by now
		if err != nil {
			return nil, fmt.Errorf("describe keyspace %s: %w", h.id.Name, err)
		}
		info.Members = n.memberNames(h.id.Name)
		if n.strongs.is(h.id.Name) {
			info.Name += eventualSuffix
		}
		infos = append(infos, info)
	}
	slices.SortFunc(infos, func(a, b client.KeyspaceInfo) int { return strings.Compare(a.Name, b.Name) })
	return infos, nil
}

// clashing is the eventual data under the name of a strong keyspace, which can be read and
// removed: it came into being where nobody knew of the strong one.
func (n *Node) clashing(name string) (client.Keyspace, error) {
	if cur := n.held(name); cur != nil && !isSystem(name) && n.strongs.is(name) {
		return &cur.handle, nil
	}
	return nil, errNoClash(name)
}

func errNoClash(name string) error {
	return fmt.Errorf("%w: there is no eventual data beside a strong keyspace %s", client.ErrNotFound, name)
}

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
