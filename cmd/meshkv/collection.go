package main

import (
	"bufio"
	"context"
	"fmt"
	"iter"
	"slices"

	"github.com/spf13/cobra"

	"github.com/meshkv/meshkv/client"
)

func (a *app) setCommand() *cobra.Command {
	var (
		durable bool
		life    lifetime
		list    elementFlags
	)
	change := func(verb client.Verb, done string) func(cmd *cobra.Command, args []string) error {
		return func(cmd *cobra.Command, args []string) error {
			if err := life.check(); err != nil {
				return err
			}
			return a.change(cmd.Context(), args[0], done, durable, func(key string) ([]client.Change, error) {
				var changes []client.Change
				for _, e := range args[1:] {
					changes = append(changes, client.Change{Verb: verb, Key: key, Path: []string{e}, TTL: life.ttl, Ephemeral: life.ephemeral})
				}
				return changes, nil
			})
		}
	}
	add := life.flags(durableFlag(&cobra.Command{
		Use:     "add KS/KEY ELEMENT...",
		Short:   "Add elements to a set, all at once",
		Example: "  meshkv set add net/gateways 10.0.0.1 10.0.0.2",
		Args:    atLeastArgs("KS/KEY", "ELEMENT"),
		RunE:    change(client.VerbSetAdd, "added"),
	}, &durable), "elements")
	rm := durableFlag(&cobra.Command{
		Use:   "rm KS/KEY ELEMENT...",
		Short: "Remove elements from a set, all at once; absent ones are no error",
		Args:  atLeastArgs("KS/KEY", "ELEMENT"),
		RunE:  change(client.VerbSetRemove, "removed"),
	}, &durable)
	ls := list.flags(&cobra.Command{
		Use:   "ls KS/KEY",
		Short: "List the elements of a set in byte order",
		Long:  "List the elements of a set in byte order. '-o raw' prints the elements alone, '-o json' one a line.",
		Args:  exactArgs("KS/KEY"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := list.options(client.TypeSet)
			if err != nil {
				return err
			}
			return a.elements(cmd.Context(), args[0], o, []string{"ELEMENT", "ORIGIN", "MODIFIED", "EXPIRES"}, func(e client.Element) []string {
				return []string{e.Path[0], e.Origin, stamp(e.Modified), lifetimeOf(e.Ephemeral, e.Expires)}
			}, func(e client.Element) string { return e.Path[0] })
		},
	})
	return a.typeCommand("set", "Keep a set of elements",
		"A set holds elements of 1 to 1,024 bytes. One that is added and removed at the same time stays. Eventual keyspaces.", add, rm, ls)
}

func (a *app) mapCommand() *cobra.Command {
	var (
		durable bool
		life    lifetime
		list    elementFlags
	)
	put := life.flags(durableFlag(&cobra.Command{
		Use:   "put KS/KEY FIELD... VALUE|-",
		Short: "Set a field of a map; '-' reads the value from stdin",
		Long:  "Set a field of a map. More than one FIELD is the path of a field in nested maps, outermost first.",
		Example: "  meshkv map put hosts/host-1 vtep 10.0.0.1\n" +
			"  meshkv map put hosts/host-1 interfaces eth0 up",
		Args: atLeastArgs("KS/KEY", "FIELD", "VALUE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := life.check(); err != nil {
				return err
			}
			return a.change(cmd.Context(), args[0], "put", durable, func(key string) ([]client.Change, error) {
				last := len(args) - 1
				value, err := a.valueOf(args[last])
				return []client.Change{{
					Verb: client.VerbMapPut, Key: key, Path: args[1:last], Value: value, TTL: life.ttl, Ephemeral: life.ephemeral,
				}}, err
			})
		},
	}, &durable), "field")
	rm := durableFlag(&cobra.Command{
		Use:   "rm KS/KEY FIELD...",
		Short: "Remove a field with all that is under it; an absent one is no error",
		Long:  "Remove a field with all that is under it. More than one FIELD is the path of one field, outermost first.",
		Args:  atLeastArgs("KS/KEY", "FIELD"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.change(cmd.Context(), args[0], "removed", durable, func(key string) ([]client.Change, error) {
				return []client.Change{{Verb: client.VerbMapRemove, Key: key, Path: args[1:]}}, nil
			})
		},
	}, &durable)
	get := list.flags(&cobra.Command{
		Use:   "get KS/KEY [FIELD...]",
		Short: "Print a field's value, or all fields",
		Long: "Print the value of a field as 'meshkv get' does, or all fields of the map or of a nested one.\n" +
			"'-o raw' prints exactly the value's bytes, or paths and values; '-o json' one field a line.",
		Args: atLeastArgs("KS/KEY"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := list.options(client.TypeMap)
			if err != nil {
				return err
			}
			if len(args) > 1 {
				o.Under = args[1:]
			}
			return a.mapGet(cmd.Context(), args[0], o)
		},
	})
	return a.typeCommand("map", "Keep a map of fields, which may be maps",
		"The fields of a map change independently; one that is put and removed at the same time stays. Eventual keyspaces.", put, rm, get)
}

