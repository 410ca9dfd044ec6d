package client

import (
	"testing"

	"github.com/meshkv/meshkv/client/wire"
)

func TestWatchBufferIsBounded(t *testing.T) {
	for given, want := range map[int]int{-1: 1 << 20, 0: 1 << 20, 1: 1, wire.MaxCredit: wire.MaxCredit, 160 << 20: wire.MaxCredit} {
		if got := (&DialOptions{WatchBuffer: given}).withDefaults().WatchBuffer; got != want {
			t.Errorf("WatchBuffer %d: got %d, want %d", given, got, want)
		}
	}
}
