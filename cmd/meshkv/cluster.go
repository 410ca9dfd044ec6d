package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/meshkv/meshkv/client"
)

func (a *app) membersCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "members",
		Short: "List the nodes of the cluster as the asked node sees them",
		Args:  exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withNode(cmd.Context(), func(ctx context.Context, c remoteNode) error {
				members, err := c.Members(ctx)
				if err != nil {
					return fmt.Errorf("members: %w", err)
				}
				return a.printMembers(members)
			})
		},
	}
	return a.clientFlags(cmd)
}

func (a *app) printMembers(members []client.Member) error {
	switch a.output {
	case formatJSON:
		return a.printJSON(struct {
			Members []client.Member `json:"members"`
		}{append([]client.Member{}, members...)})
	case formatRaw:
		for _, m := range members {
			fmt.Fprintln(a.stdout, m.Name)
		}
		return nil
	}
	t := newTable(a.stdout, "NAME", "STATUS", "ADDRESS", "API", "ZONE", "ROLES", "RTT")
	for _, m := range members {
		t.row(m.Name, string(m.Status), m.Addr, m.APIAddr, m.Zone, strings.Join(m.Roles, ","), brief(m.RTT))
	}
	return t.end()
}

func (a *app) digestCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "digest KS",
		Short: "Print a keyspace's digest: equal on two nodes, equal contents",
		Args:  exactArgs("KS"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkKeyspace(args[0]); err != nil {
				return err
			}
			return a.withKeyspace(cmd.Context(), args[0], func(ctx context.Context, ks client.Keyspace) error {
				d, err := ks.Digest(ctx)
				if err != nil {
					return fmt.Errorf("digest: %w", err)
				}
				switch a.output {
				case formatJSON:
					return a.printJSON(d)
				case formatRaw:
					_, err := fmt.Fprintln(a.stdout, d.Digest)
					return err
				}
				t := newTable(a.stdout, "KEYSPACE", "DIGEST", "CLOCK", "ENTRIES")
				t.row(d.Keyspace, d.Digest, d.Clock, count(d.Entries))
				return t.end()
			})
		},
	}
	return a.clientFlags(cmd)
}

func (a *app) leaveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "leave",
		Short: "Make the asked node leave the cluster for good and stop",
		Long: "Make the asked node leave the cluster for good and stop. What it put as ephemeral disappears.\n" +
			"A node that will come back is stopped instead: SIGTERM to its agent.",
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withNode(cmd.Context(), func(ctx context.Context, c remoteNode) error {
				st, err := c.Status(ctx)
				if err != nil {
					return fmt.Errorf("leave: %w", err)
				}
				if err := c.Leave(ctx); err != nil {
					return fmt.Errorf("leave: %w", err)
				}
				switch a.output {
				case formatJSON:
					return a.printJSON(map[string]any{"left": st.Name})
				case formatRaw:
					_, err = fmt.Fprintln(a.stdout, st.Name)
				default:
					_, err = fmt.Fprintf(a.stdout, "%s has left\n", printable(st.Name))
				}
				return err
			})
		},
	}
	return a.clientFlags(cmd)
}

// waitInterval is the time between two looks at what is waited for.
const waitInterval = 100 * time.Millisecond

func (a *app) waitCommand() *cobra.Command {
	var synced string
	cmd := &cobra.Command{
		Use:   "wait [--synced KS] [--timeout D]",
		Short: "Wait until the node is ready, or a keyspace is equal on all nodes",
		Long: "Wait until the asked node is ready. With --synced KS, wait until also all nodes that are alive\n" +
			"have the same contents of the keyspace. Past --timeout: exit code 124.",
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if synced != "" {
				if err := checkKeyspace(synced); err != nil {
					return err
				}
			}
			return a.wait(cmd.Context(), synced)
		},
	}
	cmd.Flags().StringVar(&synced, "synced", "", "also wait until this keyspace is equal on all nodes that are alive")
	return a.clientFlags(cmd)
}

func (a *app) wait(ctx context.Context, keyspace string) error {
	outer := ctx
	ctx, cancel := a.deadline(ctx)
	defer cancel()
	ticker := time.NewTicker(waitInterval)
	defer ticker.Stop()
	begin := time.Now()
	reason := "an answer of the node"
	progress := newBar(a.stderr)
	defer progress.show("")
	for {
		pending, line, err := a.look(ctx, keyspace)
		switch {
		case err != nil:
			return err
		case pending == "":
			progress.show("")
			return a.printWaited(keyspace, time.Since(begin))
		case !expired(ctx) && pending != reason: // else it is only the end of the time
			reason = pending
			if line == "" {
				line = "waiting: " + pending
			}
			progress.show(cut(line))
		}
		select {
		case <-ctx.Done():
			if err := context.Cause(outer); err != nil {
				return err
			}
			return fmt.Errorf("%w after %v, waiting for: %s", client.ErrTimeout, a.timeout, reason)
		case <-ticker.C:
		}
	}
}

