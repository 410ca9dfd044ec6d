package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/meshkv/meshkv/client"
)

const (
	// statusEvery is the period of status --watch.
	statusEvery = 2 * time.Second
	// shownRows bounds the rows of each table of a status: what is worth looking
	// at comes first, and JSON has the rest.
	shownRows = 20
	// shownOrigins bounds the origins shown, over all keyspaces.
	shownOrigins = 5
	// shownName bounds what a name takes of a line.
	shownName = 18
)

func (a *app) statusCommand() *cobra.Command {
	var watch bool
	cmd := &cobra.Command{
		Use:   "status [--watch]",
		Short: "Describe the asked node: readiness, keyspaces, links, lag, storage",
		Long: "Describe the asked node: readiness, keyspaces, links, lag and storage. With --watch again every\n" +
			"2 s until interrupted, on a terminal in place.",
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !watch {
				return a.status(cmd.Context(), "")
			}
			ticker := time.NewTicker(statusEvery)
			defer ticker.Stop()
			clear := ""
			if isTerminal(a.stdout) && a.output == formatTable {
				clear = "\x1b[H\x1b[2J"
			}
			for {
				if err := a.status(cmd.Context(), clear); err != nil {
					return err
				}
				select {
				case <-cmd.Context().Done():
					return context.Cause(cmd.Context())
				case <-ticker.C:
				}
			}
		},
	}
	cmd.Flags().BoolVar(&watch, "watch", false, "again every 2 s")
	return a.clientFlags(cmd)
}

// status prints one status after prefix.
func (a *app) status(ctx context.Context, prefix string) error {
	return a.withNode(ctx, func(ctx context.Context, c remoteNode) error {
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
		var page bytes.Buffer // written at once, so that a terminal does not flicker
		page.WriteString(prefix)
		if err := printStatus(&page, st, time.Now()); err != nil {
			return err
		}
		_, err = a.stdout.Write(page.Bytes())
		return err
	})
}

func readiness(st client.Status) string {
	if st.Ready {
		return "ready"
	}
	return "not ready"
}

// printStatus writes a status for people, in 80 columns where names are short.
func printStatus(w io.Writer, st client.Status, now time.Time) error {
	for _, print := range []func(io.Writer, client.Status, time.Time) error{printNode, printKeyspaceStates, printStrongStates, printDivergences, printLinks, printOrigins} {
		if err := print(w, st, now); err != nil {
			return err
		}
	}
	return nil
}

func printNode(w io.Writer, st client.Status, _ time.Time) error {
	t := newTable(w)
	t.row("node", fmt.Sprintf("%s, %s, up %v", st.Name, readiness(st), st.Uptime.Round(time.Second)))
	for _, reason := range st.NotReady {
		t.row("waits for", reason)
	}
	for _, warning := range st.Warnings {
		t.row("WARNING", warning)
	}
	t.row("meshkv", fmt.Sprintf("%s, incarnation %s", st.Version, st.Inc))
	t.row("mesh, api", fmt.Sprintf("%s, %s", st.MeshAddr, cmp.Or(st.APIAddr, "off")))
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
		t.row("storage", fmt.Sprintf("%s, %s (log %s)", st.Storage.Path, size(st.Storage.Bytes), size(st.Storage.LogBytes)))
		if st.Storage.Backlog > 0 {
			t.row("not on disk", fmt.Sprintf("%s, for %v", size(st.Storage.Backlog), st.Storage.Lag.Round(time.Millisecond)))
		}
	}
	if st.Clock.Neighbours > 0 {
		t.row("clock", fmt.Sprintf("%s off the median of %d neighbours", brief(max(st.Clock.Offset.Abs(), time.Millisecond)), st.Clock.Neighbours))
	}
	var dropped []string
	for _, reason := range sortedKeys(st.Drops) {
		if st.Drops[reason] > 0 {
			dropped = append(dropped, fmt.Sprintf("%s %s", thousands(st.Drops[reason]), reason))
		}
	}
	if len(dropped) > 0 {
		t.row("dropped", strings.Join(dropped, ", "))
	}
	return t.end()
}

// printKeyspaceStates shows the keyspaces, those that want attention first.
func printKeyspaceStates(w io.Writer, st client.Status, _ time.Time) error {
	if len(st.Keyspaces) == 0 {
		return nil
	}
	all := slices.Clone(st.Keyspaces)
	slices.SortStableFunc(all, func(a, b client.KeyspaceStatus) int { return cmp.Compare(worry(b), worry(a)) })
	fmt.Fprintln(w)
	t := newTable(w, "KEYSPACE", "KEYS", "SIZE", "LAG P50", "P99", "QUEUED", "SESSIONS", "STATE")
	for _, k := range all[:min(len(all), shownRows)] {
		t.row(named(k.Name), thousands(k.Keys), size(k.Bytes), brief(k.Lag.P50), brief(k.Lag.P99), thousands(k.QueuedOps), thousands(k.SessionsDone), stateOf(k))
	}
	return ended(t, w, len(all))
}

// printStrongStates shows what is here of strong keyspaces, the oldest first.
func printStrongStates(w io.Writer, st client.Status, _ time.Time) error {
	if len(st.Strong) == 0 {
		return nil
	}
	all := slices.Clone(st.Strong)
	age := func(s client.StrongStatus) time.Duration {
		if s.Age < 0 {
			return math.MaxInt64
		}
		return s.Age
	}
	slices.SortStableFunc(all, func(a, b client.StrongStatus) int {
		return cmp.Or(cmp.Compare(b.Behind, a.Behind), cmp.Compare(age(b), age(a)))
	})
	fmt.Fprintln(w)
	t := newTable(w, "STRONG", "HERE", "LEADER", "REVISION", "BEHIND", "AGE")
	for _, s := range all[:min(len(all), shownRows)] {
		old := "unknown"
		if s.Age >= 0 {
			old = brief(s.Age)
		}
		t.row(named(s.Name), s.Role, named(cmp.Or(s.Leader, "-")), thousands(s.Revision), thousands(s.Behind), old)
	}
	return ended(t, w, len(all))
}

