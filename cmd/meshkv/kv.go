package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/meshkv/meshkv/client"
)

// maxStdinValue bounds what is read from stdin before the node is asked: the
// largest value that any node can be configured to take.
const maxStdinValue = 1 << 20

func (a *app) putCommand() *cobra.Command {
	var (
		o         client.PutOptions
		ifVersion string
		acks      string
	)
	cmd := &cobra.Command{
		Use:     "put KS/KEY VALUE|-",
		Short:   "Store a value; '-' reads it from stdin",
		Example: "  meshkv put nodes/host-1 '{\"vtep\":\"10.0.0.1\"}'\n  meshkv put config/blob - < file\n  meshkv put leases/a x --ttl 30s",
		Args:    exactArgs("KS/KEY", "VALUE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.TTL < 0 {
				return usagef("--ttl %v: a time to live is positive", o.TTL)
			}
			if o.IfAbsent && ifVersion != "" {
				return usagef("--if-absent and --if-version exclude each other")
			}
			var err error
			if o.IfVersion, err = parseVersion(ifVersion); err != nil {
				return err
			}
			if o.Acks, err = parseAcks(acks); err != nil {
				return err
			}
			return a.put(cmd.Context(), args[0], args[1], &o)
		},
	}
	cmd.Flags().DurationVar(&o.TTL, "ttl", 0, "let the value expire after this long")
	cmd.Flags().BoolVar(&o.Ephemeral, "ephemeral", false, "bind the value to the life of the node that stores it")
	cmd.Flags().BoolVar(&o.Durable, "durable", false, "wait until the value is on the node's disk, and on those of the members that --acks counts")
	acksFlag(cmd, &acks)
	cmd.Flags().BoolVar(&o.IfAbsent, "if-absent", false, "only if there is no such key, else exit code 4; strong keyspaces")
	cmd.Flags().StringVar(&ifVersion, "if-version", "", "only if the key has this version, else exit code 4; strong keyspaces")
	return a.clientFlags(cmd)
}

func (a *app) casCommand() *cobra.Command {
	var ifVersion string
	cmd := &cobra.Command{
		Use:   "cas KS/KEY VALUE|- --if-version V",
		Short: "Store a value if the key still has a version",
		Long: "Store a value in a strong keyspace if the key still has the version that 'meshkv get -o json' gave, else end\n" +
			"with exit code 4 and change nothing.",
		Args: exactArgs("KS/KEY", "VALUE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if ifVersion == "" {
				return usagef("--if-version is missing: give the version that the key must have ('meshkv put --if-absent' wants none)")
			}
			v, err := parseVersion(ifVersion)
			if err != nil {
				return err
			}
			return a.put(cmd.Context(), args[0], args[1], &client.PutOptions{IfVersion: v})
		},
	}
	cmd.Flags().StringVar(&ifVersion, "if-version", "", "the version that the key must have")
	return a.clientFlags(cmd)
}

// parseVersion is the version of --if-version; empty is none.
func parseVersion(text string) (client.Version, error) {
	v, err := client.ParseVersion(text)
	if err != nil {
		return v, usagef("--if-version %q is no version that meshkv printed", printable(text))
	}
	return v, nil
}

// acksFlag is --acks.
func acksFlag(cmd *cobra.Command, acks *string) {
	cmd.Flags().StringVar(acks, "acks", "local", "wait until so many members have it, else exit code 5: local, a number, quorum or all; eventual keyspaces")
}

func parseAcks(text string) (client.AckPolicy, error) {
	p, err := client.ParseAcks(text)
	if err != nil {
		return 0, usagef("--acks %q is none of local, quorum, all and 1 to %d", printable(text), client.MaxAcks)
	}
	return p, nil
}

// put stores a value, or stdin if that is -.
func (a *app) put(ctx context.Context, address, value string, o *client.PutOptions) error {
	keyspace, key, err := parseAddress(address)
	if err != nil {
		return err
	}
	stored, err := a.valueOf(value)
	if err != nil {
		return err
	}
	return a.withKeyspace(ctx, keyspace, func(ctx context.Context, ks client.Keyspace) error {
		v, err := ks.Put(ctx, key, stored, o)
		if err != nil {
			return fmt.Errorf("put: %w", err)
		}
		return a.printVersion("stored", v)
	})
}

