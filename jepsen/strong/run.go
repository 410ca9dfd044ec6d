//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"time"
)

const keyspaceName = "lin"

// options describe one run.
type options struct {
	faults  int
	only    string // kind of faults; empty: all
	seed    uint64
	groups  int    // of register workers
	holders int    // of the lock
	binary  string // meshkv
	mutant  string // patch to build it with
	dir     string // for data and logs
	plain   bool   // no namespaces: nothing is cut

	isolation bool // runIsolation instead
}

// A verdict is the result of one run.
type verdict struct {
	Counts  []string // what was done, for people
	Skipped []string
	Bad     []string // what is wrong
	Invalid []string // why this run proves nothing
}

// problems lists all that is wrong; empty is a pass.
func (v *verdict) problems() (p []string) {
	for _, why := range v.Invalid {
		p = append(p, "invalid: "+why)
	}
	return append(p, v.Bad...)
}

// run makes a cluster, works on it under faults, and judges. The error is of a run that
// could not be made.
func run(ctx context.Context, o options, progress io.Writer) (v *verdict, err error) {
	c, err := newCluster(3, !o.plain, o.binary, o.dir)
	defer func() { err = errors.Join(err, c.close()) }()
	if err != nil {
		return nil, err
	}
	if err := c.start(ctx, keyspaceName); err != nil {
		return nil, err
	}
	fmt.Fprintln(progress, "all servers serve the keyspace")

	h, w := newHistory(), newWrites()
	following, stopFollowing := context.WithCancel(ctx)
	defer stopFollowing()
	var followers sync.WaitGroup
	defer followers.Wait()
	defer stopFollowing()
	var watchers []*watcher
	for i := range 3 {
		x := &watcher{name: fmt.Sprintf("watch %d", i+1), c: c, keyspace: keyspaceName, last: lastKey, stay: 1050 * time.Millisecond, cursor: "1"}
		watchers = append(watchers, x)
		followers.Go(func() { x.run(following, rand.New(rand.NewPCG(o.seed, uint64(100+i)))) })
	}
	sessions, err := beginSessions(ctx, c, keyspaceName, w)
	if err != nil {
		return nil, err
	}

	locks := newLockWork(c, keyspaceName)
	registers := &registers{c, keyspaceName, h, w}
	nemesis := &nemesis{c: c, keyspace: keyspaceName, registers: registers, faults: faultsOf(o.only), progress: progress}
	working, stop := context.WithCancel(ctx)
	defer stop()
	var wg sync.WaitGroup
	errs := make([]error, 4)
	stall := newStall()
	wg.Go(func() { errs[0] = registers.run(working, o.groups, o.seed) })
	wg.Go(func() { errs[1] = locks.run(working, o.holders, o.dir) })
	wg.Go(func() { errs[2] = transactions(working, c, keyspaceName, w, rand.New(rand.NewPCG(o.seed, 99))) })
	wg.Go(func() { stall.run(working) })
	pause(ctx, time.Second)
	errs[3] = nemesis.run(ctx, o.faults, rand.New(rand.NewPCG(o.seed, 7)))
	stop()
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}

	v = &verdict{Skipped: nemesis.skipped, Invalid: nemesis.invalid}
	lost := sessionProblems(ctx, sessions, keyspaceName)
	if stall.longest > sessionTTL/5 {
		v.Skipped = append(v.Skipped, fmt.Sprintf("lives of sessions: this program stood still for %v", stall.longest))
	} else {
		v.Bad = append(v.Bad, lost...)
	}
	found, err := finishWatches(ctx, c, keyspaceName, w, watchers, &followers, stopFollowing)
	if err != nil {
		return nil, err
	}
	v.Bad = append(v.Bad, found...)
	found, invalid := locks.judge()
	v.Bad, v.Invalid = append(v.Bad, found...), append(v.Invalid, invalid...)
	bad, undecided := h.problems()
	v.Bad, v.Invalid = append(v.Bad, bad...), append(v.Invalid, undecided...)
	if nemesis.terms == 0 {
		v.Invalid = append(v.Invalid, "no fault brought another leader")
	}
	total := 0
	for k, outcomes := range h.outcomes {
		v.Counts = append(v.Counts, fmt.Sprintf("%s: %v", kindNames[k], outcomes))
		total += outcomes["ok"]
		if outcomes["ok"] == 0 {
			v.Invalid = append(v.Invalid, "no "+kindNames[k]+" succeeded")
		}
	}
	moves := 0
	for _, x := range watchers {
		moves += x.moves
	}
	v.Counts = append(v.Counts, fmt.Sprintf("registers: %d keys, %d ok", len(h.keys), total), locks.String(),
		fmt.Sprintf("watches: %d changes each, %d transactions taken", len(watchers[0].shown), moves))
	return v, nil
}

// A stall is the longest time in which this program did not run.
type stall struct{ longest time.Duration }

func newStall() *stall { return &stall{} }

// run looks at the clock until ctx ends; longest may be read afterwards.
func (s *stall) run(ctx context.Context) {
	for last := time.Now(); ctx.Err() == nil; {
		pause(ctx, 50*time.Millisecond)
		now := time.Now()
		s.longest, last = max(s.longest, now.Sub(last)), now
	}
}
