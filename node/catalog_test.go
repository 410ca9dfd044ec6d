package node_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/gossip/overlay"
	"github.com/meshkv/meshkv/node"
)

// A node that was away while a keyspace was removed, with its data on disk,
// brings nothing of it back; and what is made under that name later replicates.
func TestRemovedKeyspaceStaysRemoved(t *testing.T) {
	nodes := cluster(t, 2)
	dir := filepath.Join(t.TempDir(), "data")
	cfg := node.Config{Name: "n3", DataDir: dir, Join: []string{nodes[0].MeshAddr()}}
	third := start(t, cfg)
	mustPut(t, open(t, third, "ks"), "old", "1", nil)
	equal(t, "ks", nodes[0], nodes[1], third)
	stop(t, third)
	if err := nodes[0].RemoveKeyspace(t.Context(), "ks"); err != nil {
		t.Fatal(err)
	}
	until(t, "removed at both", func() bool { return !holds(t, nodes[0], "ks") && !holds(t, nodes[1], "ks") })
	third = start(t, cfg)
	until(t, "removed at the one that returned", func() bool { return !holds(t, third, "ks") })
	if holds(t, nodes[0], "ks") || holds(t, nodes[1], "ks") {
		t.Error("the keyspace came back")
	}
	mustPut(t, open(t, nodes[1], "ks"), "new", "2", nil)
	for _, n := range []*node.Node{nodes[0], nodes[1], third} {
		until(t, "the new one is everywhere", func() bool { return value(open(t, n, "ks"), "new") == "2" })
		if v := value(open(t, n, "ks"), "old"); v != "error: not found" {
			t.Errorf("%s: old = %s", n.Name(), v)
		}
	}
	equal(t, "ks", nodes[0], nodes[1], third)
}

func TestJoinAndLeave(t *testing.T) {
	nodes := cluster(t, 2)
	mustPut(t, open(t, nodes[0], "ks"), "k", "1", nil)
	equal(t, "ks", nodes...)
	dir := filepath.Join(t.TempDir(), "data")
	cfg := node.Config{Name: "n3", DataDir: dir, Join: []string{nodes[0].MeshAddr()}, Keyspaces: []string{"other"}}
	third := start(t, cfg)
	if err := third.JoinKeyspace(t.Context(), "ks"); err != nil {
		t.Fatal(err)
	}
	equal(t, "ks", nodes[0], nodes[1], third)
	mustPut(t, open(t, third, "ks"), "mine", "2", nil)
	leave := func() {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		if err := third.LeaveKeyspace(ctx, "ks", false); err != nil {
			t.Fatal(err)
		}
	}
	leave()
	if holds(t, third, "ks") {
		t.Fatal("still held")
	}
	if v := value(open(t, nodes[1], "ks"), "mine"); v != "2" {
		t.Fatalf("what it wrote before it left: %s", v)
	}
	until(t, "read at a member", func() bool { return value(open(t, third, "ks"), "k") == "1" })
	if err := third.JoinKeyspace(t.Context(), "ks"); err != nil {
		t.Fatal(err)
	}
	mustPut(t, open(t, third, "ks"), "again", "3", nil) // no dot is issued twice
	equal(t, "ks", nodes[0], nodes[1], third)
	for key, want := range map[string]string{"k": "1", "mine": "2", "again": "3"} {
		if v := value(open(t, nodes[0], "ks"), key); v != want {
			t.Errorf("%s = %s", key, v)
		}
	}
	leave()
	stop(t, third)
	third = start(t, cfg)
	if holds(t, third, "ks") {
		t.Error("held again after a restart")
	}
}

func TestLeaveNeedsAMember(t *testing.T) {
	n := start(t, node.Config{Name: "n1"})
	mustPut(t, open(t, n, "ks"), "k", "1", nil)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := n.LeaveKeyspace(ctx, "ks", false); !errors.Is(err, client.ErrUnavailable) {
		t.Fatalf("got %v", err)
	}
	mustPut(t, open(t, n, "ks"), "k", "2", nil) // nothing has changed
	if err := n.LeaveKeyspace(t.Context(), "ks", true); err != nil || holds(t, n, "ks") {
		t.Errorf("by force: %v", err)
	}
}

// Beyond a full mesh the links are rings: everybody gets everything over few.
func TestRings(t *testing.T) {
	const count = overlay.MaxComplete + 1
	var nodes []*node.Node
	for i := range count {
		cfg := node.Config{Name: fmt.Sprintf("r%02d", i)}
		if i > 0 {
			cfg.Join = []string{nodes[0].MeshAddr()}
		}
		nodes = append(nodes, start(t, cfg))
	}
	for i, n := range nodes {
		mustPut(t, open(t, n, "ks"), fmt.Sprintf("k%d", i), n.Name(), nil)
	}
	// Each has at most 8 neighbours and draws one partner. Several may draw the same one, so that only the
	// sum of such links is bounded, of which both ends tell.
	settled := func() bool {
		partners := 0
		for _, n := range nodes {
			st, err := n.Status(t.Context())
			if err != nil || st.Members[client.MemberAlive] != count {
				return false
			}
			neighbours := 0
			for _, l := range st.Links {
				if l.Roles["tree"] > 0 {
					neighbours++
				} else {
					partners++
				}
			}
			if neighbours > 8 {
				return false
			}
		}
		return partners <= 2*count
	}
	until(t, "surplus links are closed", settled)
	for i, n := range nodes {
		mustPut(t, open(t, n, "ks"), fmt.Sprintf("late%d", i), n.Name(), nil)
	}
	equal(t, "ks", nodes...)
	if d := digest(t, nodes[0], "ks"); d.Entries != 2*count {
		t.Errorf("%d entries", d.Entries)
	}
}
