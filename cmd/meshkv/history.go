package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/meshkv/meshkv/client"
)

func (a *app) historyCommand() *cobra.Command {
	var (
		limit    int
		revision uint64
	)
	cmd := &cobra.Command{
		Use:   "history KS/KEY",
		Short: "Print what happened to a key",
		Long: "Print what happened to a key, the newest first.\n\n" +
			"In an eventual keyspace: what the asked node remembers. It forgets who deleted something after a minute, and what\n" +
			"a key showed after 65,536 changes of the keyspace or when it starts anew; of values that are there it knows who\n" +
			"wrote them and when, however long ago. LAG is how long a write was on its way to that node, by both clocks.\n\n" +
			"In a strong keyspace: its versions, back to when the key came into being or to where the history is kept no longer.\n" +
			"For a key that was deleted, --revision names a revision at which it was there.",
		Args: exactArgs("KS/KEY"),
		RunE: func(cmd *cobra.Command, args []string) error {
			keyspace, key, err := parseAddress(args[0])
			if err != nil {
				return err
			}
			if limit < 0 {
				return usagef("--limit %d: a limit is positive, 0 is none", limit)
			}
			return a.withNode(cmd.Context(), func(ctx context.Context, c remoteNode) error {
				if !cmd.Flags().Changed("revision") {
					h, err := c.History(ctx, keyspace, key, &client.HistoryOptions{Limit: limit})
					if !errors.Is(err, client.ErrNeedsEventual) {
						return a.printHistory(h, err)
					}
				}
				s, err := c.Strong(ctx, keyspace)
				if err != nil {
					return fmt.Errorf("open keyspace %s: %w", keyspace, err)
				}
				return a.history(ctx, s, key, revision, limit)
			})
		},
	}
	cmd.Flags().IntVar(&limit, "limit", 0, "print at most this many events or versions; 0 prints 100 events, all versions")
	cmd.Flags().Uint64Var(&revision, "revision", 0, "begin with the version as of this revision; strong keyspaces")
	return a.clientFlags(cmd)
}

// history follows a key back through its life, one linearizable read a version.
// What was is the same whenever it is read.
func (a *app) history(ctx context.Context, s client.Strong, key string, revision uint64, limit int) error {
	return a.buffered(func(w *bufio.Writer) error {
		var t *table
		if a.output == formatTable {
			t = newTable(w)
			defer t.end()
		}
		for n := 1; ; n++ {
			e, err := versionAt(ctx, s, key, revision)
			switch {
			case n > 1 && errors.Is(err, client.ErrCompacted):
				fmt.Fprintf(a.stderr, "meshkv: versions before %d are kept no longer\n", revision+1)
				return nil
			case errors.Is(err, client.ErrNotFound):
				return &failure{
					text:  fmt.Sprintf("history: the key is not there; if it was deleted, --revision names a revision at which it was there: %v", client.ErrNotFound),
					cause: client.ErrNotFound,
				}
			case err != nil:
				return fmt.Errorf("history: %w", err)
			}
			if n == 1 && t != nil {
				t.row("VERSION", "PUTS", "VALUE", "MODIFIED", "SESSION")
			}
			if err := a.printVersionOf(w, t, e); err != nil {
				return err
			}
			if e.Mod == e.Create || n == limit {
				return nil
			}
			revision = e.Mod - 1
		}
	})
}

// versionAt reads a key as of a revision, or now.
func versionAt(ctx context.Context, s client.Strong, key string, revision uint64) (client.StrongEntry, error) {
	result, err := s.Txn(ctx, &client.Txn{Then: []client.TxnOp{{Get: &client.TxnGet{Key: key, Revision: revision}}}})
	switch {
	case err != nil:
		return client.StrongEntry{}, err
	case len(result.Results) != 1 || len(result.Results[0].Entries) != 1:
		return client.StrongEntry{}, client.ErrNotFound
	}
	return result.Results[0].Entries[0], nil
}

func (a *app) printVersionOf(w io.Writer, t *table, e client.StrongEntry) (err error) {
	switch a.output {
	case formatJSON:
		return writeJSON(w, e)
	case formatRaw:
		_, err = fmt.Fprintf(w, "%d\t%s\n", e.Mod, printable(string(e.Value)))
		return err
	}
	session := ""
	if e.Session != 0 {
		session = e.Session.String()
	}
	t.row(strconv.FormatUint(e.Mod, 10), strconv.FormatUint(e.Version, 10), shorten(e.Value), stamp(modified(e)), session)
	return nil
}

func modified(e client.StrongEntry) time.Time {
	if e.ModifiedMillis == 0 {
		return time.Time{}
	}
	return time.UnixMilli(e.ModifiedMillis)
}
