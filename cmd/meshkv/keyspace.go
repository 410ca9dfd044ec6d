package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/meshkv/meshkv/client"
)

func (a *app) keyspaceCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "keyspace",
		Short: "Create, list, describe and remove keyspaces",
		Args:  cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("keyspace needs a command: '%s --help' lists them", cmd.CommandPath())
			}
			return unknownCommand(cmd, args[0])
		},
	}
	list := &cobra.Command{
		Use:   "ls",
		Short: "List the keyspaces of the asked node",
		Args:  exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withNode(cmd.Context(), func(ctx context.Context, c remoteNode) error {
				infos, err := c.Keyspaces(ctx)
				if err != nil {
					return fmt.Errorf("keyspace ls: %w", err)
				}
				return a.printKeyspaces(infos)
			})
		},
	}
	info := &cobra.Command{
		Use:   "info KS",
		Short: "Describe a keyspace as the asked node sees it",
		Args:  exactArgs("KS"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if args[0] == systemGroup {
				return a.withNode(cmd.Context(), func(ctx context.Context, c remoteNode) error { return a.strongInfo(ctx, c, args[0]) })
			}
			if err := checkKeyspace(args[0]); err != nil {
				return err
			}
			if strings.HasPrefix(args[0], "_") { // not listed
				return a.withKeyspace(cmd.Context(), args[0], func(ctx context.Context, ks client.Keyspace) error {
					info, err := ks.Info(ctx)
					if err != nil {
						return fmt.Errorf("keyspace info: %w", err)
					}
					return a.printKeyspaceInfo(info)
				})
			}
			return a.withNode(cmd.Context(), func(ctx context.Context, c remoteNode) error { return a.keyspaceInfo(ctx, c, args[0]) })
		},
	}
	cmd.AddCommand(a.clientFlags(list), a.clientFlags(info))
	cmd.AddCommand(a.keyspaceAdminCommands()...)
	cmd.AddCommand(a.keyspaceSettingsCommands()...)
	cmd.AddCommand(a.keyspaceCreateCommand(), a.keyspaceRecoverCommand())
	return cmd
}

// keyspaceInfo describes a keyspace of either mode. Opening one would create it.
func (a *app) keyspaceInfo(ctx context.Context, c remoteNode, name string) error {
	infos, err := c.Keyspaces(ctx)
	if err != nil {
		return fmt.Errorf("keyspace info: %w", err)
	}
	i := slices.IndexFunc(infos, func(info client.KeyspaceInfo) bool { return info.Name == name })
	if i >= 0 && infos[i].Mode != modeStrong {
		return a.printKeyspaceInfo(infos[i])
	}
	if i < 0 { // a strong one that the node does not hold, or none
		members, err := c.Members(ctx)
		if err != nil {
			return fmt.Errorf("keyspace info: %w", err)
		}
		isServer := func(m client.Member) bool { return m.Status != client.MemberLeft && slices.Contains(m.Roles, "server") }
		if !slices.ContainsFunc(members, isServer) {
			return noKeyspace(name)
		}
	}
	err = a.strongInfo(ctx, c, name)
	if i < 0 && (errors.Is(err, client.ErrNotFound) || errors.Is(err, client.ErrNeedsStrong)) {
		return noKeyspace(name)
	}
	return err
}

func noKeyspace(name string) error {
	return fmt.Errorf("keyspace info: keyspace %s: %w on this node; it comes into being with its first put", name, client.ErrNotFound)
}

func (a *app) printKeyspaces(infos []client.KeyspaceInfo) error {
	switch a.output {
	case formatJSON:
		return a.printJSON(struct {
			Keyspaces []client.KeyspaceInfo `json:"keyspaces"`
		}{append([]client.KeyspaceInfo{}, infos...)})
	case formatRaw:
		for _, i := range infos {
			fmt.Fprintln(a.stdout, i.Name)
		}
		return nil
	}
	t := newTable(a.stdout, "NAME", "MODE", "KEYS", "CELLS", "BYTES", "NODES", "DIGEST")
	for _, i := range infos {
		t.row(i.Name, i.Mode, count(i.Keys), count(i.Cells), count(i.Bytes), count(len(i.Members)), i.Digest)
	}
	return t.end()
}

func (a *app) printKeyspaceInfo(i client.KeyspaceInfo) error {
	switch a.output {
	case formatJSON:
		return a.printJSON(i)
	case formatRaw:
		_, err := fmt.Fprintln(a.stdout, i.Digest)
		return err
	}
	t := newTable(a.stdout)
	t.row("name", i.Name)
	t.row("mode", i.Mode)
	t.row("keys", count(i.Keys))
	t.row("cells", count(i.Cells))
	t.row("bytes", count(i.Bytes))
	t.row("nodes", strings.Join(i.Members, ", "))
	t.row("digest", i.Digest)
	settingRows(t, i.Settings)
	if i.Invalid > 0 {
		t.row("invalid", count(i.Invalid)+" values came from elsewhere that the limits do not allow")
	}
	return t.end()
}