// expired reports whether the time of ctx is up. A dial that ends for that
// reason may do so a little before ctx itself.
func expired(ctx context.Context) bool {
	deadline, ok := ctx.Deadline()
	return ctx.Err() != nil || ok && !time.Now().Before(deadline)
}

func (a *app) printWaited(keyspace string, took time.Duration) error {
	switch {
	case a.output == formatJSON:
		return a.printJSON(struct {
			Ready  bool    `json:"ready"`
			Synced string  `json:"synced,omitempty"`
			Waited float64 `json:"waited_ms"`
		}{true, keyspace, millis(took)})
	case a.output == formatRaw:
		return nil
	case keyspace == "":
		_, err := fmt.Fprintln(a.stdout, "ready")
		return err
	}
	_, err := fmt.Fprintf(a.stdout, "%s is equal on all nodes that are alive\n", keyspace)
	return err
}

// look reports what is still to be waited for, and the progress of it if that is
// known; a node that cannot be reached is waited for, a mistake in the call is an
// error.
func (a *app) look(ctx context.Context, keyspace string) (pending, progress string, err error) {
	if _, err := apiHost(a.addr); err != nil {
		return "", "", err
	}
	c, err := a.connect(ctx, a.addr)
	if err != nil {
		return oneLine(err.Error()), "", nil
	}
	defer c.Close()
	st, err := c.Status(ctx)
	switch {
	case err != nil:
		return oneLine(err.Error()), "", nil
	case !st.Ready:
		return "the node is not ready: " + strings.Join(st.NotReady, ", "), fillLine(st), nil
	case keyspace == "":
		return "", "", nil
	}
	pending, err = a.lookSynced(ctx, c, st, keyspace)
	return pending, fillLine(st), err
}

// lookSynced compares the keyspace of every member that is alive. A member
// without an API is judged by the asked node's summaries.
func (a *app) lookSynced(ctx context.Context, c client.Cluster, st client.Status, keyspace string) (string, error) {
	members, err := c.Members(ctx)
	if err != nil {
		return oneLine(err.Error()), nil
	}
	if i := slices.IndexFunc(st.Keyspaces, func(k client.KeyspaceStatus) bool { return k.Name == keyspace }); i < 0 {
		return fmt.Sprintf("keyspace %s does not exist yet", keyspace), nil
	} else if st.Keyspaces[i].Unequal > 0 {
		return fmt.Sprintf("a peer of %s has other contents", st.Name), nil
	}
	want, err := keyspaceDigest(ctx, c, keyspace)
	if err != nil {
		return oneLine(err.Error()), nil
	}
	for _, m := range members {
		addr := memberAPI(m)
		if m.Status != client.MemberAlive || addr == "" || m.Name == st.Name {
			continue
		}
		got, err := a.digestAt(ctx, addr, keyspace)
		if err != nil {
			return fmt.Sprintf("%s: %s", m.Name, oneLine(err.Error())), nil
		}
		if got.Digest != want.Digest || got.Clock != want.Clock {
			return fmt.Sprintf("%s and %s differ (%d and %d entries)", st.Name, m.Name, want.Entries, got.Entries), nil
		}
	}
	return "", nil
}

// memberAPI is where this machine may reach a member's API; empty if the member
// announces none. An API bound to every address is at that of the mesh.
func memberAPI(m client.Member) string {
	host, port, err := net.SplitHostPort(m.APIAddr)
	if err != nil || port == "0" {
		return ""
	}
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
		if host, _, err = net.SplitHostPort(m.Addr); err != nil {
			return ""
		}
	}
	return net.JoinHostPort(host, port)
}

func (a *app) digestAt(ctx context.Context, addr, keyspace string) (client.Digest, error) {
	c, err := a.connect(ctx, addr)
	if err != nil {
		return client.Digest{}, err
	}
	defer c.Close()
	return keyspaceDigest(ctx, c, keyspace)
}

func keyspaceDigest(ctx context.Context, c client.Cluster, keyspace string) (client.Digest, error) {
	ks, err := c.Keyspace(ctx, keyspace)
	if err != nil {
		return client.Digest{}, err
	}
	return ks.Digest(ctx)
}
