package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/meshkv/meshkv/client"
)

func (a *app) watchCommand() *cobra.Command {
	var (
		o           client.WatchOptions
		from        string
		only        string
		untilSynced bool
	)
	cmd := &cobra.Command{
		Use:   "watch KS[/PREFIX]",
		Short: "Print the state under a prefix and then its changes",
		Long: "Print the state under a prefix, 'synced', and then every change until interrupted.\n" +
			"'-o json' prints one event a line; its cursor can be given to --from. In a strong keyspace a cursor is a revision,\n" +
			"good at every node, and the changes of one transaction have that before it but for the last.",
		Args: exactArgs("KS[/PREFIX]"),
		RunE: func(cmd *cobra.Command, args []string) error {
			keyspace, prefix, err := parsePrefix(args[0])
			if err != nil {
				return err
			}
			if untilSynced && (o.UpdatesOnly || from != "") {
				return usagef("--until-synced ends after the snapshot: it cannot go with --updates-only or --from")
			}
			if o.Exact && from == "" {
				return usagef("--exact goes with --from: it wants every change since that")
			}
			if o.Only, err = client.ParseEventSet(only); err != nil {
				return usagef("--only: %v", err)
			}
			o.From = client.Cursor(from)
			return a.watch(cmd.Context(), keyspace, prefix, &o, untilSynced)
		},
	}
	cmd.Flags().StringVar(&from, "from", "", "resume after the event with this cursor; of a strong keyspace: after this revision")
	cmd.Flags().BoolVar(&o.Exact, "exact", false, "fail, instead of a snapshot, where the history since --from is kept no longer; strong keyspaces")
	cmd.Flags().BoolVar(&o.UpdatesOnly, "updates-only", false, "leave out the state at the start")
	cmd.Flags().StringVar(&only, "only", "", "report only these kinds of changes: some of put,deleted,expired,owner-failed")
	cmd.Flags().BoolVar(&o.NotMine, "not-mine", false, "leave out the changes that were made at the node that serves the watch; eventual keyspaces")
	cmd.Flags().BoolVar(&untilSynced, "until-synced", false, "end when the state at the start is complete")
	a.clientFlags(cmd)
	cmd.Flags().Lookup("timeout").Usage = "give up if the watch has not begun after this long"
	return cmd
}

// watch prints events until ctx ends. Only its opening is bounded by --timeout.
func (a *app) watch(ctx context.Context, keyspace, prefix string, o *client.WatchOptions, untilSynced bool) error {
	opening, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var timer *time.Timer
	if a.timeout > 0 {
		timer = time.AfterFunc(a.timeout, func() { cancel(fmt.Errorf("open the watch: %w", client.ErrTimeout)) })
		defer timer.Stop()
	}
	c, w, err := a.openWatch(opening, keyspace, prefix, o)
	if err != nil {
		if cause := context.Cause(opening); errors.Is(cause, client.ErrTimeout) {
			return cause
		}
		return err
	}
	if timer != nil {
		timer.Stop()
	}
	defer c.Close()
	defer w.Close()
	return a.printEvents(ctx, w, untilSynced)
}

func (a *app) openWatch(ctx context.Context, keyspace, prefix string, o *client.WatchOptions) (remoteNode, client.Watch, error) {
	c, err := a.connect(ctx, a.addr)
	if err != nil {
		return nil, nil, err
	}
	ks, err := c.Keyspace(ctx, keyspace)
	if err != nil {
		c.Close()
		return nil, nil, fmt.Errorf("open keyspace %s: %w", keyspace, err)
	}
	w, err := ks.Watch(ctx, prefix, o)
	if err != nil {
		c.Close()
		return nil, nil, fmt.Errorf("watch: %w", err)
	}
	return c, w, nil
}

func (a *app) printEvents(ctx context.Context, w client.Watch, untilSynced bool) error {
	for {
		ev, err := w.Next(ctx)
		switch {
		case errors.Is(err, client.ErrUnavailable):
			return &failure{
				text:  fmt.Sprintf("watch: the node at %s was not reachable for %v", a.addr, a.watchPatience),
				cause: client.ErrUnavailable, // not the end of the time that it was given
			}
		case err != nil:
			return fmt.Errorf("watch: %w", err)
		}
		if err := printEvent(a.stdout, a.output, ev); err != nil {
			return err
		}
		if untilSynced && ev.Type == client.EventSynced {
			return nil
		}
	}
}

func printEvent(w io.Writer, format string, ev client.Event) (err error) {
	aboutKey := ev.Type == client.EventPut || ev.Type == client.EventDelete
	switch {
	case format == formatJSON:
		return writeJSON(w, ev)
	case ev.Type == client.EventHeartbeat:
		return nil
	case format == formatRaw && ev.Type == client.EventPut:
		_, err = fmt.Fprintf(w, "put\t%s\t%s\n", printable(ev.Entry.Key), printable(string(ev.Entry.Value)))
	case format == formatRaw && aboutKey:
		_, err = fmt.Fprintf(w, "%s\t%s\n", ev.Type, printable(ev.Entry.Key))
	case ev.Type == client.EventPut:
		_, err = fmt.Fprintf(w, "put     %s  %s  (%s)\n", printable(ev.Entry.Key), shorten(ev.Entry.Value), origin(ev))
	case ev.Type == client.EventDelete:
		_, err = fmt.Fprintf(w, "delete  %s  (%s)\n", printable(ev.Entry.Key), origin(ev))
	default:
		_, err = fmt.Fprintf(w, "%s\n", ev.Type)
	}
	return err
}

// origin says where a change comes from: of a strong keyspace, the revision.
func origin(ev client.Event) string {
	var parts []string
	if ev.Type == client.EventDelete {
		parts = append(parts, string(ev.Reason))
	}
	if v := ev.Entry.Version; v.Inc == 0 && !v.IsZero() {
		parts = append(parts, "revision "+v.String())
	} else if ev.Type == client.EventPut {
		parts = append(parts, "by "+printable(ev.Entry.Origin))
	}
	return strings.Join(parts, ", ")
}
