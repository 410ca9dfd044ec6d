package main

import (
	"bufio"
	"context"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/meshkv/meshkv/client"
)

// typeCommand groups the commands of a data type.
func (a *app) typeCommand(use, short, long string, commands ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use:   use,
		Short: short,
		Long:  long,
		Args:  cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("%s needs a command: '%s --help' lists them", use, cmd.CommandPath())
			}
			return unknownCommand(cmd, args[0])
		},
	}
	for _, c := range commands {
		cmd.AddCommand(a.clientFlags(c))
	}
	return cmd
}

// atLeastArgs accepts the named arguments, and any number more of the last.
func atLeastArgs(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < len(names) {
			return usagef("%s is missing: usage: %s", names[len(args)], cmd.UseLine())
		}
		return nil
	}
}

// numbered makes a command say how negative numbers are written.
func numbered(cmd *cobra.Command, example string) *cobra.Command {
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usagef("%v; a negative number stands behind --: %s; '%s --help' lists the flags", err, example, cmd.CommandPath())
	})
	return cmd
}

func parseNumber(name, text string) (int64, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, usagef("%s %q is no whole number of 64 bits", name, printable(text))
	}
	return n, nil
}

// A lifetime is the flags of what is put into a set or map.
type lifetime struct {
	ttl       time.Duration
	ephemeral bool
}

func (l *lifetime) flags(cmd *cobra.Command, what string) *cobra.Command {
	cmd.Flags().DurationVar(&l.ttl, "ttl", 0, "let the "+what+" expire after this long")
	cmd.Flags().BoolVar(&l.ephemeral, "ephemeral", false, "bind the "+what+" to the life of the node that stores it")
	return cmd
}

func (l *lifetime) check() error {
	if l.ttl < 0 {
		return usagef("--ttl %v: a time to live is positive", l.ttl)
	}
	return nil
}

// change carries out the changes that make gives for the key of an address.
func (a *app) change(ctx context.Context, address, done string, durable bool, make func(key string) ([]client.Change, error)) error {
	keyspace, key, err := parseAddress(address)
	if err != nil {
		return err
	}
	changes, err := make(key)
	if err != nil {
		return err
	}
	return a.update(ctx, keyspace, done, changes, durable)
}

func (a *app) update(ctx context.Context, keyspace, done string, changes []client.Change, durable bool) error {
	return a.withKeyspace(ctx, keyspace, func(ctx context.Context, ks client.Keyspace) error {
		v, err := ks.Update(ctx, changes, &client.UpdateOptions{Durable: durable})
		if err != nil {
			return fmt.Errorf("update: %w", err)
		}
		return a.printVersion(done, v)
	})
}

func durableFlag(cmd *cobra.Command, durable *bool) *cobra.Command {
	cmd.Flags().BoolVar(durable, "durable", false, "wait until the change is on the node's disk")
	return cmd
}

// view prints the view of a key that is to be of one of the types.
func (a *app) view(ctx context.Context, address, after string, print func(client.View) error, types ...client.Type) error {
	keyspace, key, err := parseAddress(address)
	if err != nil {
		return err
	}
	return a.withKeyspace(ctx, keyspace, func(ctx context.Context, ks client.Keyspace) error {
		v, err := ks.View(ctx, key, &client.GetOptions{After: client.Token(after)})
		if err != nil {
			return fmt.Errorf("get: %w", err)
		}
		for _, want := range types {
			switch {
			case v.Type != want:
			case a.output == formatJSON:
				return a.printJSON(v)
			default:
				return print(v)
			}
		}
		return fmt.Errorf("get: %w", client.WrongType(v.Type, types[0]))
	})
}

func afterFlag(cmd *cobra.Command, after *string) *cobra.Command {
	cmd.Flags().StringVar(after, "after", "", "first wait until the node has seen the write with this token")
	return cmd
}

// An elementFlags is the flags of a command that prints elements.
type elementFlags struct {
	after string
	limit int
	seen  string
}

func (l *elementFlags) flags(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().IntVar(&l.limit, "limit", 0, "print at most this many; 0 prints all")
	cmd.Flags().StringVar(&l.after, "after", "", "print only what comes after this position (of -o json)")
	cmd.Flags().StringVar(&l.seen, "seen", "", "first wait until the node has seen the write with this token")
	return cmd
}

func (l *elementFlags) options(t client.Type) (*client.ElementsOptions, error) {
	if l.limit < 0 {
		return nil, usagef("--limit %d: a limit is positive, 0 is none", l.limit)
	}
	after, err := client.ParsePosition(l.after)
	if err != nil {
		return nil, usagef("--after %q is no position that meshkv printed", printable(l.after))
	}
	return &client.ElementsOptions{Type: t, After: after, Limit: l.limit, Seen: client.Token(l.seen)}, nil
}

// elements prints the elements of a key as rows, as raw lines, or as JSON, one a line.
func (a *app) elements(ctx context.Context, address string, o *client.ElementsOptions, header []string, row func(client.Element) []string, raw func(client.Element) string) error {
	keyspace, key, err := parseAddress(address)
	if err != nil {
		return err
	}
	return a.withKeyspace(ctx, keyspace, func(ctx context.Context, ks client.Keyspace) error {
		return a.buffered(func(w *bufio.Writer) error { return a.printElements(w, ks.Elements(ctx, key, o), header, row, raw) })
	})
}

func (a *app) printElements(w *bufio.Writer, elements iter.Seq2[client.Element, error], header []string, row func(client.Element) []string, raw func(client.Element) string) error {
	var t *table
	if a.output == formatTable {
		t = newTable(w, header...)
	}
	for e, err := range elements {
		switch {
		case err != nil:
			err = fmt.Errorf("ls: %w", err)
		case a.output == formatJSON:
			err = writeJSON(w, e)
		case a.output == formatRaw:
			_, err = fmt.Fprintln(w, raw(e))
		default:
			t.row(row(e)...)
		}
		if err != nil {
			return err
		}
	}
	if t != nil {
		return t.end()
	}
	return nil
}

func pathText(path []string) string { return strings.Join(path, " ") }
