package client

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
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

// The error says once where it could not connect, and why.
func TestDialErrorNamesTheAddressOnce(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	ln.Close()
	_, err = Dial(t.Context(), addr, nil)
	if !errors.Is(err, ErrUnavailable) || !errors.Is(err, syscall.ECONNREFUSED) {
		t.Fatalf("got %v", err)
	}
	if text := err.Error(); strings.Count(text, addr) != 1 || strings.Count(text, "connect") != 2 { // "connect to", "connection refused"
		t.Errorf("got %q", text)
	}
}

// A watch that gave up ends, even if the node refused the last attempt for a
// reason that passes.
func TestGivingUpDoesNotPass(t *testing.T) {
	for _, err := range []error{ErrDraining, ErrOverloaded, ErrJoining, ErrUnavailable} {
		if !passes(err) || passes(fmt.Errorf("%w: %w", errGaveUp, err)) {
			t.Errorf("%v: passes %v, after giving up %v; want true and false", err, passes(err), passes(fmt.Errorf("%w: %w", errGaveUp, err)))
		}
	}
}