// mapGet prints the one field that o names, or what is under it.
func (a *app) mapGet(ctx context.Context, address string, o *client.ElementsOptions) error {
	keyspace, key, err := parseAddress(address)
	if err != nil {
		return err
	}
	return a.withKeyspace(ctx, keyspace, func(ctx context.Context, ks client.Keyspace) error {
		elements := ks.Elements(ctx, key, o)
		if o.Under != nil {
			e, err := oneElement(elements)
			switch {
			case err != nil:
				return fmt.Errorf("get: %w", err)
			case slices.Equal(e.Path, o.Under) && a.output != formatJSON:
				return a.printEntry(client.Entry{Value: e.Value})
			}
		}
		return a.buffered(func(w *bufio.Writer) error {
			return a.printElements(w, elements, []string{"FIELD", "VALUE", "ORIGIN", "MODIFIED", "EXPIRES"}, func(e client.Element) []string {
				return []string{pathText(e.Path), shorten(e.Value), e.Origin, stamp(e.Modified), lifetimeOf(e.Ephemeral, e.Expires)}
			}, func(e client.Element) string {
				return printable(pathText(e.Path)) + "\t" + printable(string(e.Value))
			})
		})
	})
}

// oneElement is the first element.
func oneElement(elements iter.Seq2[client.Element, error]) (client.Element, error) {
	next, stop := iter.Pull2(elements)
	defer stop()
	e, err, ok := next()
	if !ok {
		return e, fmt.Errorf("%w: the map has no such field", client.ErrNotFound)
	}
	return e, err
}

func (a *app) logCommand() *cobra.Command {
	var (
		durable bool
		list    elementFlags
	)
	add := durableFlag(&cobra.Command{
		Use:   "append KS/KEY VALUE|-...",
		Short: "Append entries to a log, all at once; '-' reads one from stdin",
		Args:  atLeastArgs("KS/KEY", "VALUE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.change(cmd.Context(), args[0], "appended", durable, func(key string) (changes []client.Change, err error) {
				for _, arg := range args[1:] {
					value, err := a.valueOf(arg)
					if err != nil {
						return nil, err
					}
					changes = append(changes, client.Change{Verb: client.VerbLogAppend, Key: key, Value: value})
				}
				return changes, nil
			})
		},
	}, &durable)
	limit := durableFlag(&cobra.Command{
		Use:   "cap KS/KEY N",
		Short: "Keep the newest N entries, at most 4,096",
		Args:  exactArgs("KS/KEY", "N"),
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := parseNumber("N", args[1])
			if err != nil {
				return err
			}
			return a.change(cmd.Context(), args[0], "capped", durable, func(key string) ([]client.Change, error) {
				return []client.Change{{Verb: client.VerbLogCap, Key: key, N: n}}, nil
			})
		},
	}, &durable)
	ls := list.flags(&cobra.Command{
		Use:   "ls KS/KEY",
		Short: "List the entries of a log, oldest first",
		Long:  "List the entries of a log, oldest first. '-o raw' prints the values alone, each with a line end, '-o json' one entry a line.",
		Args:  exactArgs("KS/KEY"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := list.options(client.TypeLog)
			if err != nil {
				return err
			}
			return a.elements(cmd.Context(), args[0], o, []string{"MODIFIED", "ORIGIN", "VALUE"}, func(e client.Element) []string {
				return []string{stamp(e.Modified), e.Origin, shorten(e.Value)}
			}, func(e client.Element) string { return string(e.Value) })
		},
	})
	return a.typeCommand("log", "Append entries and keep the newest",
		"A log keeps the newest entries, 4,096 or fewer, in the order of their times. Eventual keyspaces.", add, ls, limit)
}
