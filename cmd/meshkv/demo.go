package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
)

// maxDemoNodes bounds a demo: its nodes share one process.
const maxDemoNodes = 16

func (a *app) demoCommand() *cobra.Command {
	var (
		nodes    int
		tour     bool
		logLevel string
	)
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Start a cluster in this process with sample data, to try faults on",
		Long: "Start a cluster in this process, on free loopback ports, with sample records of an overlay network.\n" +
			"On a terminal there is a shell: put, get, del, ls, watch, kill, restart, partition, heal, latency, status.\n" +
			"Without one, or with --tour, a scripted tour checks what meshkv promises and fails if a check does.\n" +
			"Everything is gone on exit.",
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if nodes < 3 || nodes > maxDemoNodes {
				return usagef("--nodes %d: a demo has 3 to %d nodes", nodes, maxDemoNodes)
			}
			return a.demo(cmd.Context(), nodes, tour || !isTerminal(a.stdin) || !isTerminal(a.stdout), logLevel)
		},
	}
	cmd.Flags().IntVar(&nodes, "nodes", 5, "number of nodes")
	cmd.Flags().BoolVar(&tour, "tour", false, "run the scripted tour also on a terminal")
	cmd.Flags().StringVar(&logLevel, "log-level", "error", "of the nodes' logs on stderr: debug, info, warn or error")
	return cmd
}

func (a *app) demo(ctx context.Context, nodes int, tour bool, logLevel string) (err error) {
	log, err := a.logger(logLevel, "text")
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "meshkv-demo-")
	if err != nil {
		return fmt.Errorf("make a directory for the demo's data: %w", err)
	}
	defer os.RemoveAll(dir)
	c := newDemoCluster(nodes, dir, log)
	defer func() {
		if serr := c.stop(context.WithoutCancel(ctx)); err == nil {
			err = serr
		}
	}()

	if tour {
		return a.tour(ctx, c)
	}
	begin := time.Now()
	if err := c.start(ctx); err != nil {
		return err
	}
	if err := c.announceAll(ctx); err != nil {
		return err
	}
	if _, err := c.waitEqual(ctx, c.running(), sampleKeyspaces...); err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "%d nodes run in this process, with the records of %d overlay hosts on each (%v).\n"+
		"'help' lists the commands; try: ls endpoints, then kill 3, then ls endpoints again.\n", nodes, nodes, brief(time.Since(begin)))
	return a.terminalShell(ctx, c)
}
