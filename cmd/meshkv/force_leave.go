package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
)

func (a *app) forceLeaveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "force-leave NODE",
		Short: "Give up a node that failed: it counts as having left",
		Long: "Give up a node that failed and will not come back. It counts as having left, at all nodes, and what it\n" +
			"put as ephemeral is gone for ever. If it does come back, it is a member again, with all that it has.",
		Args: exactArgs("NODE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withNode(cmd.Context(), func(ctx context.Context, c remoteNode) error {
				if err := c.ForceLeave(ctx, args[0]); err != nil {
					return fmt.Errorf("force-leave %s: %w", printable(args[0]), err)
				}
				var err error
				switch a.output {
				case formatJSON:
					return a.printJSON(map[string]any{"left": args[0]})
				case formatRaw:
					_, err = fmt.Fprintln(a.stdout, args[0])
				default:
					_, err = fmt.Fprintf(a.stdout, "%s was given up\n", printable(args[0]))
				}
				return err
			})
		},
	}
	return a.clientFlags(cmd)
}
