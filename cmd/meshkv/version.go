package main

import (
	"fmt"
	"io"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/meshkv/meshkv/node"
)

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the program's version",
		Args:  exactArgs(),
		RunE: func(*cobra.Command, []string) error {
			version := node.Version()
			platform := runtime.GOOS + "/" + runtime.GOARCH
			switch a.output {
			case formatJSON:
				return a.printJSON(map[string]string{"version": version, "go": runtime.Version(), "platform": platform})
			case formatRaw:
				_, err := fmt.Fprintln(a.stdout, version)
				return err
			}
			_, err := fmt.Fprintf(a.stdout, "meshkv %s (%s, %s)\n", version, runtime.Version(), platform)
			return err
		},
	}
}

func (a *app) completionCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "completion bash|zsh|fish|powershell",
		Short:   "Print a script that completes meshkv commands in a shell",
		Example: "  source <(meshkv completion bash)",
		Args:    exactArgs("SHELL"),
		RunE: func(cmd *cobra.Command, args []string) error {
			generate, ok := map[string]func(io.Writer) error{
				"bash":       func(w io.Writer) error { return cmd.Root().GenBashCompletionV2(w, true) },
				"zsh":        cmd.Root().GenZshCompletion,
				"fish":       func(w io.Writer) error { return cmd.Root().GenFishCompletion(w, true) },
				"powershell": cmd.Root().GenPowerShellCompletionWithDesc,
			}[args[0]]
			if !ok {
				return usagef("%q is no shell that meshkv knows: bash, zsh, fish or powershell", args[0])
			}
			return generate(a.stdout)
		},
	}
}
