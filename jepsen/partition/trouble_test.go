//go:build linux

package main

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/meshkv/meshkv/examples/overlay/netlab"
)

// One trouble of each day's own through real processes, in short; MESH_LONG=1
// takes all of them, 20 s each, on a machine that has nothing else to do.
func TestTroubles(t *testing.T) {
	all := troubles()
	length, slack := 6*time.Second, 4
	if os.Getenv("MESH_LONG") == "" {
		today := int(time.Now().Unix()/86400) % len(all)
		all = all[today : today+1]
	} else {
		length, slack = 20*time.Second, 1
	}
	binary, err := program()
	if err != nil {
		t.Fatal(err)
	}
	for _, trouble := range all {
		t.Run(trouble.name, func(t *testing.T) {
			var progress strings.Builder
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			v, err := prepareAndRun(ctx, options{nodes: 5, duration: length, seed: uint64(time.Now().UnixNano()), trouble: &trouble, slack: slack, binary: binary}, &progress)
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
		})
	}
}
