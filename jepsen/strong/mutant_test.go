//go:build linux

package main

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/meshkv/meshkv/jepsen/mutants"
)

// Every mutant applies to the product as it is, and says by which run it is found, of which .ci/run makes
// one each day, or that it rarely is.
func TestMutantsApply(t *testing.T) {
	found := regexp.MustCompile(`(?m)^(Found by: -only (kill|stop|cut|stall) -faults \d$|Rarely found: )`)
	patches, err := filepath.Glob("../mutants/*.patch")
	if err != nil || len(patches) == 0 {
		t.Fatalf("%d mutants, %v", len(patches), err)
	}
	for _, m := range patches {
		if _, err := mutants.Overlay(t.Context(), m, t.TempDir()); err != nil {
			t.Error(err)
		}
		if text, err := os.ReadFile(m); err != nil || !found.Match(text) {
			t.Errorf("%s does not say by which run it is found, %v", m, err)
		}
	}
}
