package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/meshkv/meshkv/client"
)

func (a *app) statusCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Describe the asked node: readiness, links, keyspaces, storage",
		Args:  exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withNode(cmd.Context(), func(ctx context.Context, c client.Cluster) error {
				st, err := c.Status(ctx)
				if err != nil {
					return fmt.Errorf("status: %w", err)
				}
				switch a.output {
				case formatJSON:
					return a.printJSON(st)
				case formatRaw:
					_, err := fmt.Fprintln(a.stdout, readiness(st))
					return err
				}
				return printStatus(a.stdout, st)
			})
		},
	}
	return a.clientFlags(cmd)
}

func readiness(st client.Status) string {
	if st.Ready {
		return "ready"
	}
	return "not ready"
}

// printStatus writes a status for people.
func printStatus(w io.Writer, st client.Status) error {
	t := newTable(w)
	ready := readiness(st)
	if !st.Ready {
		ready += ": " + strings.Join(st.NotReady, ", ")
	}
	t.row("node", fmt.Sprintf("%s (incarnation %s, meshkv %s)", st.Name, st.Inc, st.Version))
	t.row("state", fmt.Sprintf("%s, up %v", ready, st.Uptime.Round(time.Second)))
	t.row("mesh", st.MeshAddr)
	t.row("api", st.APIAddr)
	var members []string
	for _, s := range []client.MemberStatus{client.MemberAlive, client.MemberSuspect, client.MemberFailed, client.MemberLeft} {
		if n := st.Members[s]; n > 0 {
			members = append(members, fmt.Sprintf("%d %s", n, s))
		}
	}
	t.row("members", strings.Join(members, ", "))
	if st.Storage.Path == "" {
		t.row("storage", "memory only")
	} else {
		t.row("storage", fmt.Sprintf("%s (%d bytes, log %d bytes, lag %v)", st.Storage.Path, st.Storage.Bytes, st.Storage.LogBytes, st.Storage.Lag.Round(time.Millisecond)))
	}
	for _, reason := range sortedKeys(st.Drops) {
		if st.Drops[reason] > 0 {
			t.row("dropped", fmt.Sprintf("%d %s", st.Drops[reason], reason))
		}
	}
	for _, warning := range st.Warnings {
		t.row("warning", warning)
	}
	if err := t.end(); err != nil {
		return err
	}
	if len(st.Links) > 0 {
		fmt.Fprintln(w)
		t = newTable(w, "LINK", "ADDRESS", "RTT", "SENT", "RECEIVED", "QUEUED")
		for _, l := range st.Links {
			t.row(l.Peer, l.Addr, brief(l.RTT), count(l.SentBytes), count(l.RecvBytes), count(l.Queued))
		}
		if err := t.end(); err != nil {
			return err
		}
	}
	if len(st.Keyspaces) > 0 {
		fmt.Fprintln(w)
		t = newTable(w, "KEYSPACE", "KEYS", "CELLS", "PENDING", "WATCHERS", "ISSUED", "APPLIED", "SESSIONS", "DIVERGED")
		for _, k := range st.Keyspaces {
			t.row(k.Name, count(k.Keys), count(k.Cells), count(k.Pending), count(k.Watchers), count(k.OpsIssued), count(k.OpsApplied), count(k.SessionsDone), yes(k.Diverged))
		}
		return t.end()
	}
	return nil
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
