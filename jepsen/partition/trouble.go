//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"
)

// recoverBar is the longest time from the end of a trouble until all nodes have
// equal contents, and take each other for alive.
const recoverBar = 30 * time.Second

// A trouble is a network that fails for some frames only.
type trouble struct {
	name string
	// between makes the pairs of ports, from and to, out of two sides.
	between func(a, b []string) [][2]string
	match   string // of the frames that are dropped
	// apart: no op crosses between the sides while it lasts, or only in the
	// direction of oneWay. Otherwise all nodes hear from each other, be it late
	// or through others.
	apart bool
	// oneWay: the first side hears from the second until the buffers are full
	// of what nobody acknowledges.
	oneWay bool
	// majorityBar is the longest time in which a majority of all nodes may
	// learn of a write.
	majorityBar time.Duration
	// valid judges the counters; nil: something was dropped and something passed.
	valid func(counted) bool
}

func troubles() []trouble {
	loss := func(percent int, bar time.Duration) trouble {
		return trouble{
			name: fmt.Sprintf("loss-%d", percent), between: everyPair, majorityBar: bar,
			match: fmt.Sprintf("numgen random mod 100 < %d", percent),
			valid: func(c counted) bool { // of thousands of frames
				return c.share() > float64(percent)/100*0.8 && c.share() < float64(percent)/100*1.2
			},
		}
	}
	return []trouble{
		loss(10, 5*time.Second),
		loss(30, 10*time.Second),
		{name: "one-way-pair", between: onePair, majorityBar: 5 * time.Second},
		{name: "one-way-halves", between: across, apart: true, oneWay: true, majorityBar: 5 * time.Second},
		{name: "no-udp", between: everyPair, match: "ip protocol udp", majorityBar: 5 * time.Second},
		{name: "no-tcp", between: bothWays, match: "ip protocol tcp", apart: true, majorityBar: 5 * time.Second},
	}
}

// across is from every port of a to every one of b, but not back.
func across(a, b []string) (pairs [][2]string) {
	for _, from := range a {
		for _, to := range b {
			pairs = append(pairs, [2]string{from, to})
		}
	}
	return pairs
}

func bothWays(a, b []string) [][2]string { return append(across(a, b), across(b, a)...) }

// onePair is from one port of a to one of b.
func onePair(a, b []string) [][2]string { return across(a[:1], b[:1]) }

func everyPair(a, b []string) (pairs [][2]string) {
	all := append(slices.Clone(a), b...)
	for _, from := range all {
		for _, to := range all {
			if from != to {
				pairs = append(pairs, [2]string{from, to})
			}
		}
	}
	return pairs
}

// endure makes a cluster, troubles it while clients write, read and delete at
// every node, and judges. The error is of a run that could not be made.
func endure(ctx context.Context, o options, t trouble, progress io.Writer) (v *verdict, err error) {
	begin := time.Now()
	slack := max(1, o.slack)
	bar := time.Duration(slack) * t.majorityBar
	c, err := newCluster(o.nodes)
	if c != nil {
		defer func() { err = errors.Join(err, c.close()) }()
	}
	if err != nil {
		return nil, err
	}
	if err := c.start(ctx, o.binary, o.dir); err != nil {
		return nil, err
	}
	h := newHistory()
	h.sees[0] = t.oneWay
	keys, err := c.seed(ctx, h, int(min(max(o.duration.Seconds()*30, 200), 3000)), o.seed)
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(progress, "%d agents have %d keys, after %v\n", o.nodes, len(keys), time.Since(begin).Round(time.Millisecond))

	sides, groups, names := c.split(o.seed)
	reach := [][]*agent{sides[0].nodes, sides[1].nodes}
	if !t.apart {
		sides = [2]side{{nodes: c.nodes}, {index: 1}}
		reach = [][]*agent{c.nodes}
	}
	watching, stop := context.WithCancel(ctx)
	var watchers sync.WaitGroup
	defer watchers.Wait()
	defer stop()
	beats, views := newBeats(names), newViews()
	for _, a := range c.nodes {
		watchers.Go(func() { beats.watch(watching, a) })
		watchers.Go(func() { views.watch(watching, a) })
	}

	start := time.Now()
	if err := inflict(c.sw, fault{t.between(groups[0], groups[1]), t.match}); err != nil {
		return nil, err
	}
	fmt.Fprintf(progress, "%s: %s and %s\n", t.name, strings.Join(groups[0], ","), strings.Join(groups[1], ","))
	w := &workload{history: h, served: newServed(time.Now()), patience: bar}
	working, done := context.WithTimeout(ctx, o.duration)
	var beating sync.WaitGroup
	for _, s := range sides {
		for _, a := range s.nodes {
			beating.Go(func() { beats.beat(working, w, s, a) })
		}
	}
	w.run(working, sides, keys, o.seed)
	beating.Wait()
	done()
	end := time.Now()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	v = &verdict{Bar: recoverBar, Served: w.served.lines(names), Unserved: w.served.problems(names, end, slack), Mix: h.mix()}
	proof, err := count(c.sw)
	if err != nil {
		return nil, err
	}
	v.Dropped.Packets = proof.Dropped
	v.Notes = append(v.Notes, fmt.Sprintf("%d of %d frames were dropped between those that it is about (%.1f %%)", proof.Dropped, proof.Dropped+proof.Passed, 100*proof.share()))
	if proof.Dropped == 0 || proof.Passed == 0 || t.valid != nil && !t.valid(proof) {
		v.Invalid = append(v.Invalid, fmt.Sprintf("%s is not what the counters show: %+v", t.name, proof))
	}

	for _, s := range sides {
		leaks, err := c.crossed(ctx, s, h)
		switch {
		case err != nil:
			return nil, err
		case h.sees[s.index]:
			v.Notes = append(v.Notes, fmt.Sprintf("%d times a node shows a key that only the side wrote that does not hear it", len(leaks)))
		default:
			v.Crossed = append(v.Crossed, leaks...)
		}
	}

	before, err := c.repairs(ctx)
	if err != nil {
		return nil, err
	}
	if err := relieve(c.sw); err != nil {
		return nil, err
	}
	healed := time.Now()
	fmt.Fprintf(progress, "ended after %v\n", healed.Sub(start).Round(time.Millisecond))
	if v.Healed, v.Clocks, err = c.converge(ctx, healed, 60*time.Second); err != nil {
		v.Differ = append(v.Differ, err.Error())
	}
	after, err := c.repairs(ctx)
	if err != nil {
		return nil, err
	}
	v.Repair = after.minus(before)
	if err := c.await(ctx, recoverBar-min(recoverBar, time.Since(healed))+time.Second, "see every member alive", func(a *agent) (bool, error) {
		n, err := a.alive(ctx)
		return n == len(c.nodes), err
	}); err != nil {
		v.Differ = append(v.Differ, err.Error())
	}
	v.Notes = append(v.Notes, fmt.Sprintf("members: all alive everywhere %v after it; %s", time.Since(healed).Round(time.Millisecond), views.line()))
	if err := c.judge(ctx, h, v); err != nil {
		return nil, err
	}
	// What comes back late comes back while the cluster is quiet.
	pause(ctx, 2*time.Second)
	if err := c.judge(ctx, h, v); err != nil {
		return nil, err
	}
	stop()
	watchers.Wait()
	notes, slow := beats.judge(reach, len(c.nodes)/2+1, bar)
	v.Notes = append(v.Notes, notes...)
	v.Notes = append(v.Notes, fmt.Sprintf("%d chains waited %v for a node in vain", len(w.stalls.list), bar))
	v.Stalls = slow
	return v, nil
}
