//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/meshkv/meshkv/examples/overlay/netlab"
)

func TestMain(m *testing.M) {
	beHolder()
	dir, err := os.MkdirTemp("", "meshkv-strong-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	program = sync.OnceValues(func() (string, error) { return build(context.Background(), dir, "") })
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// program builds meshkv, once for all tests.
var program func() (string, error)

func runTest(t *testing.T, o options) {
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	var err error
	if o.binary, err = program(); err != nil {
		t.Fatal(err)
	}
	o.dir = t.TempDir()
	var text strings.Builder
	v, err := prepareAndRun(ctx, o, &text)
	if err == nil {
		v.print(&text)
	}
	t.Log(text.String())
	switch {
	case errors.Is(err, netlab.ErrUnsupported):
		t.Skipf("SKIPPED, NOTHING WAS TESTED: %v", err)
	case err != nil:
		t.Fatalf("%v\nagain: %s", err, o.again())
	case len(v.problems()) > 0:
		t.Errorf("%d problems\nagain: %s", len(v.problems()), o.again())
	}
}

// Servers that do not see each other, at their first start and later.
func TestIsolation(t *testing.T) {
	runTest(t, options{isolation: true})
}

// A short run through real processes: each fault once. The command makes long ones.
func TestStrong(t *testing.T) {
	runTest(t, options{faults: len(faults), seed: rand.Uint64(), groups: 4, holders: 8})
}