// valueOf is the value of an argument, or stdin if that is -.
func (a *app) valueOf(arg string) ([]byte, error) {
	if arg == "-" {
		return readValue(a.stdin)
	}
	return []byte(arg), nil
}

func readValue(r io.Reader) ([]byte, error) {
	value, err := io.ReadAll(io.LimitReader(r, maxStdinValue+1))
	if err != nil {
		return nil, fmt.Errorf("read the value from stdin: %w", err)
	}
	if len(value) > maxStdinValue {
		return nil, fmt.Errorf("value on stdin exceeds %d bytes: %w", maxStdinValue, client.ErrTooLarge)
	}
	return value, nil
}

func (a *app) printVersion(done string, v client.Version) error {
	switch a.output {
	case formatJSON:
		return a.printJSON(struct {
			Version string       `json:"version"`
			Token   client.Token `json:"token"`
		}{v.String(), v.Token()})
	case formatRaw:
		_, err := fmt.Fprintln(a.stdout, v)
		return err
	}
	_, err := fmt.Fprintf(a.stdout, "%s, version %s\n", done, v)
	return err
}

func (a *app) getCommand() *cobra.Command {
	var (
		o            client.GetOptions
		after, level string
	)
	cmd := &cobra.Command{
		Use:   "get KS/KEY",
		Short: "Print a value",
		Long:  "Print a value and a line end. '-o raw' prints exactly the value's bytes, '-o json' the whole entry.",
		Args:  exactArgs("KS/KEY"),
		RunE: func(cmd *cobra.Command, args []string) error {
			keyspace, key, err := parseAddress(args[0])
			if err != nil {
				return err
			}
			if o.Local, o.Linearizable, err = parseConsistency(level); err != nil {
				return err
			}
			o.After = client.Token(after)
			return a.withKeyspace(cmd.Context(), keyspace, func(ctx context.Context, ks client.Keyspace) error {
				e, err := ks.Get(ctx, key, &o)
				if err != nil {
					return fmt.Errorf("get: %w", err)
				}
				return a.printEntry(e)
			})
		},
	}
	cmd.Flags().StringVar(&after, "after", "", "first wait until the node has seen the write with this token")
	cmd.Flags().BoolVar(&o.Siblings, "siblings", false, "also print concurrent values")
	cmd.Flags().StringVar(&level, "consistency", "", "local or linearizable (default: linearizable in strong keyspaces, local in eventual ones)")
	cmd.Flags().Uint64Var(&o.Revision, "revision", 0, "read as of this revision; strong keyspaces")
	return a.clientFlags(cmd)
}

func (a *app) printEntry(e client.Entry) error {
	switch a.output {
	case formatJSON:
		return a.printJSON(e)
	case formatRaw:
		_, err := a.stdout.Write(e.Value)
		return err
	}
	if len(e.Siblings) > 0 {
		t := newTable(a.stdout, "VALUE", "VERSION", "ORIGIN", "MODIFIED")
		t.row(shorten(e.Value), e.Version.String(), e.Origin, stamp(e.Modified))
		for _, s := range e.Siblings {
			t.row(shorten(s.Value), s.Version.String(), s.Origin, stamp(s.Modified))
		}
		return t.end()
	}
	text := string(e.Value)
	if isTerminal(a.stdout) { // a stored value must not drive the terminal
		lines := strings.Split(text, "\n")
		for i := range lines {
			lines[i] = printable(lines[i])
		}
		text = strings.Join(lines, "\n")
	}
	_, err := fmt.Fprintln(a.stdout, text)
	return err
}

// parseConsistency reads --consistency; empty leaves it to the keyspace's mode.
func parseConsistency(level string) (local, linearizable bool, err error) {
	switch level {
	case "":
	case "local":
		local = true
	case "linearizable":
		linearizable = true
	default:
		err = usagef("--consistency %q: the levels are local and linearizable", printable(level))
	}
	return local, linearizable, err
}

