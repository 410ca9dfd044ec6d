package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/meshkv/meshkv/client"
)

// defaultAPIAddr is where client commands look for a node.
const defaultAPIAddr = "http://127.0.0.1:7951"

// An app is one run of the program: its streams, its environment and the flags
// that all commands share.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	env            func(string) (string, bool)

	output  string        // -o
	addr    string        // --addr
	timeout time.Duration // --timeout

	watchPatience time.Duration // of a watch whose node is gone
	killAfter     time.Duration // from SIGTERM to SIGKILL, of a child that must end

	signals *signals
	dial    func(ctx context.Context, host string, o *client.DialOptions) (remoteNode, error)
}

func newApp(stdin io.Reader, stdout, stderr io.Writer, env func(string) (string, bool)) *app {
	return &app{
		stdin: stdin, stdout: stdout, stderr: stderr, env: env,
		watchPatience: watchPatience, killAfter: killAfter, signals: &signals{}, dial: dialNode,
	}
}

// run executes one command line and returns the exit code. An error becomes
// exactly one line on stderr.
func (a *app) run(ctx context.Context, args []string) int {
	root := a.rootCommand()
	root.SetArgs(args)
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return codeOK
	}
	if line := errorLine(ctx, err); line != "" {
		fmt.Fprintln(a.stderr, "meshkv: "+line)
	}
	return exitCode(ctx, err)
}

func (a *app) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "meshkv",
		Short: "A replicated key-value store that every node serves alone",
		Long: "meshkv is a replicated key-value store: every node serves reads and writes by itself,\n" +
			"in any partition, and all nodes converge. Start with 'meshkv demo' or 'meshkv dev'.",
		SilenceErrors: true,
		SilenceUsage:  true,

		SuggestionsMinimumDistance: 2,
		Args:                       cobra.ArbitraryArgs,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			if err := applyEnv(cmd.Flags(), a.env); err != nil {
				return err
			}
			if cmd.Flags().Lookup("timeout") != nil {
				a.timeout, _ = cmd.Flags().GetDuration("timeout")
			}
			return checkFormat(a.output)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			return unknownCommand(cmd, args[0])
		},
	}
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usagef("%v; '%s --help' lists the flags", err, cmd.CommandPath())
	})
	root.PersistentFlags().StringVarP(&a.output, "output", "o", formatTable, "form of the output: table, json or raw")
	root.SetHelpCommand(a.helpCommand())
	root.AddCommand(
		a.agentCommand(), a.devCommand(), a.demoCommand(),
		a.putCommand(), a.getCommand(), a.delCommand(), a.lsCommand(), a.watchCommand(),
		a.casCommand(), a.txnCommand(), a.historyCommand(), a.lockCommand(), a.electCommand(), a.poolCommand(),
		a.counterCommand(), a.setCommand(), a.mapCommand(), a.flagCommand(), a.logCommand(), a.boundedCommand(), a.updateCommand(),
		a.membersCommand(), a.statusCommand(), a.digestCommand(), a.diffCommand(),
		a.waitCommand(), a.rttCommand(), a.reachabilityCommand(), a.leaveCommand(), a.forceLeaveCommand(), a.keyspaceCommand(),
		a.votersCommand(), a.decommissionCommand(),
		a.completionCommand(), a.versionCommand(),
	)
	return root
}

func unknownCommand(cmd *cobra.Command, name string) error {
	hint := ""
	if near := cmd.SuggestionsFor(name); len(near) > 0 {
		best := slices.MaxFunc(near, func(a, b string) int { return cmp.Compare(sharedPrefix(a, name), sharedPrefix(b, name)) })
		hint = fmt.Sprintf("did you mean '%s %s'? ", cmd.CommandPath(), best)
	}
	return usagef("unknown command %q: %s'%s --help' lists the commands", name, hint, cmd.CommandPath())
}

// sharedPrefix is the number of bytes that a and b begin with alike.
func sharedPrefix(a, b string) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

func (a *app) helpCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Describe a command",
		RunE: func(cmd *cobra.Command, args []string) error {
			target, rest, err := cmd.Root().Find(args)
			if err != nil || (len(rest) > 0 && len(args) > 0) {
				return unknownCommand(cmd.Root(), args[len(args)-1])
			}
			target.InitDefaultHelpFlag()
			return target.Help()
		},
	}
}

// clientFlags adds the flags of a command that talks to a running node.
func (a *app) clientFlags(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().StringVar(&a.addr, "addr", defaultAPIAddr, "API address of the node to ask (MESHKV_ADDR)")
	cmd.Flags().Duration("timeout", 10*time.Second, "give up after this long; 0 never gives up")
	return cmd
}

// patientFlags is clientFlags for a command that takes its time.
func (a *app) patientFlags(cmd *cobra.Command, timeout time.Duration, usage string) *cobra.Command {
	a.clientFlags(cmd)
	f := cmd.Flags().Lookup("timeout")
	f.Usage, f.DefValue = usage, timeout.String()
	_ = f.Value.Set(f.DefValue) // a duration, by its own text
	return cmd
}

// envName is the environment variable that stands for a flag.
func envName(flag string) string {
	return "MESHKV_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// applyEnv sets every flag that was not given from its environment variable.
// An empty variable counts as unset. Help has none.
func applyEnv(flags *pflag.FlagSet, env func(string) (string, bool)) error {
	var firstErr error
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Changed || f.Name == "help" || firstErr != nil {
			return
		}
		if v, ok := env(envName(f.Name)); ok && v != "" {
			if err := flags.Set(f.Name, v); err != nil {
				firstErr = usagef("%s: %q is no value for --%s (%s)", envName(f.Name), v, f.Name, f.Usage)
			}
		}
	})
	return firstErr
}

// exactArgs accepts exactly the named arguments.
func exactArgs(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < len(names):
			return usagef("%s is missing: usage: %s", names[len(args)], cmd.UseLine())
		case len(args) > len(names):
			return usagef("%q is one argument too many (quote a value that has spaces): usage: %s", args[len(names)], cmd.UseLine())
		}
		return nil
	}
}

// isTerminal reports whether stream is a terminal.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
