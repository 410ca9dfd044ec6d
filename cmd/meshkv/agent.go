package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/meshkv/meshkv/consensus/logstore"
	"github.com/meshkv/meshkv/node"
)

// stopTimeout bounds a graceful stop; a second signal cuts it short.
const stopTimeout = 15 * time.Second

func (a *app) agentCommand() *cobra.Command {
	var (
		s      settings
		config string
	)
	cmd := &cobra.Command{
		Use:   "agent",
		Short: "Run a node",
		Long: "Run a node until SIGTERM or SIGINT, which stop it without leaving the cluster; a second signal stops it\n" +
			"at once. Every flag may also stand in the environment (MESHKV_DATA_DIR for --data-dir) or in the\n" +
			"TOML file of --config (data-dir = \"...\"); the command line wins, then the environment, then the file.",
		Example: "  meshkv agent --name host-1 --data-dir data/host-1\n" +
			"  meshkv agent --name host-2 --data-dir data/host-2 --bind 127.0.0.1:7960 --http 127.0.0.1:7961 --join 127.0.0.1:7950",
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if config != "" {
				if err := readConfig(config, cmd.Flags()); err != nil {
					return err
				}
			}
			return a.agent(cmd.Context(), s)
		},
	}
	cmd.Flags().StringVar(&config, "config", "", "TOML file of settings")
	s.flags(cmd.Flags())
	return cmd
}

func (a *app) agent(ctx context.Context, s settings) error {
	progress := newBar(a.stderr)
	if progress.terminal {
		a.stderr = progress // the log goes above it
	}
	log, err := a.logger(s.logLevel, s.logFmt)
	if err != nil {
		return err
	}
	switch s.durability {
	case "async", "fsync":
		if s.dataDir == "" {
			return usagef("--data-dir is missing: name the directory of the node's data, or keep it in memory with --durability memory")
		}
	case "memory":
	default:
		return usagef("--durability %q: the levels are memory, async and fsync", s.durability)
	}
	switch logstore.Kind(s.logStore) {
	case "", logstore.Journal, logstore.BoltDB:
	default:
		return usagef("--log-store %q: the kinds are journal and boltdb", s.logStore)
	}
	if s.name == "" {
		if s.name, err = os.Hostname(); err != nil {
			return usagef("--name is missing and the host has no name: %v", err)
		}
	}
	n, err := startNode(ctx, s.nodeConfig(log))
	if err != nil {
		return err
	}
	if a.output == formatJSON {
		if err := a.printJSON(addressesOf(n)); err != nil {
			return err
		}
	}
	if progress.terminal {
		var following sync.WaitGroup
		defer following.Wait()
		starting, cancel := context.WithCancel(ctx)
		defer cancel()
		following.Go(func() { followStart(starting, progress, n) })
	}
	return a.serve(ctx, n, log)
}

// addresses tell a program that started a node where it is.
type addresses struct {
	Name string `json:"name"`
	Inc  string `json:"inc"`
	Mesh string `json:"mesh"`
	API  string `json:"api"`
}

func addressesOf(n *node.Node) addresses {
	return addresses{n.Name(), n.Inc(), n.MeshAddr(), n.APIAddr()}
}

// serve runs until a signal, which is a good end, or until the node ends by
// itself: well after a leave, with an error after a failure.
func (a *app) serve(ctx context.Context, n *node.Node, log *slog.Logger) error {
	select {
	case <-n.Done():
		if err := n.Err(); err != nil {
			return fmt.Errorf("the node stopped: %w", err)
		}
		log.Info("node has left and stopped", "node", n.Name())
		return nil
	case <-ctx.Done():
	}
	log.Info("node stops", "node", n.Name())
	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	if err := n.Stop(stopping); err != nil {
		return fmt.Errorf("stop: %w", err)
	}
	log.Info("node has stopped", "node", n.Name())
	return nil
}

func (a *app) devCommand() *cobra.Command {
	var s settings
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run one node in memory, for a first try",
		Long:  "Run one node on loopback that keeps its data in memory until it is interrupted.",
		Args:  exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.dev(cmd.Context(), s)
		},
	}
	cmd.Flags().StringVar(&s.name, "name", "dev", "name of the node")
	cmd.Flags().StringVar(&s.bind, "bind", "127.0.0.1:7950", "HOST:PORT of the mesh")
	cmd.Flags().StringVar(&s.http, "http", "127.0.0.1:7951", "HOST:PORT of the API")
	cmd.Flags().StringVar(&s.logLevel, "log-level", "warn", "debug, info, warn or error")
	cmd.Flags().StringVar(&s.logFmt, "log-format", "text", "text or json")
	return cmd
}

func (a *app) dev(ctx context.Context, s settings) error {
	log, err := a.logger(s.logLevel, s.logFmt)
	if err != nil {
		return err
	}
	s.durability, s.server, s.bootstrap = "memory", true, []string{s.name}
	n, err := startNode(ctx, s.nodeConfig(log))
	if err != nil {
		return err
	}
	switch a.output {
	case formatJSON:
		err = a.printJSON(addressesOf(n))
	case formatRaw:
		_, err = fmt.Fprintf(a.stdout, "http://%s\n", n.APIAddr())
	default:
		_, err = fmt.Fprintf(a.stdout, "mesh  %s\nAPI   http://%s\n", n.MeshAddr(), n.APIAddr())
		where := ""
		if "http://"+n.APIAddr() != defaultAPIAddr {
			where = " --addr http://" + n.APIAddr()
		}
		fmt.Fprintf(a.stderr, "The node keeps its data in memory; Ctrl-C ends it. In another terminal:\n"+
			"  meshkv put demo/hello world%s\n  meshkv watch demo%s\n", where, where)
	}
	if err != nil {
		return err
	}
	return a.serve(ctx, n, log)
}
