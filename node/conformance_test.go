package node_test

import (
	"testing"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/client/clienttest"
	"github.com/meshkv/meshkv/node"
)

// The suite promises an empty cluster of one node to each of its tests.
func TestConformanceEmbedded(t *testing.T) {
	clienttest.Run(t, func(t *testing.T) client.Cluster {
		return start(t, node.Config{Name: "n1"})
	})
}

func TestConformanceOverAPI(t *testing.T) {
	clienttest.Run(t, func(t *testing.T) client.Cluster {
		n := start(t, node.Config{Name: "n1", HTTP: "127.0.0.1:0"})
		c, err := client.Dial(t.Context(), n.APIAddr(), nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	})
}