func (a *app) delCommand() *cobra.Command {
	var (
		o         client.DeleteOptions
		ifVersion string
		acks      string
	)
	cmd := &cobra.Command{
		Use:   "del KS/KEY",
		Short: "Delete every value of a key that the node holds",
		Long:  "Delete every value of a key that the node holds. That there was none is no error.",
		Args:  exactArgs("KS/KEY"),
		RunE: func(cmd *cobra.Command, args []string) error {
			keyspace, key, err := parseAddress(args[0])
			if err != nil {
				return err
			}
			if o.IfVersion, err = parseVersion(ifVersion); err != nil {
				return err
			}
			if o.Acks, err = parseAcks(acks); err != nil {
				return err
			}
			return a.withKeyspace(cmd.Context(), keyspace, func(ctx context.Context, ks client.Keyspace) error {
				d, err := ks.Delete(ctx, key, &o)
				if err != nil {
					return fmt.Errorf("del: %w", err)
				}
				return a.printDeletion(d)
			})
		},
	}
	cmd.Flags().BoolVar(&o.Durable, "durable", false, "wait until the deletion is on the node's disk, and on those of the members that --acks counts")
	acksFlag(cmd, &acks)
	cmd.Flags().StringVar(&ifVersion, "if-version", "", "only if the key has this version, else exit code 4; strong keyspaces")
	return a.clientFlags(cmd)
}

func (a *app) printDeletion(d client.Deletion) error {
	switch {
	case a.output == formatJSON:
		return a.printJSON(struct {
			Deleted bool         `json:"deleted"`
			Version string       `json:"version,omitempty"`
			Token   client.Token `json:"token,omitempty"`
		}{d.Deleted, d.Version.String(), d.Version.Token()})
	case a.output == formatRaw:
		_, err := fmt.Fprintln(a.stdout, d.Version)
		return err
	case !d.Deleted:
		_, err := fmt.Fprintln(a.stdout, "there was no such key")
		return err
	}
	return a.printVersion("deleted", d.Version)
}

func (a *app) lsCommand() *cobra.Command {
	var o client.ListOptions
	cmd := &cobra.Command{
		Use:   "ls KS[/PREFIX]",
		Short: "List the keys under a prefix",
		Long:  "List the keys under a prefix in byte order. '-o raw' prints the keys alone, '-o json' one entry a line.",
		Args:  exactArgs("KS[/PREFIX]"),
		RunE: func(cmd *cobra.Command, args []string) error {
			keyspace, prefix, err := parsePrefix(args[0])
			if err != nil {
				return err
			}
			if o.Limit < 0 {
				return usagef("--limit %d: a limit is positive, 0 is none", o.Limit)
			}
			o.KeysOnly = a.output == formatRaw
			return a.withKeyspace(cmd.Context(), keyspace, func(ctx context.Context, ks client.Keyspace) error {
				return a.buffered(func(w *bufio.Writer) error { return printList(ctx, w, a.output, ks, prefix, &o) })
			})
		},
	}
	cmd.Flags().IntVar(&o.Limit, "limit", 0, "list at most this many keys; 0 lists all")
	cmd.Flags().StringVar(&o.After, "after", "", "list only what comes after this key")
	cmd.Flags().BoolVar(&o.Local, "local", false, "list what the asked node holds, which may be behind in strong keyspaces")
	cmd.Flags().Uint64Var(&o.Revision, "revision", 0, "list as of this revision; strong keyspaces")
	return a.clientFlags(cmd)
}

// printList writes the entries under prefix in the given form.
func printList(ctx context.Context, w io.Writer, format string, ks client.Keyspace, prefix string, o *client.ListOptions) error {
	var t *table
	if format == formatTable {
		t = newTable(w, "KEY", "VALUE", "ORIGIN", "MODIFIED", "EXPIRES")
	}
	for e, err := range ks.List(ctx, prefix, o) {
		if err != nil {
			return fmt.Errorf("ls: %w", err)
		}
		switch format {
		case formatJSON:
			err = writeJSON(w, e)
		case formatRaw:
			_, err = fmt.Fprintln(w, e.Key)
		default:
			t.row(e.Key, contents(e), e.Origin, stamp(e.Modified), lifetimeOf(e.Ephemeral, e.Expires))
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

// contents is the value of an entry, or the type that has others.
func contents(e client.Entry) string {
	if e.Type != client.TypeRegister {
		return "(" + e.Type.String() + ")"
	}
	return shorten(e.Value)
}

// lifetimeOf says what ends an entry or element.
func lifetimeOf(ephemeral bool, expires time.Time) string {
	switch {
	case ephemeral && expires.IsZero():
		return "with its node"
	case ephemeral:
		return "with its node, " + stamp(expires)
	}
	return stamp(expires)
}
