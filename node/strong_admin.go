package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/consensus/calls"
	"github.com/meshkv/meshkv/consensus/group"
	"github.com/meshkv/meshkv/consensus/host"
)

// hostFailures say what the errors of a host are to users.
var hostFailures = []struct{ is, as error }{
	{host.ErrInvalid, client.ErrBadRequest},
	{host.ErrConflict, client.ErrConflict},
	{host.ErrBusy, client.ErrConflict},
	{host.ErrNotFound, client.ErrNotFound},
	{host.ErrNoServer, client.ErrUnavailable},
	{host.ErrNoQuorum, client.ErrNoQuorum},
	{host.ErrNotReady, client.ErrNoQuorum},
}

func hostFailure(err error) error {
	if errors.Is(err, group.ErrUnknownOutcome) || errors.Is(err, calls.ErrLost) {
		return fmt.Errorf("%w: %w", client.ErrUnknownOutcome, err)
	}
	for _, f := range hostFailures {
		if errors.Is(err, f.is) {
			return fmt.Errorf("%w: %w", f.as, err)
		}
	}
	return err
}

// administer carries out what operators ask for: by the host of this node, or at a server.
func (n *Node) administer(ctx context.Context, here func(*host.Host) error, there func(context.Context, *client.Client) error) error {
	if n.draining.Load() {
		return client.ErrDraining
	}
	if h := n.strongs.host.Load(); h != nil {
		return hostFailure(here(h))
	}
	err := fmt.Errorf("%w: no server is known here: start a node with --server and --bootstrap-servers", client.ErrUnavailable)
	for _, name := range n.servers() {
		if ctx.Err() != nil {
			break
		}
		err = n.forward.at(ctx, name, func(ctx context.Context, fc *forwarded) error { return there(ctx, fc.client) })
		if !unreached(err) {
			return err
		}
	}
	return err
}

// CreateKeyspace implements client.StrongAdmin. An eventual one comes into being at this node.
func (n *Node) CreateKeyspace(ctx context.Context, spec client.KeyspaceSpec) error {
	if err := checkUserKeyspace(spec.Name); err != nil {
		return err
	}
	switch spec.Mode {
	case "", "eventual":
		if n.strongs.is(spec.Name) {
			return fmt.Errorf("%w: keyspace %s is strong: remove it first, or choose another name", client.ErrConflict, spec.Name)
		}
		return n.JoinKeyspace(ctx, spec.Name)
	case "strong":
	default:
		return fmt.Errorf("%w: mode %q: use eventual or strong", client.ErrBadRequest, spec.Mode)
	}
	if _, exists := n.catalog.life(spec.Name); exists && !n.strongs.is(spec.Name) {
		return fmt.Errorf("%w: there is an eventual keyspace %s: remove it first, or choose another name", client.ErrConflict, spec.Name)
	}
	err := n.administer(ctx, func(h *host.Host) error {
		e, err := h.Create(ctx, host.Spec{Name: spec.Name, Voters: spec.Voters, Quota: spec.Quota})
		if err == nil {
			n.strongs.learn(e)
		}
		return err
	}, func(ctx context.Context, c *client.Client) error { return c.CreateKeyspace(ctx, spec) })
	if err != nil {
		return err
	}
	return n.awaitStrong(ctx, spec.Name)
}

// awaitStrong waits until this node knows of a strong keyspace that was created.
func (n *Node) awaitStrong(ctx context.Context, name string) error {
	if n.strongs.is(name) {
		return nil
	}
	w, err := n.held(strongKeyspace).ks.Watch(ctx, name, nil)
	if err != nil {
		return err
	}
	defer w.Close()
	for {
		if e, err := n.readStrong(name); err == nil {
			n.strongs.learn(e)
		}
		if n.strongs.is(name) {
			return nil
		}
		if _, err := w.Next(ctx); err != nil {
			return fmt.Errorf("%w: keyspace %s was created; this node does not know of it yet: %w", client.ErrTimeout, name, err)
		}
	}
}

