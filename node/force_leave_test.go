package node_test

import (
	"errors"
	"testing"

	"github.com/meshkv/meshkv/client"
)

// A failed member that is given up is closed for ever, on all nodes: its ephemeral
// cells are not only hidden but collected.
func TestForceLeave(t *testing.T) {
	nodes := cluster(t, 3)
	mustPut(t, open(t, nodes[2], "ks"), "bound", "v", &client.PutOptions{Ephemeral: true})
	for _, n := range nodes[:2] {
		until(t, "the key is everywhere", func() bool { return value(open(t, n, "ks"), "bound") == "v" })
	}
	if err := nodes[0].ForceLeave(t.Context(), "n3"); !errors.Is(err, client.ErrBadRequest) {
		t.Errorf("alive: got %v, want ErrBadRequest", err)
	}
	if err := nodes[0].ForceLeave(t.Context(), "nobody"); !errors.Is(err, client.ErrNotFound) {
		t.Errorf("unknown: got %v, want ErrNotFound", err)
	}
	stop(t, nodes[2])
	until(t, "n3 has failed", func() bool {
		members, err := nodes[0].Members(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range members {
			if m.Name == "n3" {
				return m.Status == client.MemberFailed
			}
		}
		return false
	})
	if err := nodes[0].ForceLeave(t.Context(), "n3"); err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes[:2] {
		until(t, "its cells are collected", func() bool {
			info, err := open(t, n, "ks").Info(t.Context())
			return err == nil && info.Cells == 0
		})
	}
}
