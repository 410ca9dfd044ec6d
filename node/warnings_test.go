package node

import (
	"testing"
	"time"

	"github.com/meshkv/meshkv/gossip"
)

func TestClockWarning(t *testing.T) {
	for _, tt := range []struct {
		offsets []time.Duration
		want    string
	}{
		{[]time.Duration{3 * time.Second, 4 * time.Second}, ""},
		{[]time.Duration{3 * time.Second, 4 * time.Second, 0}, "the clock of this node is 3s behind those of its 3 neighbours: set it"},
		{[]time.Duration{-3 * time.Second, -4 * time.Second, 0}, "the clock of this node is 3s ahead of those of its 3 neighbours: set it"},
		{[]time.Duration{-time.Hour, time.Second, 2 * time.Second}, ""},
	} {
		if got := clockWarning(tt.offsets); got != tt.want {
			t.Errorf("%v: got %q, want %q", tt.offsets, got, tt.want)
		}
	}
}

func TestFilling(t *testing.T) {
	for _, tt := range []struct {
		b    gossip.Bootstrap
		want string
	}{
		{gossip.Bootstrap{}, "not synchronised with a peer yet"},
		{gossip.Bootstrap{Running: true, Total: 100_000}, "100000 cells to come, no peer has begun yet"},
		{gossip.Bootstrap{Running: true, Peer: "host-3/66ddb6aa003a0f49", Done: 34_120, Total: 100_000}, "34120 of 100000 cells from host-3"},
	} {
		if got := filling(tt.b); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}
