package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/meshkv/meshkv/client"
)

const (
	modeEventual = "eventual"
	modeStrong   = "strong"
	// systemGroup is the strong keyspace of the catalog, which can be described and
	// repaired like others.
	systemGroup = "_system"
)

// checkStrongKeyspace refuses what can be no strong keyspace.
func checkStrongKeyspace(name string) error {
	if name == systemGroup {
		return nil
	}
	if err := checkKeyspace(name); err != nil {
		return err
	}
	if strings.HasPrefix(name, "_") {
		return usagef("keyspace %s is an eventual one of the system", name)
	}
	return nil
}

func (a *app) keyspaceCreateCommand() *cobra.Command {
	var (
		spec  client.KeyspaceSpec
		quota string
	)
	cmd := &cobra.Command{
		Use:   "create KS",
		Short: "Create a keyspace",
		Long: "Create a keyspace. An eventual one comes into being with its first put as well; a strong one must be created.\n" +
			"To create the same one again is no error; exit code 4 if there is one of that name and another mode.",
		Example: "  meshkv keyspace create locks --mode strong --voters 3",
		Args:    exactArgs("KS"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkKeyspace(args[0]); err != nil {
				return err
			}
			spec.Name = args[0]
			switch {
			case spec.Mode != modeEventual && spec.Mode != modeStrong:
				return usagef("--mode %q: the modes are eventual and strong", printable(spec.Mode))
			case spec.Mode == modeEventual && (cmd.Flags().Changed("voters") || quota != ""):
				return usagef("--voters and --quota are for --mode strong: every node may hold an eventual keyspace")
			case cmd.Flags().Changed("voters") && spec.Voters != 1 && spec.Voters != 3 && spec.Voters != 5:
				return usagef("--voters %d: a keyspace has 1, 3 or 5 voters", spec.Voters)
			}
			var err error
			if spec.Quota, err = parseSize(quota); err != nil {
				return usagef("--quota %q: %v", printable(quota), err)
			}
			return a.withNode(cmd.Context(), func(ctx context.Context, c remoteNode) error {
				if err := c.CreateKeyspace(ctx, spec); err != nil {
					return fmt.Errorf("keyspace create: %w", err)
				}
				return a.printDone(map[string]any{"name": spec.Name, "mode": spec.Mode}, spec.Name, spec.Name+": created, "+spec.Mode)
			})
		},
	}
	cmd.Flags().StringVar(&spec.Mode, "mode", modeEventual, "eventual or strong")
	cmd.Flags().IntVar(&spec.Voters, "voters", 0, "of a strong keyspace: 1, 3 or 5 (default: 3, or as many as there are servers)")
	cmd.Flags().StringVar(&quota, "quota", "", "of a strong keyspace: data and history together, such as 512MiB (default: 2GiB)")
	return a.clientFlags(cmd)
}

// parseSize reads a number of bytes: 1048576, 64KiB, 512MiB, 2GiB. Empty is 0.
func parseSize(text string) (uint64, error) {
	if text == "" {
		return 0, nil
	}
	digits, shift := text, 0
	for i, unit := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if before, ok := strings.CutSuffix(text, unit); ok {
			digits, shift = before, 10*(i+1)
		}
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	if err != nil || n == 0 || n > math.MaxUint64>>shift {
		return 0, errors.New("a size is a number of bytes, or one of KiB, MiB, GiB or TiB")
	}
	return n << shift, nil
}

// printDone reports that something was done, in the form that was asked for.
func (a *app) printDone(doc any, raw, text string) (err error) {
	switch a.output {
	case formatJSON:
		return a.printJSON(doc)
	case formatRaw:
		_, err = fmt.Fprintln(a.stdout, raw)
	default:
		_, err = fmt.Fprintln(a.stdout, text)
	}
	return err
}

