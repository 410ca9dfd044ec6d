package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/meshkv/meshkv/client"
)

func (a *app) electCommand() *cobra.Command {
	var (
		f       lockFlags
		observe bool
	)
	cmd := &cobra.Command{
		Use:   "elect KS/NAME VALUE [-- CMD...]",
		Short: "Lead an election while a command runs, or follow who leads",
		Long: "Wait until this process leads an election of a strong keyspace, run a command, and resign. VALUE is shown to\n" +
			"those who follow. The command finds the term, a fencing token, in MESHKV_ELECTION_TOKEN and MESHKV_FENCING_TOKEN;\n" +
			"when the leadership is lost it ends as that of 'meshkv lock' does. Without a command this leads until interrupted.\n" +
			"'meshkv elect KS/NAME --observe' prints who leads, and every change.",
		Example: "  meshkv elect locks/scheduler host-1 -- ./scheduler\n  meshkv elect locks/scheduler --observe -o json",
		Args: func(cmd *cobra.Command, args []string) error {
			if observe {
				return exactArgs("KS/NAME")(cmd, args)
			}
			return addressAndCommand("KS/NAME", "VALUE")(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			keyspace, name, err := parseAddress(args[0])
			if err != nil {
				return err
			}
			if observe {
				return a.observe(cmd.Context(), keyspace, name)
			}
			if err := f.check(); err != nil {
				return err
			}
			value := []byte(args[1])
			return a.hold(cmd.Context(), holding{
				what: "election", keyspace: keyspace, name: name, ttl: f.ttl, argv: args[2:],
				acquire: func(ctx context.Context, s client.Strong) (client.Held, error) {
					return s.Campaign(ctx, name, value, &client.LockOptions{TTL: f.ttl})
				},
			})
		},
	}
	cmd.Flags().BoolVar(&observe, "observe", false, "only follow who leads")
	return a.holdFlags(cmd, &f)
}

// observe prints who leads until ctx ends. Only the beginning is bounded by
// --timeout.
func (a *app) observe(ctx context.Context, keyspace, name string) error {
	opening, cancel := a.deadline(ctx)
	defer cancel()
	c, err := a.connect(opening, a.addr)
	if err != nil {
		return err
	}
	defer c.Close()
	s, err := c.Strong(opening, keyspace)
	if err != nil {
		return fmt.Errorf("open keyspace %s: %w", keyspace, err)
	}
	o, err := s.Observe(opening, name)
	if err != nil {
		return fmt.Errorf("elect: %w", err)
	}
	defer o.Close()
	for {
		leader, err := o.Next(ctx)
		if err != nil {
			return fmt.Errorf("elect: %w", err)
		}
		if err := printLeader(a.stdout, a.output, leader); err != nil {
			return err
		}
	}
}

func printLeader(w io.Writer, format string, l client.Leader) (err error) {
	switch {
	case format == formatJSON:
		return writeJSON(w, l)
	case format == formatRaw:
		value := ""
		if l.Elected {
			value = printable(string(l.Value))
		}
		_, err = fmt.Fprintln(w, value)
	case !l.Known && !l.Elected:
		_, err = fmt.Fprintln(w, "unknown  (no majority answers; nobody led)")
	case !l.Known:
		_, err = fmt.Fprintf(w, "unknown  (no majority answers; %s led, token %d)\n", shorten(l.Value), l.Token)
	case !l.Elected:
		_, err = fmt.Fprintln(w, "nobody leads")
	default:
		_, err = fmt.Fprintf(w, "leader   %s  (token %d)\n", shorten(l.Value), l.Token)
	}
	return err
}
