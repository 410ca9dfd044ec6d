//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/meshkv/meshkv/examples/overlay"
	"github.com/meshkv/meshkv/examples/overlay/netlab"
	"github.com/meshkv/meshkv/node"
	"github.com/vishvananda/netlink"
)

// RunAgent is the agent process of one host, which already runs inside the
// host's namespace: it starts a meshkv node on the host's underlay address, leases
// addresses, announces the host and what the control port is told of, and programs the
// kernel until ctx ends.
func (d Dir) RunAgent(ctx context.Context, name string) error {
	if err := netlab.AwaitGo(os.Stdin); err != nil {
		return err
	}
	s, err := d.Load()
	if err != nil {
		return err
	}
	h, err := s.Host(name)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))

	var seeds []string
	for _, peer := range s.Hosts {
		if peer.Name != h.Name {
			seeds = append(seeds, fmt.Sprintf("%s:%d", peer.VTEP, MeshPort))
		}
	}
	config := node.Config{
		Name:     h.Name,
		DataDir:  filepath.Join(d.HostDir(h.Name), "data"),
		Bind:     fmt.Sprintf("%s:%d", h.VTEP, MeshPort),
		HTTP:     fmt.Sprintf("127.0.0.1:%d", APIPort),
		Join:     seeds,
		Insecure: true, // the underlay is a bridge inside this machine
		Logger:   log,
	}
	servers := s.Servers()
	if slices.Contains(servers, h.Name) {
		config.Server, config.BootstrapServers = true, servers
	}
	n, err := node.Start(ctx, config)
	if err != nil {
		return err
	}
	defer func() {
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		if err := n.Stop(stop); err != nil {
			log.Warn("node did not stop cleanly", "err", err)
		}
	}()

	nl, err := netlink.NewHandle()
	if err != nil {
		return fmt.Errorf("netlink: %w", err)
	}
	defer nl.Close()
	dev, err := overlay.OpenDevice(nl, vxlanLink)
	if err != nil {
		return err
	}
	agent := overlay.NewAgent(overlay.AgentConfig{
		Node:    h.Node(),
		Cluster: n,
		Kernel:  dev,
		Pool:    Pool,
		Voters:  len(servers),
		TTL:     LeaseTTL,
		Logger:  log,
	})

	listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", ControlPort))
	if err != nil {
		return fmt.Errorf("control port: %w", err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	server := &http.Server{Handler: control(agent), ReadHeaderTimeout: 5 * time.Second}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer server.Close()
	defer cancel(nil)
	wg.Go(func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			cancel(fmt.Errorf("control port: %w", err))
		}
	})
	wg.Go(func() {
		select {
		case <-n.Done():
			cancel(fmt.Errorf("node stopped: %w", n.Err()))
		case <-ctx.Done():
		}
	})
	err = agent.Run(ctx)
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}
