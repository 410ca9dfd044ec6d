//go:build linux

// Command concern proves that a write that was acknowledged by a quorum, on disk, is
// not lost when any minority of the nodes loses its disk. It runs real agent
// processes. In each round clients write to some nodes with acks=quorum&durable; in the
// middle of that some processes are stopped, then all, or only a minority, are killed at
// the same time, and the directories of a minority are removed. When all are back and equal,
// every acknowledged write of all rounds must be there, and no acknowledged delete
// undone. A round without an acknowledged write, and a run in which no directory was
// removed that held anything, prove nothing and fail.
//
// SIGKILL loses no byte that a process wrote, so a member that acknowledges before it
// writes is found here, and one that writes without fsync is not: that is the
// business of the tests of package storage.
//
// Exit codes: 0 pass, 1 fail or error, 2 usage, 77 this machine cannot run it.
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
	"time"

	"github.com/meshkv/meshkv/jepsen/mutants"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	code := command(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

func command(ctx context.Context, args []string, out, progress io.Writer) int {
	var o options
	flags := flag.NewFlagSet("concern", flag.ContinueOnError)
	flags.SetOutput(progress)
	flags.IntVar(&o.rounds, "rounds", 200, "rounds of writes, faults and a verdict")
	flags.IntVar(&o.nodes, "nodes", 5, "number of agents, 3 to 9")
	flags.DurationVar(&o.writing, "writing", 300*time.Millisecond, "length of the writes before the faults of a round, about")
	flags.Uint64Var(&o.seed, "seed", 0, "of faults and writes (0: a new one, printed)")
	flags.StringVar(&o.binary, "binary", "", "meshkv program (default: go build ./cmd/meshkv)")
	flags.StringVar(&o.acks, "acks", "acks=quorum&durable=true", "what the writes ask for")
	mutant := flags.String("mutant", "", "a patch of jepsen/concern/mutants to build the program with")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		return 2
	}
	if flags.NArg() > 0 || o.nodes < 3 || o.nodes > 9 || o.rounds < 1 || o.writing <= 0 || *mutant != "" && o.binary != "" {
		fmt.Fprintln(progress, "concern: 3 to 9 nodes, at least one round, a program or a mutant, and no arguments")
		return 2
	}
	if o.seed == 0 {
		o.seed = rand.Uint64()
	}
	fmt.Fprintf(progress, "seed %d\n", o.seed)
	v, err := prepareAndRun(ctx, o, *mutant, progress)
	if err != nil {
		fmt.Fprintf(progress, "concern: %v\n", err)
		return 1
	}
	v.print(out)
	if len(v.problems()) > 0 {
		fmt.Fprintf(out, "again: go run ./jepsen/concern -rounds %d -nodes %d -writing %v -acks '%s' -seed %d\n", o.rounds, o.nodes, o.writing, o.acks, o.seed)
		return 1
	}
	return 0
}

// prepareAndRun builds the program if none is given, and runs in a temporary
// directory that it removes.
func prepareAndRun(ctx context.Context, o options, mutant string, progress io.Writer) (*verdict, error) {
	dir, err := os.MkdirTemp("", "meshkv-concern-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	o.dir = dir
	if o.binary == "" {
		if o.binary, err = build(ctx, dir, mutant); err != nil {
			return nil, err
		}
	}
	return run(ctx, o, progress)
}

// build compiles the program into dir and returns its path.
func build(ctx context.Context, dir, mutant string) (string, error) {
	path := filepath.Join(dir, "meshkv")
	args := []string{"build", "-o", path}
	if mutant != "" {
		file, err := mutants.Overlay(ctx, mutant, dir)
		if err != nil {
			return "", err
		}
		args = append(args, "-overlay", file)
	}
	text, err := exec.CommandContext(ctx, "go", append(args, "github.com/meshkv/meshkv/cmd/meshkv")...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build meshkv: %w\n%s", err, text)
	}
	return path, nil
}

func (v *verdict) print(w io.Writer) {
	fmt.Fprintf(w, "%d rounds: %d processes stopped, %d killed, %d directories with %d bytes removed\n", v.Rounds, v.Stopped, v.Killed, v.Wiped, v.WipedSize)
	fmt.Fprintf(w, "%d writes acknowledged, %d not\n", v.Acked, v.Unsure)
	fmt.Fprintf(w, "%d anomalies\n", len(v.Anomalies))
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
