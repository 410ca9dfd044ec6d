package main

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"time"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/node"
)

// awaitEqual waits until two replicas have the same digests.
func awaitEqual(a, b client.Keyspace) error {
	ctx := context.Background()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		x, err := a.Digest(ctx)
		if err != nil {
			return err
		}
		y, err := b.Digest(ctx)
		if err != nil {
			return err
		}
		if x == y {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not equal after a minute: %d and %d cells", x.Entries, y.Entries)
		}
	}
}

// join is how long an empty node takes to hold what a full one does: both in this
// process, over the loopback network, from the start of the joiner and from its
// first link.
func (b bench) join() error {
	for _, n := range []int{10_000, 100_000} {
		sponsor, ks, err := b.start(node.DurabilityMemory, "")
		if err != nil {
			return err
		}
		if err := load(ks, keys(n), loadPuts); err != nil {
			return err
		}
		var starts, links []float64
		for i := range b.runs {
			runtime.GC()
			start := time.Now()
			joiner, copied, err := b.startJoiner(sponsor, fmt.Sprintf("joiner-%d", i))
			if err != nil {
				return err
			}
			linked := awaitLink(joiner)
			if err := awaitEqual(ks, copied); err != nil {
				return err
			}
			starts = append(starts, time.Since(start).Seconds())
			links = append(links, time.Since(linked).Seconds())
			if err := joiner.Leave(context.Background()); err != nil {
				return err
			}
			if err := joiner.Stop(context.Background()); err != nil {
				return err
			}
		}
		fmt.Printf("join, %d keys: equal %.3f s after the link, %.3f s after the start (medians of %d; max %.3f and %.3f s)\n",
			n, median(links), median(starts), b.runs, slices.Max(links), slices.Max(starts))
		if err := sponsor.Stop(context.Background()); err != nil {
			return err
		}
	}
	return nil
}

// awaitLink waits until a node has a link, and says when it saw it.
func awaitLink(n *node.Node) time.Time {
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if st, err := n.Status(context.Background()); err == nil && len(st.Links) > 0 {
			break
		}
	}
	return time.Now()
}
