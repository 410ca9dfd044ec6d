//go:build linux

package main

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/meshkv/meshkv/examples/overlay/netlab"
)

// A short partition through real processes; the command runs long ones.
func TestPartition(t *testing.T) {
	var progress strings.Builder
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	binary, err := program()
	if err != nil {
		t.Fatal(err)
	}
	v, err := prepareAndRun(ctx, options{nodes: 5, binary: binary, duration: 8 * time.Second, seed: uint64(time.Now().UnixNano())}, &progress)
	t.Log(progress.String())
	if errors.Is(err, netlab.ErrUnsupported) {
		t.Skipf("SKIPPED, NOTHING WAS TESTED: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	var report strings.Builder
	v.print(&report)
	t.Log(report.String())
	for _, p := range v.problems() {
		t.Error(p)
	}
	// On a clean run every check had something to look at.
	m := v.Mix
	if m.Removed == 0 || m.BothPut == 0 || m.PutDeleted == 0 || m.BothGone == 0 || v.Healed == 0 {
		t.Errorf("the run proves nothing: %+v, healed after %v", m, v.Healed)
	}
}
