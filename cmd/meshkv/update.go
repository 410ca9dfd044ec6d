package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/node/api"
)

// maxUpdateInput bounds what is read from stdin: more than a node takes.
const maxUpdateInput = 4 << 20

func (a *app) updateCommand() *cobra.Command {
	var durable bool
	cmd := durableFlag(&cobra.Command{
		Use:   "update KS < changes.json",
		Short: "Carry out several changes of data types, all or none",
		Long: "Read changes from stdin, as POST /v1/update takes them, and carry them out in an eventual keyspace: all or none, and visible\n" +
			"together at the asked node and wherever they arrive by broadcast.",
		Example: "  echo '{\"changes\":[{\"verb\":\"counter-add\",\"key\":\"hosts\",\"n\":1},\n" +
			"         {\"verb\":\"set-add\",\"key\":\"names\",\"path\":[\"host-1\"]}]}' | meshkv update net",
		Args: exactArgs("KS"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkKeyspace(args[0]); err != nil {
				return err
			}
			if isTerminal(a.stdin) {
				return usagef("the changes are read from stdin: meshkv update %s < changes.json", args[0])
			}
			text, err := io.ReadAll(io.LimitReader(a.stdin, maxUpdateInput+1))
			switch {
			case err != nil:
				return fmt.Errorf("read the changes from stdin: %w", err)
			case len(text) > maxUpdateInput:
				return fmt.Errorf("changes on stdin exceed %d bytes: %w", maxUpdateInput, client.ErrTooLarge)
			}
			changes, err := api.ParseUpdate(text)
			if err != nil {
				return fmt.Errorf("update: %w", err)
			}
			return a.update(cmd.Context(), args[0], "done", changes, durable)
		},
	}, &durable)
	return a.clientFlags(cmd)
}
