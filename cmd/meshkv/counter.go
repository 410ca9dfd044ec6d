package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/meshkv/meshkv/client"
)

func (a *app) counterCommand() *cobra.Command {
	var (
		durable bool
		after   string
	)
	add := numbered(durableFlag(&cobra.Command{
		Use:     "add KS/KEY [N]",
		Short:   "Add a number, 1 if none is given, to a counter",
		Example: "  meshkv counter add stats/logins\n  meshkv counter add stats/seats -- -5",
		Args:    optionalArgs(1, "KS/KEY", "N"),
		RunE: func(cmd *cobra.Command, args []string) error {
			n := int64(1)
			if len(args) > 1 {
				var err error
				if n, err = parseNumber("N", args[1]); err != nil {
					return err
				}
			}
			return a.change(cmd.Context(), args[0], "added", durable, func(key string) ([]client.Change, error) {
				return []client.Change{{Verb: client.VerbCounterAdd, Key: key, N: n}}, nil
			})
		},
	}, &durable), "meshkv counter add KS/KEY -- -5")
	get := afterFlag(&cobra.Command{
		Use:   "get KS/KEY",
		Short: "Print a counter's value",
		Args:  exactArgs("KS/KEY"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.view(cmd.Context(), args[0], after, func(v client.View) error {
				_, err := fmt.Fprintln(a.stdout, v.Number)
				return err
			}, client.TypeCounter)
		},
	}, &after)
	reset := durableFlag(&cobra.Command{
		Use:   "reset KS/KEY",
		Short: "Set a counter to 0, but for what is added at the same time",
		Long:  "Take away what the node has seen of a counter. What is added concurrently elsewhere stays, and counts once.",
		Args:  exactArgs("KS/KEY"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.change(cmd.Context(), args[0], "reset", durable, func(key string) ([]client.Change, error) {
				return []client.Change{{Verb: client.VerbCounterReset, Key: key}}, nil
			})
		},
	}, &durable)
	return a.typeCommand("counter", "Count up and down at any node",
		"A counter adds up the increments of all nodes, whatever happens concurrently. Eventual keyspaces.", add, get, reset)
}

// optionalArgs accepts the first need named arguments, and the others where they are given.
func optionalArgs(need int, names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) >= need && len(args) < len(names) {
			return nil
		}
		return exactArgs(names...)(cmd, args)
	}
}

func (a *app) boundedCommand() *cobra.Command {
	var (
		durable bool
		after   string
		bound   int64
	)
	create := numbered(durableFlag(&cobra.Command{
		Use:   "create KS/KEY VALUE",
		Short: "Create a bounded counter",
		Args:  exactArgs("KS/KEY", "VALUE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := parseNumber("VALUE", args[1])
			if err != nil {
				return err
			}
			return a.change(cmd.Context(), args[0], "created", durable, func(key string) ([]client.Change, error) {
				return []client.Change{{Verb: client.VerbBoundedCreate, Key: key, Bound: bound, N: n}}, nil
			})
		},
	}, &durable), "meshkv bounded create KS/KEY --bound=-10 -- -5")
	create.Flags().Int64Var(&bound, "bound", 0, "what the value never falls below")
	add := numbered(durableFlag(&cobra.Command{
		Use:   "add KS/KEY N",
		Short: "Add a number; exit code 4 if the node has too few rights to take it away",
		Args:  exactArgs("KS/KEY", "N"),
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := parseNumber("N", args[1])
			if err != nil {
				return err
			}
			return a.change(cmd.Context(), args[0], "added", durable, func(key string) ([]client.Change, error) {
				return []client.Change{{Verb: client.VerbBoundedAdd, Key: key, N: n}}, nil
			})
		},
	}, &durable), "meshkv bounded add KS/KEY -- -5")
	transfer := durableFlag(&cobra.Command{
		Use:   "transfer KS/KEY NODE N",
		Short: "Give rights of the asked node to another one",
		Args:  exactArgs("KS/KEY", "NODE", "N"),
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := parseNumber("N", args[2])
			if err != nil {
				return err
			}
			return a.change(cmd.Context(), args[0], "transferred", durable, func(key string) ([]client.Change, error) {
				return []client.Change{{Verb: client.VerbBoundedTransfer, Key: key, To: args[1], N: n}}, nil
			})
		},
	}, &durable)
	get := afterFlag(&cobra.Command{
		Use:   "get KS/KEY",
		Short: "Print a bounded counter's value, its bound, and what the asked node may take from it",
		Args:  exactArgs("KS/KEY"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.view(cmd.Context(), args[0], after, func(v client.View) error {
				if a.output == formatRaw {
					_, err := fmt.Fprintln(a.stdout, v.Number)
					return err
				}
				t := newTable(a.stdout, "VALUE", "BOUND", "RIGHTS HERE")
				t.row(count(v.Number), count(v.Bound), count(v.Rights))
				return t.end()
			}, client.TypeBounded)
		},
	}, &after)
	return a.typeCommand("bounded", "Count down to a bound and never below it",
		"A bounded counter never falls below its bound, at any node and in any partition: a node takes away only what it has the\n"+
			"rights to, which are what it added and what others transferred to it. Eventual keyspaces.", create, add, get, transfer)
}
