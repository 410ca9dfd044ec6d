package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/node"
)

const (
	// demoPatience bounds every wait of a demo.
	demoPatience = 60 * time.Second
	// demoPoll is the time between two looks at the nodes' state.
	demoPoll = 2 * time.Millisecond
)

// A demoNode is one node of a demo. It keeps its name, addresses and directory
// over kill and restart.
type demoNode struct {
	number int
	name   string
	dir    string
	bind   string     // of the first start, so that a restart finds the same port
	http   string     // likewise
	run    *node.Node // nil while it is down
}

// A demoCluster is a cluster whose nodes all run in this process and whose
// network can be cut and slowed down. Not safe for concurrent use.
type demoCluster struct {
	nodes  []*demoNode
	faults *faults
	log    *slog.Logger
}

func newDemoCluster(nodes int, dir string, log *slog.Logger) *demoCluster {
	c := &demoCluster{faults: newFaults(), log: log}
	for i := 1; i <= nodes; i++ {
		name := fmt.Sprintf("host-%d", i)
		c.nodes = append(c.nodes, &demoNode{
			number: i, name: name, dir: filepath.Join(dir, name), bind: "127.0.0.1:0", http: "127.0.0.1:0",
		})
	}
	return c
}

// start starts all nodes, the first one first, and waits until every node sees
// and reaches every other.
func (c *demoCluster) start(ctx context.Context) error {
	if err := c.startOne(ctx, c.nodes[0]); err != nil {
		return err
	}
	var (
		wg   sync.WaitGroup
		errs = make([]error, len(c.nodes))
	)
	for i, n := range c.nodes[1:] {
		wg.Go(func() { errs[i] = c.startOne(ctx, n, c.nodes[0].bind) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return c.waitConnected(ctx, c.nodes)
}

func (c *demoCluster) startOne(ctx context.Context, n *demoNode, join ...string) error {
	run, err := startNode(ctx, node.Config{
		Name: n.name, DataDir: n.dir, Bind: n.bind, HTTP: n.http, Join: join, Cluster: "demo",
		Zone: fmt.Sprintf("rack-%d", 1+(n.number-1)%2), Durability: node.DurabilityAsync,
		Network: c.faults.net.Node(n.name), Logger: c.log,
	})
	if err != nil {
		return fmt.Errorf("start %s: %w", n.name, err)
	}
	n.run, n.bind, n.http = run, run.MeshAddr(), run.APIAddr()
	return nil
}

// kill ends a node as a crash looks to the others: it falls silent first, so
// that nothing it could still say gets out.
func (c *demoCluster) kill(ctx context.Context, n *demoNode) error {
	if err := c.faults.isolate(n.name); err != nil {
		return err
	}
	err := n.run.Stop(ctx)
	n.run = nil
	return err
}

// restart starts a killed node on its old directory.
func (c *demoCluster) restart(ctx context.Context, n *demoNode) error {
	if err := c.faults.restore(n.name); err != nil {
		return err
	}
	var join []string
	for _, other := range c.running() {
		join = append(join, other.bind)
	}
	return c.startOne(ctx, n, join...)
}

// partition cuts the named nodes off from the rest; within each side
// everything works.
func (c *demoCluster) partition(side []*demoNode) error {
	var left, right []string
	for _, n := range c.nodes {
		if slices.Contains(side, n) {
			left = append(left, n.name)
		} else {
			right = append(right, n.name)
		}
	}
	return c.faults.partition(left, right)
}

func (c *demoCluster) running() []*demoNode {
	var up []*demoNode
	for _, n := range c.nodes {
		if n.run != nil {
			up = append(up, n)
		}
	}
	return up
}

func (c *demoCluster) stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	up := c.running()
	errs := make([]error, len(up))
	var wg sync.WaitGroup
	for i, n := range up {
		wg.Go(func() { errs[i] = n.run.Stop(ctx) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// until looks again and again until missing is empty. The error says what was
// missing last.
func until(ctx context.Context, look func(ctx context.Context) (missing string, err error)) (time.Duration, error) {
	begin := time.Now()
	outer := ctx
	ctx, cancel := context.WithTimeout(ctx, demoPatience)
	defer cancel()
	ticker := time.NewTicker(demoPoll)
	defer ticker.Stop()
	for {
		missing, err := look(ctx)
		if err != nil {
			return 0, err
		}
		if missing == "" {
			return time.Since(begin), nil
		}
		select {
		case <-ctx.Done():
			if err := context.Cause(outer); err != nil {
				return 0, err
			}
			return 0, fmt.Errorf("%w: after %v still: %s", client.ErrTimeout, demoPatience, missing)
		case <-ticker.C:
		}
	}
}

// waitConnected waits until each of nodes sees exactly the others alive and has
// a stream to each.
func (c *demoCluster) waitConnected(ctx context.Context, nodes []*demoNode) error {
	_, err := until(ctx, func(ctx context.Context) (string, error) {
		for _, n := range nodes {
			st, err := n.run.Status(ctx)
			if err != nil {
				return "", fmt.Errorf("%s: %w", n.name, err)
			}
			if alive := st.Members[client.MemberAlive]; alive != len(nodes) || len(st.Links) != len(nodes)-1 {
				return fmt.Sprintf("%s sees %d nodes alive and has %d links", n.name, alive, len(st.Links)), nil
			}
		}
		return "", nil
	})
	return err
}

// waitAlive waits until each of nodes sees exactly so many nodes alive.
func (c *demoCluster) waitAlive(ctx context.Context, nodes []*demoNode, alive int) (time.Duration, error) {
	return until(ctx, func(ctx context.Context) (string, error) {
		for _, n := range nodes {
			st, err := n.run.Status(ctx)
			if err != nil {
				return "", fmt.Errorf("%s: %w", n.name, err)
			}
			if st.Members[client.MemberAlive] != alive {
				return fmt.Sprintf("%s sees %d nodes alive, not %d", n.name, st.Members[client.MemberAlive], alive), nil
			}
		}
		return "", nil
	})
}

// waitEqual waits until the keyspaces have equal digests on all of nodes.
func (c *demoCluster) waitEqual(ctx context.Context, nodes []*demoNode, keyspaces ...string) (time.Duration, error) {
	return until(ctx, func(ctx context.Context) (string, error) {
		for _, keyspace := range keyspaces {
			var first client.Digest
			for i, n := range nodes {
				d, err := keyspaceDigest(ctx, n.run, keyspace)
				if err != nil {
					return "", fmt.Errorf("digest of %s on %s: %w", keyspace, n.name, err)
				}
				if i == 0 {
					first = d
				}
				if d.Digest != first.Digest {
					return fmt.Sprintf("%s differs between %s and %s", keyspace, nodes[0].name, n.name), nil
				}
			}
		}
		return "", nil
	})
}
