//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/meshkv/meshkv/client"
)

// A fault is what happens to one server for a while.
type fault struct {
	what   string // kill, stop, cut or stall
	leader bool   // it hits the leader, as far as one is known; else any other
}

var faults = []fault{{"kill", true}, {"stop", true}, {"cut", true}, {"stall", true}, {"kill", false}, {"stop", false}, {"cut", false}}

// faultsOf is the faults of one kind; empty: all.
func faultsOf(kind string) (of []fault) {
	for _, f := range faults {
		if kind == "" || f.what == kind {
			of = append(of, f)
		}
	}
	return of
}

// A nemesis makes faults one after the other and proves each.
type nemesis struct {
	c         *cluster
	keyspace  string
	registers *registers
	faults    []fault
	progress  io.Writer
	proofs    []string
	invalid   []string // faults without proof
	skipped   []string
	terms     int // leader faults that brought another term
	stalls    int
}

// run makes n faults, whole rounds of them in an order of their own, until ctx ends.
func (x *nemesis) run(ctx context.Context, n int, rng *rand.Rand) error {
	var round []fault
	for range n {
		if len(round) == 0 {
			for _, i := range rng.Perm(len(x.faults)) {
				round = append(round, x.faults[i])
			}
		}
		f := round[0]
		round = round[1:]
		if f.what == "cut" && !x.c.namespaces {
			x.skipped = append(x.skipped, "cut: no namespaces")
			continue
		}
		if err := x.one(ctx, f, rng); err != nil {
			return err
		}
		pause(ctx, time.Duration(300+rng.IntN(700))*time.Millisecond)
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

// one makes a fault, keeps it for a while, undoes it, and waits until all serve again.
func (x *nemesis) one(ctx context.Context, f fault, rng *rand.Rand) error {
	leader, before, err := x.info(ctx, "")
	if err != nil {
		return err
	}
	victim := x.c.nodes[rng.IntN(len(x.c.nodes))]
	for f.leader && victim.name != leader || !f.leader && victim.name == leader {
		victim = x.c.nodes[rng.IntN(len(x.c.nodes))]
	}
	begin := time.Now()
	var proof string
	var ok bool
	if f.what == "stall" {
		proof, ok, err = x.stall(ctx, victim)
	} else {
		proof, ok, err = x.keep(ctx, f, victim, time.Duration(2000+rng.IntN(1200))*time.Millisecond)
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", f.what, victim.name, err)
	}
	serving, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	healed := time.Now()
	if err := x.c.awaitServing(serving, x.keyspace); err != nil {
		return err
	}
	_, after, err := x.info(ctx, "")
	if err != nil {
		return err
	}
	who := "follower"
	if f.leader {
		who = "leader"
		if after > before {
			x.terms++
		}
	}
	line := fmt.Sprintf("%s %s %s for %v: %s; term %d → %d; all serve %v later", f.what, who, victim.name,
		healed.Sub(begin).Round(time.Millisecond), proof, before, after, time.Since(healed).Round(time.Millisecond))
	fmt.Fprintln(x.progress, line)
	x.proofs = append(x.proofs, line)
	if !ok {
		x.invalid = append(x.invalid, "no proof of a fault: "+line)
	}
	return nil
}

// keep makes a fault, keeps it for a while, looks for its proof and undoes it.
func (x *nemesis) keep(ctx context.Context, f fault, s *server, d time.Duration) (proof string, ok bool, err error) {
	evidence, undo, err := x.hurt(f, s)
	if err != nil {
		return "", false, err
	}
	pause(ctx, d)
	proof, ok = evidence()
	return proof, ok, undo()
}

// hurt makes the fault. evidence is looked for while it lasts.
func (x *nemesis) hurt(f fault, s *server) (evidence func() (string, bool), undo func() error, err error) {
	switch f.what {
	case "kill":
		if err := s.cmd.Process.Kill(); err != nil {
			return nil, nil, err
		}
		<-s.end // the proof looks at how
		s.end = nil
		old := s.cmd
		return func() (string, bool) {
				ws, ok := old.ProcessState.Sys().(syscall.WaitStatus)
				return fmt.Sprintf("pid %d ended by %v", old.ProcessState.Pid(), ws.Signal()), ok && ws.Signaled() && ws.Signal() == syscall.SIGKILL
			}, func() error {
				return x.c.launch(s)
			}, nil
	case "stop":
		pid := s.cmd.Process.Pid
		return func() (string, bool) {
				state := processState(pid)
				return fmt.Sprintf("pid %d in state %s", pid, state), state == "T"
			}, func() error {
				return s.cmd.Process.Signal(syscall.SIGCONT)
			}, s.cmd.Process.Signal(syscall.SIGSTOP)
	}
	var others []string
	for _, o := range x.c.nodes {
		if o != s {
			others = append(others, o.name)
		}
	}
	return func() (string, bool) {
		d, cut, err := x.c.sw.Dropped()
		return fmt.Sprintf("%d packets dropped", d.Packets), err == nil && cut && d.Packets > 0
	}, x.c.sw.Heal, x.c.sw.Partition([]string{s.name}, others)
}

// info asks for the leader and its term, any node but the named one.
func (x *nemesis) info(ctx context.Context, but string) (leader string, term uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	for {
		for _, s := range x.c.nodes {
			if s.name == but {
				continue
			}
			var info client.StrongInfo
			attempt, cancel := context.WithTimeout(ctx, time.Second)
			info, err = s.client.StrongInfo(attempt, x.keyspace)
			cancel()
			if err == nil && info.Leader != "" && info.Leader != but {
				return info.Leader, info.Term, nil
			}
		}
		if pause(ctx, 50*time.Millisecond); ctx.Err() != nil {
			return "", 0, fmt.Errorf("no leader of %s is known: %w", x.keyspace, errors.Join(err, ctx.Err()))
		}
	}
}

// processState is the letter in /proc, T for a process that is stopped.
func processState(pid int) string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return err.Error()
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	letter, _, _ := strings.Cut(rest, " ")
	return letter
}
