package main

import (
	"context"
	"fmt"
	"runtime"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/node"
)

// heap is what a node in memory keeps for each key beyond key and value, after
// the keys were put once and, at another node, after a session brought them.
func (b bench) heap(n int) error {
	before := heapInUse()
	sponsor, ks, err := b.start(node.DurabilityMemory, "")
	if err != nil {
		return err
	}
	defer sponsor.Stop(context.Background())
	const keyBytes = 32
	report := func(how string, used int64) {
		fmt.Printf("heap, %d keys of %d B with %d B, %s: %.0f B a key beyond key and value\n",
			n, keyBytes, valueBytes, how, float64(used)/float64(n)-keyBytes-valueBytes)
	}
	if err := load(ks, keys(n), loadPuts); err != nil {
		return err
	}
	loaded := heapInUse()
	report("put here", loaded-before)
	joiner, copied, err := b.startJoiner(sponsor, "joiner")
	if err != nil {
		return err
	}
	defer joiner.Stop(context.Background())
	if err := awaitEqual(ks, copied); err != nil {
		return err
	}
	report("that came by a session", heapInUse()-loaded)
	return nil
}

// heapInUse is what is reachable. The keys that were put from are not.
func heapInUse() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// startJoiner starts a node that joins the mesh of another one.
func (b bench) startJoiner(sponsor *node.Node, name string) (*node.Node, client.Keyspace, error) {
	ctx := context.Background()
	n, err := node.Start(ctx, node.Config{
		Name: name, Bind: "127.0.0.1:0", HTTP: "off", Durability: node.DurabilityMemory, Join: []string{sponsor.MeshAddr()},
	})
	if err != nil {
		return nil, nil, fmt.Errorf("start %s: %w", name, err)
	}
	ks, err := n.Keyspace(ctx, "bench")
	if err != nil {
		return nil, nil, fmt.Errorf("open keyspace: %w", err)
	}
	return n, ks, nil
}
