package node_test

import (
	"context"
	"testing"
	"time"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/client/clienttest"
	"github.com/meshkv/meshkv/node"
)

// TestStrongConformance: embedded, at a server of its own.
func TestStrongConformance(t *testing.T) {
	clienttest.RunStrong(t, func(t *testing.T) client.Strong {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		n := start(t, node.Config{Name: "s1", DataDir: t.TempDir(), Server: true, BootstrapServers: []string{"s1"}})
		if err := n.CreateKeyspace(ctx, client.KeyspaceSpec{Name: "s", Mode: "strong", Voters: 1}); err != nil {
			t.Fatal(err)
		}
		s, err := n.Strong(ctx, "s")
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
}
