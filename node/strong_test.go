package node_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/node"
)

// strongCluster is three servers and a node that is none, which knows of a strong keyspace.
func strongCluster(t *testing.T, ctx context.Context, keyspace string) (servers []*node.Node, agent *node.Node) {
	t.Helper()
	names := []string{"s1", "s2", "s3"}
	var join []string
	for _, name := range names {
		n := start(t, node.Config{Name: name, DataDir: t.TempDir(), Server: true, BootstrapServers: names, Join: join})
		join = append(join, n.MeshAddr())
		servers = append(servers, n)
	}
	agent = start(t, node.Config{Name: "agent", Join: join})
	for {
		err := agent.CreateKeyspace(ctx, client.KeyspaceSpec{Name: keyspace, Mode: "strong", Voters: 3})
		if err == nil {
			return servers, agent
		}
		if !errors.Is(err, client.ErrUnavailable) || ctx.Err() != nil { // it has met no server yet
			t.Fatal(err)
		}
	}
}

func TestStrongKeyspaceFromEveryNode(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	servers, agent := strongCluster(t, ctx, "locks")
	nodes := append(servers, agent)
	for _, n := range nodes {
		ks, err := n.Strong(ctx, "locks")
		if err != nil {
			t.Fatal(err)
		}
		v, err := ks.Put(ctx, "key", []byte(n.Name()), nil)
		if err != nil {
			t.Fatalf("put at %s: %v", n.Name(), err)
		}
		for _, other := range nodes {
			ks, err := other.Keyspace(ctx, "locks")
			if err != nil {
				t.Fatal(err)
			}
			e, err := ks.Get(ctx, "key", nil)
			if err != nil || string(e.Value) != n.Name() || e.Version != v {
				t.Fatalf("get at %s: %q %v, %v; want %q %v", other.Name(), e.Value, e.Version, err, n.Name(), v)
			}
		}
		if _, err := ks.Put(ctx, "key", nil, &client.PutOptions{IfAbsent: true}); !errors.Is(err, client.ErrConflict) {
			t.Fatalf("put if absent: %v, want a conflict", err)
		}
	}
	var last client.FencingToken
	for _, n := range nodes {
		ks, _ := n.Strong(ctx, "locks")
		held, err := ks.Lock(ctx, "lock", nil)
		if err != nil {
			t.Fatalf("lock at %s: %v", n.Name(), err)
		}
		if held.Token() <= last {
			t.Fatalf("token %d after %d", held.Token(), last)
		}
		last = held.Token()
		if err := held.Unlock(ctx); err != nil {
			t.Fatalf("unlock at %s: %v", n.Name(), err)
		}
	}
}
