package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/meshkv/meshkv/client"
)

// keyspaceSettingsCommands change what an eventual keyspace takes.
func (a *app) keyspaceSettingsCommands() []*cobra.Command {
	freeze := func(use, short, long string, frozen bool) *cobra.Command {
		return &cobra.Command{
			Use: use + " KS", Short: short, Long: long, Args: exactArgs("KS"),
			RunE: func(cmd *cobra.Command, args []string) error {
				return a.changeSettings(cmd.Context(), args[0], client.SettingsChange{Frozen: &frozen})
			},
		}
	}
	all := []*cobra.Command{
		a.keyspaceSetCommand(),
		freeze("freeze", "Refuse puts and deletes in an eventual keyspace",
			"Refuse puts and deletes in an eventual keyspace, at the asked node at once and at every other as soon as it learns\n"+
				"of it: behind a partition that is when it ends. Writes that are on their way still arrive, and what expires still\n"+
				"goes. Reads, watches and replication go on.", true),
		freeze("thaw", "Take writes to a frozen keyspace again",
			"Take writes to a frozen keyspace again. A freeze that the asked node has not heard of yet stays.", false),
	}
	for _, cmd := range all {
		a.clientFlags(cmd)
	}
	return all
}

func (a *app) keyspaceSetCommand() *cobra.Command {
	var maxValue, maxBytes, maxKeys, rate, schema string
	cmd := &cobra.Command{
		Use:   "set KS [--max-value SIZE] [--max-keys N] [--max-bytes SIZE] [--rate N] [--schema FILE]",
		Short: "Limit what an eventual keyspace takes",
		Long: "Limit what an eventual keyspace takes. Every node checks the writes that it serves itself; what comes from others is\n" +
			"never refused, and counted where it is against the limits ('meshkv keyspace info'). 'none' takes a limit away, and\n" +
			"what is not named stays as it is.",
		Example: "  meshkv keyspace set nodes --max-value 4KiB --max-keys 10000 --rate 500 --schema node.json\n  meshkv keyspace set nodes --schema none",
		Args:    exactArgs("KS"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var change client.SettingsChange
			for _, each := range []struct {
				flag, text string
				size       bool
				to         **int64
			}{
				{"max-value", maxValue, true, &change.MaxValue}, {"max-bytes", maxBytes, true, &change.MaxBytes},
				{"max-keys", maxKeys, false, &change.MaxKeys}, {"rate", rate, false, &change.Rate},
			} {
				if !cmd.Flags().Changed(each.flag) {
					continue
				}
				n, err := parseLimit(each.text, each.size)
				if err != nil {
					return usagef("--%s %q: %v", each.flag, printable(each.text), err)
				}
				*each.to = &n
			}
			if cmd.Flags().Changed("schema") {
				text, err := a.readSchema(schema)
				if err != nil {
					return err
				}
				change.Schema = &text
			}
			if change.Empty() {
				return usagef("nothing to set: '%s --help' lists the limits, 'meshkv keyspace info' shows those that are set", cmd.CommandPath())
			}
			return a.changeSettings(cmd.Context(), args[0], change)
		},
	}
	cmd.Flags().StringVar(&maxValue, "max-value", "", "the largest value, such as 4KiB")
	cmd.Flags().StringVar(&maxKeys, "max-keys", "", "no more keys than this many; deletes and overwrites go on")
	cmd.Flags().StringVar(&maxBytes, "max-bytes", "", "no growth beyond this size of keys and values, such as 64MiB")
	cmd.Flags().StringVar(&rate, "rate", "", "puts a second at each node")
	cmd.Flags().StringVar(&schema, "schema", "", "a file with a JSON Schema that values must conform to; '-' reads stdin")
	return cmd
}

const noLimit = "none"

// parseLimit reads a positive number, or none as 0.
func parseLimit(text string, size bool) (int64, error) {
	if text == noLimit {
		return 0, nil
	}
	if size {
		n, err := parseSize(text)
		if err == nil && (n == 0 || n > 1<<62) {
			err = errors.New("a size is a number of bytes, or one of KiB, MiB, GiB or TiB; 'none' is no limit")
		}
		return int64(n), err
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n <= 0 {
		return 0, errors.New("a limit is a positive number; 'none' is no limit")
	}
	return n, nil
}

// readSchema reads a file, or stdin if it is -; none is empty.
func (a *app) readSchema(name string) (string, error) {
	var r io.Reader = a.stdin
	switch name {
	case noLimit:
		return "", nil
	case "":
		return "", usagef("--schema names a file, '-' for stdin, or 'none'")
	case "-":
	default:
		f, err := os.Open(name)
		if err != nil {
			return "", usagef("--schema: %v", err)
		}
		defer f.Close()
		r = f
	}
	text, err := io.ReadAll(io.LimitReader(r, client.MaxSchema+1))
	switch {
	case err != nil:
		return "", fmt.Errorf("read the schema: %w", err)
	case len(text) == 0:
		return "", usagef("--schema: there is nothing in it; 'none' takes the schema away")
	case len(text) > client.MaxSchema:
		return "", fmt.Errorf("the schema exceeds %d bytes: %w", client.MaxSchema, client.ErrTooLarge)
	}
	return string(text), nil
}

func (a *app) changeSettings(ctx context.Context, name string, change client.SettingsChange) error {
	if err := checkKeyspace(name); err != nil {
		return err
	}
	return a.withNode(ctx, func(ctx context.Context, c remoteNode) error {
		s, err := c.ChangeSettings(ctx, name, change)
		if err != nil {
			return fmt.Errorf("keyspace %s: %w", name, err)
		}
		switch a.output {
		case formatJSON:
			return a.printJSON(struct {
				Name     string                  `json:"name"`
				Settings client.KeyspaceSettings `json:"settings"`
			}{name, s})
		case formatRaw:
			_, err := fmt.Fprintln(a.stdout, name)
			return err
		}
		t := newTable(a.stdout)
		t.row("name", name)
		settingRows(t, s)
		return t.end()
	})
}

// settingRows lists what is set.
func settingRows(t *table, s client.KeyspaceSettings) {
	if s.Frozen {
		t.row("frozen", "yes: puts and deletes are refused")
	}
	for _, each := range []struct {
		name, unit string
		n          int64
	}{{"max value", " bytes", s.MaxValue}, {"max keys", "", s.MaxKeys}, {"max bytes", " bytes", s.MaxBytes}, {"rate", " puts/s at each node", s.Rate}} {
		if each.n > 0 {
			t.row(each.name, count(each.n)+each.unit)
		}
	}
	if s.Schema != "" {
		t.row("schema", count(len(s.Schema))+" bytes; -o json shows it")
	}
}