// StrongInfo implements client.StrongAdmin.
func (n *Node) StrongInfo(ctx context.Context, name string) (info client.StrongInfo, err error) {
	err = n.administer(ctx, func(h *host.Host) error {
		st, err := h.Describe(ctx, name)
		if err == nil {
			info = n.strongInfo(st)
		}
		return err
	}, func(ctx context.Context, c *client.Client) (err error) {
		info, err = c.StrongInfo(ctx, name)
		return err
	})
	return info, err
}

func (n *Node) strongInfo(d host.Description) client.StrongInfo {
	k := &d.Entry.Keyspace
	info := client.StrongInfo{
		Name: k.Name, Group: k.Group(), Epoch: k.Epoch, Leader: d.Leader, Term: d.Term, Applied: d.Applied, Commit: d.Commit,
		Revision: d.Revision, Compacted: d.Compacted, Keys: d.Keys, Bytes: d.Bytes, Quota: d.Quota,
	}
	for _, m := range k.Members {
		role := "voter"
		if m.Learner {
			role = "learner"
		}
		alive, _ := n.aliveSince(m.Server)
		info.Voters = append(info.Voters, client.StrongVoter{Server: m.Server, Replica: m.ID, Role: role, Alive: alive})
	}
	slices.SortFunc(info.Voters, func(a, b client.StrongVoter) int { return strings.Compare(a.Server, b.Server) })
	return info
}

// AddVoter implements client.StrongAdmin.
func (n *Node) AddVoter(ctx context.Context, keyspace, server string) error {
	return n.administer(ctx, func(h *host.Host) error {
		if _, err := h.AddVoter(ctx, keyspace, server); err != nil {
			return err
		}
		return settled(h.AwaitVoter(ctx, keyspace, server, true))
	}, func(ctx context.Context, c *client.Client) error { return c.AddVoter(ctx, keyspace, server) })
}

// RemoveVoter implements client.StrongAdmin.
func (n *Node) RemoveVoter(ctx context.Context, keyspace, server string) error {
	return n.administer(ctx, func(h *host.Host) error {
		if _, err := h.RemoveVoter(ctx, keyspace, server); err != nil {
			return err
		}
		return settled(h.AwaitVoter(ctx, keyspace, server, false))
	}, func(ctx context.Context, c *client.Client) error { return c.RemoveVoter(ctx, keyspace, server) })
}

// Decommission implements client.StrongAdmin.
func (n *Node) Decommission(ctx context.Context, server string) error {
	return n.administer(ctx, func(h *host.Host) error {
		if err := h.Drain(ctx, server); err != nil {
			return err
		}
		return settled(h.AwaitDrained(ctx, server))
	}, func(ctx context.Context, c *client.Client) error { return c.Decommission(ctx, server) })
}

// settled is the error of waiting for a change that was accepted.
func settled(err error) error {
	if err != nil {
		return fmt.Errorf("%w: the change was accepted and goes on: %w", client.ErrTimeout, err)
	}
	return nil
}

// RecoverKeyspace implements client.StrongAdmin.
func (n *Node) RecoverKeyspace(ctx context.Context, name, survivor string) (report client.RecoveryReport, err error) {
	err = n.administer(ctx, func(h *host.Host) error {
		r, err := h.Recover(ctx, name, survivor)
		if err == nil {
			n.strongs.learn(r.Entry)
			report = client.RecoveryReport{Epoch: r.Entry.Keyspace.Epoch, Survivor: survivor, Index: r.Index, Term: r.Term}
		}
		return err
	}, func(ctx context.Context, c *client.Client) (err error) {
		report, err = c.RecoverKeyspace(ctx, name, survivor)
		return err
	})
	return report, err
}

// removeStrong removes a strong keyspace for good.
func (n *Node) removeStrong(ctx context.Context, name string) error {
	return n.administer(ctx, func(h *host.Host) error {
		e, err := h.Remove(ctx, name)
		if err == nil {
			n.strongs.learn(e)
		}
		return err
	}, func(ctx context.Context, c *client.Client) error { return c.RemoveKeyspace(ctx, name) })
}
