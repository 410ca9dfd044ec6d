package host_test

import (
	"context"
	"testing"

	"github.com/meshkv/meshkv/consensus/host"
	"github.com/meshkv/meshkv/consensus/machine"
	"github.com/meshkv/meshkv/consensus/replica"
)

// replicaOf waits until a host has a replica of a keyspace.
func replicaOf(t *testing.T, ctx context.Context, h *host.Host, name string) *replica.Replica {
	t.Helper()
	r, err := h.AwaitReplica(ctx, name)
	if err != nil {
		t.Fatalf("no replica of %s: %v", name, err)
	}
	return r
}

func putKey(t *testing.T, ctx context.Context, r *replica.Replica, key, value string) replica.Done {
	t.Helper()
	d, err := r.Do(ctx, &machine.Txn{Then: []machine.Op{&machine.Put{Key: key, Value: []byte(value)}}}, machine.Request{})
	if err != nil || d.Err != nil {
		t.Fatalf("put %s: %v, %v", key, err, d.Err)
	}
	return d
}

func TestThreeServersBeginAndServeAKeyspace(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c := newCluster(t)
	names := []string{"a", "b", "c"}
	for _, name := range names {
		c.start(name, names...)
	}
	e, err := c.hosts["b"].Create(ctx, host.Spec{Name: "locks", Voters: 3})
	if err != nil {
		t.Fatal(err)
	}
	if len(e.Keyspace.Members) != 3 {
		t.Fatalf("%d members, want 3", len(e.Keyspace.Members))
	}
	// Every server takes writes, and linearizable reads see those of the others at once.
	for i, name := range names {
		r := replicaOf(t, ctx, c.hosts[name], "locks")
		putKey(t, ctx, r, "key", name)
		for _, other := range names {
			v, err := replicaOf(t, ctx, c.hosts[other], "locks").Read(ctx)
			if err != nil {
				t.Fatalf("read at %s: %v", other, err)
			}
			if got := string(v.Get("key").Value); got != name {
				t.Fatalf("round %d: %s reads %q, want %q", i, other, got, name)
			}
		}
	}
}