func (a *app) strongInfo(ctx context.Context, c remoteNode, name string) error {
	i, err := c.StrongInfo(ctx, name)
	if err != nil {
		return fmt.Errorf("keyspace info: %w", err)
	}
	switch a.output {
	case formatJSON:
		return a.printJSON(i)
	case formatRaw:
		_, err := fmt.Fprintln(a.stdout, i.Revision)
		return err
	}
	t := newTable(a.stdout)
	t.row("name", i.Name)
	t.row("mode", modeStrong)
	t.row("group", fmt.Sprintf("%s, epoch %d", i.Group, i.Epoch))
	t.row("voters", votersLine(i.Voters))
	leader := i.Leader
	if leader == "" {
		leader = "not known"
	}
	t.row("leader", fmt.Sprintf("%s, term %d", leader, i.Term))
	t.row("log", fmt.Sprintf("applied %d, committed %d", i.Applied, i.Commit))
	t.row("revision", fmt.Sprintf("%d, history from %d", i.Revision, i.Compacted))
	t.row("keys", count(i.Keys))
	t.row("bytes", fmt.Sprintf("%d of %d", i.Bytes, i.Quota))
	return t.end()
}

// votersLine names the replicas of a group, with what is unusual about them.
func votersLine(voters []client.StrongVoter) string {
	parts := make([]string, 0, len(voters))
	for _, v := range voters {
		part := v.Server
		if v.Role != "voter" {
			part += ", a " + v.Role
		}
		if !v.Alive {
			part += ", not alive"
		}
		if part != v.Server {
			part = strings.Replace(part, ", ", " (", 1) + ")"
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, ", ")
}

func (a *app) keyspaceRecoverCommand() *cobra.Command {
	var (
		survivor string
		yes      bool
	)
	cmd := &cobra.Command{
		Use:   "recover KS --survivor NODE",
		Short: "Begin a strong keyspace anew with one replica, after its majority was lost for good",
		Long: "Begin a strong keyspace anew with the replica of one server, after the majority of its voters was lost for good.\n" +
			"What only the lost voters had is lost, confirmed writes included. Refused, with exit code 4, while a majority is alive.",
		Args: exactArgs("KS"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkStrongKeyspace(args[0]); err != nil {
				return err
			}
			if survivor == "" {
				return usagef("--survivor is missing: name the server whose replica is the new beginning ('meshkv voters %s' lists them)", args[0])
			}
			if !yes {
				if !isTerminal(a.stdin) {
					return usagef("keyspace recover may lose confirmed writes: --yes says that this is meant, where nobody can be asked")
				}
				if err := a.confirmRecovery(cmd.Context(), args[0], survivor); err != nil {
					return err
				}
			}
			return a.withNode(cmd.Context(), func(ctx context.Context, c remoteNode) error {
				r, err := c.RecoverKeyspace(ctx, args[0], survivor)
				if err != nil {
					return fmt.Errorf("keyspace recover: %w", err)
				}
				return a.printDone(r, count(r.Epoch), fmt.Sprintf("%s: begun anew with the replica of %s, up to its log entry %d of term %d; epoch %d",
					args[0], printable(r.Survivor), r.Index, r.Term, r.Epoch))
			})
		},
	}
	cmd.Flags().StringVar(&survivor, "survivor", "", "the server whose replica is the new beginning")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return a.patientFlags(cmd, 30*time.Second, "give up after this long; 0 never gives up")
}

// confirmRecovery says what may be lost and asks.
func (a *app) confirmRecovery(ctx context.Context, keyspace, survivor string) error {
	err := a.withNode(ctx, func(ctx context.Context, c remoteNode) error {
		i, err := c.StrongInfo(ctx, keyspace)
		if err != nil {
			return fmt.Errorf("keyspace recover: %w", err)
		}
		fmt.Fprintf(a.stderr, "Keyspace %s, voters: %s.\n", keyspace, printable(votersLine(i.Voters)))
		return nil
	})
	if err != nil && !errors.Is(err, client.ErrNoQuorum) && !errors.Is(err, client.ErrUnavailable) {
		return err
	}
	fmt.Fprintf(a.stderr, "It begins anew with the replica of %s. Writes that the other voters confirmed and %s has not\n"+
		"are lost for good.\nThe keyspace's name, to go on: ", printable(survivor), printable(survivor))
	return confirm(ctx, a.stdin, keyspace)
}

// confirm reads a line, which must be want. A read of a terminal cannot be ended:
// it is left alone when ctx ends, as the program does then.
func confirm(ctx context.Context, in io.Reader, want string) error {
	line := make(chan string, 1)
	go func() {
		text, _ := bufio.NewReader(io.LimitReader(in, 1024)).ReadString('\n') // what there is counts
		line <- strings.TrimSpace(text)
	}()
	select {
	case text := <-line:
		if text != want {
			return &failure{text: "not confirmed: nothing was changed"}
		}
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
