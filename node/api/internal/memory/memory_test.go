package memory_test

import (
	"testing"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/client/clienttest"
	"github.com/meshkv/meshkv/node/api/internal/memory"
)

func TestConformance(t *testing.T) {
	clienttest.Run(t, func(*testing.T) client.Cluster { return memory.New(0x1234) })
}

func TestTypes(t *testing.T) {
	clienttest.RunTypes(t, func(*testing.T) client.Cluster { return memory.New(0x1234) })
}
