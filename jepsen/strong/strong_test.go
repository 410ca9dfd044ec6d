//go:build linux

package main

import (
	"context"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	beHolder()
	os.Exit(m.Run())
}

// A short run through real processes: each fault once. The command makes long ones.
func TestStrong(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	o := options{faults: len(faults), seed: rand.Uint64(), groups: 4, holders: 8, dir: t.TempDir()}
	var progress strings.Builder
	v, err := prepareAndRun(ctx, o, &progress)
	t.Log(progress.String())
	if err != nil {
		t.Fatalf("%v\nagain: %s", err, o.again())
	}
	var report strings.Builder
	v.print(&report)
	t.Log(report.String())
	if p := v.problems(); len(p) > 0 {
		t.Errorf("%d problems\nagain: %s", len(p), o.again())
	}
}
