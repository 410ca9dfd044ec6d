package node

import (
	"testing"
	"time"
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