// worry says how much a keyspace wants attention.
func worry(k client.KeyspaceStatus) int {
	switch {
	case k.Diverged:
		return 4
	case k.FuseHeld > 0:
		return 3
	case k.Bootstrap.Running:
		return 2
	case k.LinksBehind > 0, k.SessionsRunning > 0:
		return 1
	}
	return 0
}

func stateOf(k client.KeyspaceStatus) string {
	switch {
	case k.Diverged:
		return "DIVERGED"
	case k.FuseHeld > 0:
		return "fuse holds"
	case k.Bootstrap.Running:
		return "filling" + percent(k.Bootstrap.Done, k.Bootstrap.Total)
	case k.LinksBehind > 0:
		return "behind"
	case k.SessionsRunning > 0:
		return "repairing"
	case k.Unequal > 0:
		return "changing"
	case k.Neighbours == 0:
		return "alone"
	}
	return "in sync"
}

func printDivergences(w io.Writer, st client.Status, now time.Time) error {
	for _, k := range st.Keyspaces {
		for _, d := range k.Divergences {
			fmt.Fprintf(w, "\n%s differs from %s for %v:\n%s\n", named(k.Name), named(d.Peer), now.Sub(d.Since).Round(time.Second), d.Reason)
			for _, key := range d.Keys {
				fmt.Fprintf(w, "  %s\n", shorten([]byte(key)))
			}
		}
	}
	return nil
}

// printLinks shows the links, those on which the most waits first.
func printLinks(w io.Writer, st client.Status, _ time.Time) error {
	if len(st.Links) == 0 {
		return nil
	}
	all := slices.Clone(st.Links)
	slices.SortStableFunc(all, func(a, b client.LinkStatus) int {
		return cmp.Or(cmp.Compare(b.Behind, a.Behind), cmp.Compare(b.QueuedBytes, a.QueuedBytes))
	})
	fmt.Fprintln(w)
	t := newTable(w, "LINK", "RTT", "ROLE", "SENT", "RECEIVED", "QUEUED", "STATE")
	for _, l := range all[:min(len(all), shownRows)] {
		t.row(named(l.Peer), brief(l.RTT), roleOf(l), size(int64(l.SentBytes)), size(int64(l.RecvBytes)), thousands(l.Queued), linkState(l, len(st.Keyspaces)))
	}
	return ended(t, w, len(all))
}

// roleOf is the role of the peer, or the number of keyspaces in each.
func roleOf(l client.LinkStatus) string {
	roles := sortedKeys(l.Roles)
	if len(roles) < 2 {
		return strings.Join(roles, "")
	}
	for i, role := range roles {
		roles[i] = fmt.Sprintf("%d %s", l.Roles[role], role)
	}
	return strings.Join(roles, " ")
}

func linkState(l client.LinkStatus, keyspaces int) string {
	held := 0
	for _, n := range l.Roles {
		held += n
	}
	switch {
	case l.Behind > 0:
		return "behind"
	case l.Sessions > 0:
		return "repairing"
	case l.InSync == held:
		return "in sync"
	}
	return fmt.Sprintf("%d of %d in sync", l.InSync, min(held, keyspaces))
}

// printOrigins shows whose writes come late.
func printOrigins(w io.Writer, st client.Status, now time.Time) error {
	type row struct {
		keyspace string
		client.OriginStatus
	}
	var all []row
	for _, k := range st.Keyspaces {
		for _, o := range k.Origins {
			if o.Count > 0 {
				all = append(all, row{k.Name, o})
			}
		}
	}
	if len(all) == 0 {
		return nil
	}
	slices.SortStableFunc(all, func(a, b row) int { return cmp.Or(cmp.Compare(b.P99, a.P99), cmp.Compare(b.P50, a.P50)) })
	fmt.Fprintln(w)
	t := newTable(w, "SLOWEST ORIGINS", "KEYSPACE", "LAG P50", "P99", "SAMPLES", "HEARD")
	for _, o := range all[:min(len(all), shownOrigins)] {
		t.row(named(o.Name), named(o.keyspace), brief(o.P50), brief(o.P99), thousands(o.Count), ago(now, o.Heard))
	}
	return t.end()
}

// ended ends a table and says if it has left out rows.
func ended(t *table, w io.Writer, rows int) error {
	if err := t.end(); err != nil {
		return err
	}
	if rows > shownRows {
		fmt.Fprintf(w, "and %d more: -o json shows all\n", rows-shownRows)
	}
	return nil
}

// named cuts a name that would break the columns.
func named(name string) string {
	runes := []rune(printable(name))
	if len(runes) <= shownName {
		return string(runes)
	}
	return string(runes[:shownName-3]) + "..."
}

// ago is the time since t. Clocks differ: it is never negative.
func ago(now, t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return max(now.Sub(t), 0).Round(time.Second).String() + " ago"
}

// percent is how much of total is done, with a space before; empty if unknown.
func percent(done, total int) string {
	if total <= 0 {
		return ""
	}
	return fmt.Sprintf(" %d%%", min(100*done/total, 100))
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
