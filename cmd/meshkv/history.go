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
		Short: "Print the versions of a key of a strong keyspace",
		Long: "Print the versions of a key of a strong keyspace, the newest first, back to when the key came into being or to\n" +
			"where the history is kept no longer. For a key that was deleted, --revision names a revision at which it was there.",
		Args: exactArgs("KS/KEY"),
		RunE: func(cmd *cobra.Command, args []string) error {
			keyspace, key, err := parseAddress(args[0])
			if err != nil {
				return err
			}
			if limit < 0 {
				return usagef("--limit %d: a limit is positive, 0 is none", limit)
			}
			return a.withStrong(cmd.Context(), keyspace, func(ctx context.Context, s client.Strong) error {
				return a.history(ctx, s, key, revision, limit)
			})
		},
	}
	cmd.Flags().IntVar(&limit, "limit", 0, "print at most this many versions; 0 prints all")
	cmd.Flags().Uint64Var(&revision, "revision", 0, "begin with the version as of this revision")
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
