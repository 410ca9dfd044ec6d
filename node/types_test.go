package node_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/client/clienttest"
	"github.com/meshkv/meshkv/node"
)

// A node that does not hold the keyspace serves its data types by a member.
func TestTypesForwarded(t *testing.T) {
	clienttest.RunTypes(t, func(t *testing.T) client.Cluster {
		member := start(t, node.Config{Name: "n1"})
		out := start(t, node.Config{Name: "out", Join: []string{member.MeshAddr()}, Keyspaces: []string{"another"}})
		mustPut(t, open(t, member, "k"), "there", "1", nil)
		until(t, "the node reads it at the member", func() bool { return value(open(t, out, "k"), "there") == "1" })
		if _, err := open(t, out, "k").Delete(t.Context(), "there", nil); err != nil {
			t.Fatal(err)
		}
		return out
	})
}

// Rights go to a member by its name, and what two nodes do adds up at both.
func TestTypesOfTwoNodes(t *testing.T) {
	nodes := cluster(t, 2)
	a, b := open(t, nodes[0], "k"), open(t, nodes[1], "k")
	one, two := client.BoundedOf(a, "b"), client.BoundedOf(b, "b")
	if _, err := one.Create(t.Context(), 0, 10); err != nil {
		t.Fatal(err)
	}
	until(t, "the counter is at the other node", func() bool { _, err := two.View(t.Context()); return err == nil })
	if _, err := two.Add(t.Context(), -1); !errors.Is(err, client.ErrRights) {
		t.Errorf("Add without rights: got %v", err)
	}
	if _, err := one.Transfer(t.Context(), "nobody", 4); err == nil {
		t.Error("a transfer to nobody")
	}
	if _, err := one.Transfer(t.Context(), nodes[1].Name(), 4); err != nil {
		t.Fatal(err)
	}
	until(t, "the rights are there", func() bool { v, err := two.View(t.Context()); return err == nil && v.Rights == 4 })
	if _, err := two.Add(t.Context(), -4); err != nil {
		t.Errorf("Add with rights: %v", err)
	}
	until(t, "both see it", func() bool { v, err := one.View(t.Context()); return err == nil && v.Number == 6 && v.Rights == 6 })
}

// A strong keyspace refuses data types, at each of its nodes and over the API.
func TestTypesOfStrongKeyspace(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	servers, agent := strongCluster(t, ctx, "locks")
	for _, n := range []*node.Node{servers[0], agent} {
		ks := open(t, n, "locks")
		_, err := client.CounterOf(ks, "c").Add(ctx, 1)
		_, verr := ks.View(ctx, "c", nil)
		for _, err := range []error{err, verr} {
			if !errors.Is(err, client.ErrNeedsEventual) {
				t.Errorf("got %v, want %v", err, client.ErrNeedsEventual)
			}
		}
		for _, err := range ks.Elements(ctx, "c", nil) {
			if !errors.Is(err, client.ErrNeedsEventual) {
				t.Errorf("Elements: got %v, want %v", err, client.ErrNeedsEventual)
			}
		}
	}
}
