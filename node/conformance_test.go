package node_test

import (
	"errors"
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

func TestTypesEmbedded(t *testing.T) {
	clienttest.RunTypes(t, func(t *testing.T) client.Cluster {
		return start(t, node.Config{Name: "n1"})
	})
}

func TestTypesOverAPI(t *testing.T) {
	clienttest.RunTypes(t, func(t *testing.T) client.Cluster {
		n := start(t, node.Config{Name: "n1", HTTP: "127.0.0.1:0"})
		c, err := client.Dial(t.Context(), n.APIAddr(), nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	})
}

// Reading a keyspace over the API does not make it, and its digest is that of a
// keyspace without any write.
func TestReadsOverAPIMakeNoKeyspace(t *testing.T) {
	n := start(t, node.Config{Name: "n1", HTTP: "127.0.0.1:0"})
	c, err := client.Dial(t.Context(), n.APIAddr(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ks, err := c.Keyspace(t.Context(), "none")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ks.Get(t.Context(), "a", nil); !errors.Is(err, client.ErrNotFound) {
		t.Errorf("Get: got %v", err)
	}
	got, err := ks.Digest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if list, err := n.Keyspaces(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("Keyspaces: got %+v, %v; want none", list, err)
	}
	if want := digest(t, n, "none"); got != want {
		t.Errorf("Digest: got %+v, want %+v", got, want)
	}
}
