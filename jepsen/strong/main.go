//go:build linux

// Command strong proves the promises of strong keyspaces through real server processes that
// are killed, stopped and cut off from each other: registers are linearizable, locks have one
// holder and rising tokens, checked at the resource, sessions outlive changes of leader,
// watches that roam are ordered, whole and complete. A fault without proof, and a check that
// cannot tell, fail the run. Without root there are no cuts; that is printed.
//
// Exit codes: 0 pass, 1 fail or error, 2 usage, 77 this machine or user cannot run it.
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
	"syscall"

	"github.com/meshkv/meshkv/examples/overlay/netlab"
	"github.com/meshkv/meshkv/jepsen/mutants"
)

func main() {
	beHolder()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	code := command(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

func command(ctx context.Context, args []string, out, progress io.Writer) int {
	o := options{groups: 4, holders: 8}
	flags := flag.NewFlagSet("strong", flag.ContinueOnError)
	flags.SetOutput(progress)
	flags.IntVar(&o.faults, "faults", 30, "number of faults, about 5s each")
	flags.Uint64Var(&o.seed, "seed", 0, "of faults and workload (0: a new one, printed)")
	flags.StringVar(&o.binary, "binary", "", "meshkv program (default: go build ./cmd/meshkv)")
	flags.BoolVar(&o.isolation, "isolation", false, "instead of faults: servers that do not see each other, at their first start and later")
	flags.StringVar(&o.only, "only", "", "kind of faults to make: kill, stop, cut or stall (default: all)")
	flags.StringVar(&o.mutant, "mutant", "", "patch that breaks the product, as in jepsen/mutants: the run must fail")
	flags.StringVar(&o.dir, "dir", "", "keep data and logs there (default: a temporary directory)")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		return 2
	}
	if flags.NArg() > 0 || o.only != "" && len(faultsOf(o.only)) == 0 || o.faults < 1 || o.faults > 10000 || o.mutant != "" && o.binary != "" {
		fmt.Fprintln(progress, "strong: 1 to 10000 faults of a known kind, a binary or a mutant, and no arguments")
		return 2
	}
	if o.seed == 0 {
		o.seed = rand.Uint64()
	}
	v, err := prepareAndRun(ctx, o, progress)
	if errors.Is(err, netlab.ErrUnsupported) {
		fmt.Fprintf(progress, "strong: %v\n", err)
		return 77
	}
	if err != nil {
		fmt.Fprintf(progress, "strong: %v\n", err)
	} else {
		v.print(out)
	}
	if err != nil || len(v.problems()) > 0 {
		fmt.Fprintln(out, "again: "+o.again())
		return 1
	}
	return 0
}

// again is a command that makes the same run, as far as the machine allows.
func (o options) again() string {
	command := fmt.Sprintf("go run ./jepsen/strong -faults %d -seed %d", o.faults, o.seed)
	if o.only != "" {
		command += " -only " + o.only
	}
	if o.isolation {
		command = "go run ./jepsen/strong -isolation"
	}
	if o.mutant != "" {
		command += " -mutant " + o.mutant
	}
	return command
}

// prepareAndRun probes the machine, builds the program if none is given, and runs.
func prepareAndRun(ctx context.Context, o options, progress io.Writer) (*verdict, error) {
	why := netlab.Probe(nil)
	if _, err := exec.LookPath("nft"); why == nil && err != nil {
		why = errors.New("nft is not installed (package nftables)")
	}
	if why != nil && o.isolation {
		return nil, fmt.Errorf("%w: %w", netlab.ErrUnsupported, why)
	}
	if why != nil {
		o.plain = true
		fmt.Fprintf(progress, "SKIPPED: no server is cut off from the others: %v\n", why)
	}
	if o.dir == "" {
		dir, err := os.MkdirTemp("", "meshkv-strong-")
		if err != nil {
			return nil, err
		}
		defer os.RemoveAll(dir)
		o.dir = dir
	}
	if o.binary == "" {
		var err error
		if o.binary, err = build(ctx, o.dir, o.mutant); err != nil {
			return nil, err
		}
	}
	if o.isolation {
		return runIsolation(ctx, o, progress)
	}
	fmt.Fprintf(progress, "seed %d\n", o.seed)
	return run(ctx, o, progress)
}

// build builds meshkv in dir, broken by a patch unless that is empty.
func build(ctx context.Context, dir, mutant string) (binary string, err error) {
	binary = filepath.Join(dir, "meshkv")
	args := []string{"build", "-o", binary}
	if mutant != "" {
		file, err := mutants.Overlay(ctx, mutant, dir)
		if err != nil {
			return "", err
		}
		args = append(args, "-overlay", file)
	}
	cmd := exec.CommandContext(ctx, "go", append(args, "github.com/meshkv/meshkv/cmd/meshkv")...)
	if text, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build meshkv: %w\n%s", err, text)
	}
	return binary, nil
}

func (v *verdict) print(w io.Writer) {
	for _, line := range v.Counts {
		fmt.Fprintln(w, line)
	}
	for _, line := range v.Skipped {
		fmt.Fprintln(w, "SKIPPED: "+line)
	}
	problems := v.problems()
	for i, p := range problems {
		if i == 10 {
			fmt.Fprintf(w, "… and %d more\n", len(problems)-i)
			break
		}
		fmt.Fprintln(w, "  "+p)
	}
	switch {
	case len(v.Bad) > 0:
		fmt.Fprintln(w, "FAIL")
	case len(v.Invalid) > 0:
		fmt.Fprintln(w, "INVALID")
	default:
		fmt.Fprintln(w, "PASS")
	}
}
