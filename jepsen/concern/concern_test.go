//go:build linux

package main

import (
	"context"
	"flag"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/meshkv/meshkv/jepsen/mutants"
)

var rounds = flag.Int("rounds", 2, "rounds of TestNothingAcknowledgedIsLost; 200 with MESH_LONG=1")

// A few rounds through real processes; the command runs many.
func TestNothingAcknowledgedIsLost(t *testing.T) {
	n := *rounds
	if os.Getenv("MESH_LONG") == "1" {
		n = max(n, 200)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute+time.Duration(n)*10*time.Second)
	defer cancel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	var progress, report strings.Builder
	v, err := prepareAndRun(ctx, options{nodes: 5, rounds: n, writing: 300 * time.Millisecond, seed: seed, acks: "acks=quorum&durable=true"}, "", &progress)
	t.Log(progress.String())
	if err != nil {
		t.Fatal(err)
	}
	v.print(&report)
	t.Log(report.String())
	for _, p := range v.problems() {
		t.Error(p)
	}
}

// Every mutant applies to the product as it is.
func TestMutantsApply(t *testing.T) {
	patches, err := filepath.Glob("mutants/*.patch")
	if err != nil || len(patches) == 0 {
		t.Fatalf("%d mutants, %v", len(patches), err)
	}
	for _, p := range patches {
		if _, err := mutants.Overlay(t.Context(), p, t.TempDir()); err != nil {
			t.Error(err)
		}
	}
}
