//go:build linux

// Command partition proves that meshkv serves and converges through a network
// partition. It runs real agent processes in network namespaces, cuts them in
// two with nftables, writes and deletes on both sides throughout, heals the
// cut, and judges: every node served reads and writes all the time, digests
// are equal within 5 s, nothing that was deleted or replaced is back, and
// nothing that its deleter had not seen is lost. A cut that dropped no packet
// proves nothing and fails the run.
//
// With --trouble the network fails in part instead: packets are lost, arrive
// in one direction only, or only those of TCP or UDP do. Every node must serve
// throughout, a majority of those that still reach each other must go on
// learning of each other's writes, and all must be equal, and see each other,
// within 30 s of the trouble's end.
//
// Exit codes: 0 pass, 1 fail or error, 2 usage, 77 this machine or user
// cannot run it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/meshkv/meshkv/examples/overlay/netlab"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	code := command(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

func command(ctx context.Context, args []string, out, progress io.Writer) int {
	var o options
	flags := flag.NewFlagSet("partition", flag.ContinueOnError)
	flags.SetOutput(progress)
	flags.DurationVar(&o.duration, "duration", 60*time.Second, "length of the partition or trouble")
	flags.IntVar(&o.nodes, "nodes", 5, "number of agents, 2 to 50")
	flags.Uint64Var(&o.seed, "seed", 0, "of sides and workload (0: a new one, printed)")
	flags.StringVar(&o.binary, "binary", "", "meshkv program (default: go build ./cmd/meshkv)")
	var names []string
	for _, t := range troubles() {
		names = append(names, t.name)
	}
	which := flags.String("trouble", "", "one of "+strings.Join(names, ", ")+", or all, instead of the partition")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		return 2
	}
	if flags.NArg() > 0 || o.nodes < 2 || o.nodes > 50 || o.duration < time.Second {
		fmt.Fprintln(progress, "partition: at least 2 and at most 50 nodes, at least 1s, and no arguments")
		return 2
	}
	runs := []*trouble{nil}
	if *which != "" {
		runs = nil
		for _, t := range troubles() {
			if *which == "all" || *which == t.name {
				runs = append(runs, &t)
			}
		}
		if len(runs) == 0 {
			fmt.Fprintf(progress, "partition: no trouble is named %s\n", *which)
			return 2
		}
	}
	if o.seed == 0 {
		o.seed = rand.Uint64()
	}
	code := 0
	for _, t := range runs {
		o.trouble = t
		if c := one(ctx, o, out, progress); c > 1 {
			return c
		} else if c > 0 {
			code = c
		}
	}
	return code
}

// one is one run with its report.
func one(ctx context.Context, o options, out, progress io.Writer) int {
	v, err := prepareAndRun(ctx, o, progress)
	switch {
	case errors.Is(err, netlab.ErrUnsupported):
		fmt.Fprintf(progress, "partition: %v\n", err)
		return 77
	case err != nil:
		fmt.Fprintf(progress, "partition: %v\n", err)
		return 1
	}
	v.print(out)
	if len(v.problems()) > 0 {
		again := fmt.Sprintf("again: go run ./jepsen/partition --duration %v --nodes %d --seed %d", o.duration, o.nodes, o.seed)
		if o.trouble != nil {
			again += " --trouble " + o.trouble.name
		}
		fmt.Fprintln(out, again)
		return 1
	}
	return 0
}

// prepareAndRun probes the machine, builds the program if none is given, and
// runs in a temporary directory that it removes.
func prepareAndRun(ctx context.Context, o options, progress io.Writer) (*verdict, error) {
	if err := netlab.Probe(nil); err != nil {
		return nil, err
	}
	if _, err := exec.LookPath("nft"); err != nil {
		return nil, fmt.Errorf("%w: nft is not installed (package nftables)", netlab.ErrUnsupported)
	}
	dir, err := os.MkdirTemp("", "meshkv-partition-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	o.dir = dir
	if o.binary == "" {
		if o.binary, err = build(ctx, dir); err != nil {
			return nil, err
		}
	}
	fmt.Fprintf(progress, "seed %d\n", o.seed)
	if o.trouble != nil {
		return endure(ctx, o, *o.trouble, progress)
	}
	return run(ctx, o, progress)
}

// build compiles the program into dir and returns its path.
func build(ctx context.Context, dir string) (string, error) {
	path := filepath.Join(dir, "meshkv")
	text, err := exec.CommandContext(ctx, "go", "build", "-o", path, "github.com/meshkv/meshkv/cmd/meshkv").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build meshkv: %w\n%s", err, text)
	}
	return path, nil
}

func (v *verdict) print(w io.Writer) {
	fmt.Fprintf(w, "cut: %d packets dropped\n", v.Dropped.Packets)
	for _, line := range v.Served {
		fmt.Fprintln(w, line)
	}
	for _, line := range v.Notes {
		fmt.Fprintln(w, line)
	}
	fmt.Fprintf(w, "healed: digests equal after %v, clocks after %v (bar %v)\n", v.Healed.Round(time.Millisecond), v.Clocks.Round(time.Millisecond), v.Bar)
	fmt.Fprintf(w, "by %d ops and %d concluded sessions, over all nodes\n", v.Repair.Ops, v.Repair.Sessions)
	m := v.Mix
	fmt.Fprintf(w, "keys: %d untouched, %d touched on one side (%d of them old and deleted), %d put on both, %d put here and deleted there, %d deleted on both, %d uncertain\n",
		m.Untouched, m.OneSided, m.Removed, m.BothPut, m.PutDeleted, m.BothGone, m.Uncertain)
	fmt.Fprintf(w, "%d anomalies\n", len(v.Anomaly))
	problems := v.problems()
	for i, p := range problems {
		if i == 20 {
			fmt.Fprintf(w, "… and %d more\n", len(problems)-i)
			break
		}
		fmt.Fprintln(w, "  "+p)
	}
	switch {
	case len(v.Invalid) > 0:
		fmt.Fprintln(w, "INVALID")
	case len(problems) > 0:
		fmt.Fprintln(w, "FAIL")
	default:
		fmt.Fprintln(w, "PASS")
	}
}
