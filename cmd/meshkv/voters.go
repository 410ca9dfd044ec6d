package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/meshkv/meshkv/client"
)

// moveTimeout is how long commands wait for replicas that move. They go on.
const moveTimeout = 2 * time.Minute

func (a *app) votersCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "voters KS [add|rm NODE]",
		Short: "List or change the voters of a strong keyspace",
		Long: "List the voters of a strong keyspace, or change them by one server. An added server becomes a voter when it has\n" +
			"all of the data; the command returns when the change is complete.",
		Example: "  meshkv voters locks\n  meshkv voters locks add host-4\n  meshkv voters locks rm host-2",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) <= 1 {
				return exactArgs("KS")(cmd, args)
			}
			return exactArgs("KS", "add|rm", "NODE")(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkStrongKeyspace(args[0]); err != nil {
				return err
			}
			if len(args) == 1 {
				return a.withNode(cmd.Context(), func(ctx context.Context, c remoteNode) error { return a.voters(ctx, c, args[0]) })
			}
			var (
				change       func(remoteNode, context.Context, string, string) error
				verb, result string
			)
			switch args[1] {
			case "add":
				change, verb, result = remoteNode.AddVoter, "added", "is a voter"
			case "rm":
				change, verb, result = remoteNode.RemoveVoter, "removed", "is no voter any more"
			default:
				return usagef("%q: voters are listed, or changed by add NODE or rm NODE", printable(args[1]))
			}
			return a.withNode(cmd.Context(), func(ctx context.Context, c remoteNode) error {
				if err := change(c, ctx, args[0], args[2]); err != nil {
					return unfinished(ctx, fmt.Errorf("voters: %w", err), "'meshkv voters "+args[0]+"' shows it")
				}
				return a.printDone(map[string]any{"name": args[0], verb: args[2]}, args[2], fmt.Sprintf("%s: %s %s", args[0], printable(args[2]), result))
			})
		},
	}
	return a.patientFlags(cmd, moveTimeout, "wait this long for the change; 0 waits without end")
}

// unfinished tells of a change that goes on after the time to wait for it.
func unfinished(ctx context.Context, err error, look string) error {
	if errors.Is(err, client.ErrTimeout) || errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return &failure{text: fmt.Sprintf("the change is not complete yet and goes on: %s", look), cause: client.ErrTimeout}
	}
	return err
}

func (a *app) voters(ctx context.Context, c remoteNode, keyspace string) error {
	i, err := c.StrongInfo(ctx, keyspace)
	if err != nil {
		return fmt.Errorf("voters: %w", err)
	}
	switch a.output {
	case formatJSON:
		return a.printJSON(struct {
			Name   string               `json:"name"`
			Leader string               `json:"leader"`
			Voters []client.StrongVoter `json:"voters"`
		}{i.Name, i.Leader, append([]client.StrongVoter{}, i.Voters...)})
	case formatRaw:
		for _, v := range i.Voters {
			fmt.Fprintln(a.stdout, v.Server)
		}
		return nil
	}
	t := newTable(a.stdout, "SERVER", "ROLE", "ALIVE", "REPLICA")
	for _, v := range i.Voters {
		role := v.Role
		if v.Server == i.Leader {
			role = "leader"
		}
		alive := "yes"
		if !v.Alive {
			alive = "no"
		}
		t.row(v.Server, role, alive, v.Replica)
	}
	return t.end()
}

func (a *app) decommissionCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "decommission NODE",
		Short: "Move the replicas of all strong keyspaces away from a server",
		Long:  "Move the replicas of all strong keyspaces away from a server, which holds none when the command returns and gets\nno new ones. Stop it afterwards, or let it leave.",
		Args:  exactArgs("NODE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withNode(cmd.Context(), func(ctx context.Context, c remoteNode) error {
				if err := c.Decommission(ctx, args[0]); err != nil {
					return unfinished(ctx, fmt.Errorf("decommission %s: %w", printable(args[0]), err), "give the command again to wait longer")
				}
				return a.printDone(map[string]any{"decommissioned": args[0]}, args[0], printable(args[0])+" holds no replica of a strong keyspace any more")
			})
		},
	}
	return a.patientFlags(cmd, moveTimeout, "wait this long for the moves; 0 waits without end")
}
