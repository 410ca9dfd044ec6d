package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/meshkv/meshkv/client"
)

func (a *app) flagCommand() *cobra.Command {
	var (
		durable, inverse bool
		after            string
	)
	set := func(use, short string, enabled bool) *cobra.Command {
		cmd := durableFlag(&cobra.Command{
			Use:   use + " KS/KEY",
			Short: short,
			Args:  exactArgs("KS/KEY"),
			RunE: func(cmd *cobra.Command, args []string) error {
				return a.change(cmd.Context(), args[0], use+"d", durable, func(key string) ([]client.Change, error) {
					return []client.Change{{Verb: client.FlagVerb(inverse, enabled), Key: key}}, nil
				})
			},
		}, &durable)
		cmd.Flags().BoolVar(&inverse, "inverse", false, "an inverse flag: disabled wins over enabled at the same time")
		return cmd
	}
	get := afterFlag(&cobra.Command{
		Use:   "get KS/KEY",
		Short: "Print whether a flag is enabled: true or false",
		Args:  exactArgs("KS/KEY"),
		RunE: func(cmd *cobra.Command, args []string) error {
			types := []client.Type{client.TypeFlag, client.TypeInverseFlag}
			if inverse {
				types = types[1:]
			}
			return a.view(cmd.Context(), args[0], after, func(v client.View) error {
				_, err := fmt.Fprintln(a.stdout, v.Enabled)
				return err
			}, types...)
		},
	}, &after)
	get.Flags().BoolVar(&inverse, "inverse", false, "refuse a flag that is not inverse")
	return a.typeCommand("flag", "Enable and disable a flag",
		"A flag that is enabled and disabled at the same time is enabled; an inverse one is disabled. Eventual keyspaces.",
		set("enable", "Enable a flag", true), set("disable", "Disable a flag", false), get)
}
