//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/meshkv/meshkv/examples/overlay/netlab"
)

const healBar = 5 * time.Second

// options describe one run.
type options struct {
	nodes    int
	duration time.Duration // of the partition
	seed     uint64
	trouble  *trouble // instead of the partition, if any
	slack    int      // of a trouble: how many times longer all may take, as others use the machine; 0 is 1
	binary   string   // meshkv
	dir      string   // for data and logs
}

// A verdict is the result of one run.
type verdict struct {
	Dropped  netlab.Dropped // by the cut: the proof of it
	Crossed  []string       // writes seen on the other side in spite of the cut
	Served   []string       // per node, for people
	Unserved []string       // nodes that did not serve throughout
	Stalls   []string       // nodes that did not replicate within their side
	Mix      mix            // what the clients did
	Repair   repair         // how the nodes met again
	Bar      time.Duration  // for Healed
	Healed   time.Duration  // until digests were equal
	Clocks   time.Duration  // until clocks were equal too
	Differ   []string       // what differs between nodes in the end
	Anomaly  []anomaly
	Invalid  []string // why this run proves nothing
	Notes    []string // what else was measured, for people
}

// problems lists all that is wrong; empty is a pass.
func (v *verdict) problems() []string {
	var p []string
	for _, why := range v.Invalid {
		p = append(p, "invalid: "+why)
	}
	p = append(p, v.Crossed...)
	p = append(p, v.Unserved...)
	p = append(p, v.Stalls...)
	if v.Healed > v.Bar {
		p = append(p, fmt.Sprintf("digests were equal only %v after healing, the bar is %v", v.Healed, v.Bar))
	}
	p = append(p, v.Differ...)
	for _, a := range v.Anomaly {
		p = append(p, a.String())
	}
	return p
}

// run makes a cluster, cuts it in two, works on both sides throughout, heals
// it, and judges. The error is of a run that could not be made.
func run(ctx context.Context, o options, progress io.Writer) (v *verdict, err error) {
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
	fmt.Fprintf(progress, "%d agents see each other\n", o.nodes)

	h := newHistory()
	keys, err := c.seed(ctx, h, int(min(max(o.duration.Seconds()*30, 200), 3000)), o.seed)
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(progress, "%d keys are on every node\n", len(keys))

	sides, groups, names := c.split(o.seed)
	start := time.Now()
	if err := c.sw.Partition(groups[0], groups[1]); err != nil {
		return nil, err
	}
	fmt.Fprintf(progress, "cut %s from %s, in %v\n", strings.Join(groups[0], ","), strings.Join(groups[1], ","), time.Since(start).Round(time.Millisecond))

	w := &workload{history: h, served: newServed(time.Now()), patience: 3 * time.Second}
	working, stop := context.WithTimeout(ctx, o.duration)
	w.run(working, sides, keys, o.seed)
	stop()
	end := time.Now()
	if err := ctx.Err(); err != nil {
		return nil, err
	}

	v = &verdict{Bar: healBar, Served: w.served.lines(names), Unserved: w.served.problems(names, end, 1), Stalls: w.stalls.list, Mix: h.mix()}
	for _, s := range sides {
		leaks, err := c.crossed(ctx, s, h)
		if err != nil {
			return nil, err
		}
		v.Crossed = append(v.Crossed, leaks...)
	}
	cut := false
	if v.Dropped, cut, err = c.sw.Dropped(); err != nil {
		return nil, err
	}
	if !cut || v.Dropped.Packets == 0 {
		v.Invalid = append(v.Invalid, "the cut dropped no packet: there was no partition")
	}
	if err := c.differing(ctx, sides); err != nil {
		v.Invalid = append(v.Invalid, err.Error())
	}

	before, err := c.repairs(ctx)
	if err != nil {
		return nil, err
	}
	if err := c.sw.Heal(); err != nil {
		return nil, err
	}
	healed := time.Now()
	fmt.Fprintf(progress, "healed after %v, %d packets were dropped\n", healed.Sub(start).Round(time.Millisecond), v.Dropped.Packets)
	if v.Healed, v.Clocks, err = c.converge(ctx, healed, 60*time.Second); err != nil {
		v.Differ = append(v.Differ, err.Error())
	}
	after, err := c.repairs(ctx)
	if err != nil {
		return nil, err
	}
	v.Repair = after.minus(before)
	if err := c.judge(ctx, h, v); err != nil {
		return nil, err
	}
	// What comes back late comes back while the cluster is quiet.
	pause(ctx, 2*time.Second)
	if err := c.judge(ctx, h, v); err != nil {
		return nil, err
	}
	return v, nil
}

// seed writes keys at random nodes and waits until every node has all.
func (c *cluster) seed(ctx context.Context, h *history, n int, seed uint64) ([]string, error) {
	keys := make([]string, n)
	errs := make([]error, len(c.nodes))
	var wg sync.WaitGroup
	for i := range keys {
		keys[i] = fmt.Sprintf("seed/%d", i)
	}
	for i, a := range c.nodes {
		wg.Go(func() {
			for j := i; j < n; j += len(c.nodes) {
				value := fmt.Sprintf("%s before %x", keys[j], seed)
				if err := a.put(ctx, keys[j], value); err != nil {
					errs[i] = fmt.Errorf("seed at %s: %w", a.name, err)
					return
				}
				h.before(keys[j], value)
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return keys, c.await(ctx, 30*time.Second, "show every seed", func(a *agent) (bool, error) {
		shown, err := a.list(ctx)
		return len(shown) == n, err
	})
}

// split deals the nodes to two sides, the first the smaller.
func (c *cluster) split(seed uint64) (sides [2]side, groups [2][]string, names []string) {
	for _, a := range c.nodes {
		names = append(names, a.name)
	}
	rng := rand.New(rand.NewPCG(seed, 77))
	for n, i := range rng.Perm(len(c.nodes)) {
		s := 1
		if n < len(c.nodes)/2 {
			s = 0
		}
		sides[s].nodes = append(sides[s].nodes, c.nodes[i])
		groups[s] = append(groups[s], c.nodes[i].name)
	}
	sides[1].index = 1
	slices.Sort(groups[0])
	slices.Sort(groups[1])
	return sides, groups, names
}

// crossed lists keys that only the other side wrote and a node of s shows: the
// cut leaked.
func (c *cluster) crossed(ctx context.Context, s side, h *history) ([]string, error) {
	var leaks []string
	for _, a := range s.nodes {
		shown, err := a.list(ctx)
		if err != nil {
			return nil, fmt.Errorf("list at %s: %w", a.name, err)
		}
		for _, key := range slices.Sorted(maps.Keys(shown)) {
			k := h.keys[key]
			if k != nil && k.base == "" && len(k.sides[s.index]) == 0 {
				leaks = append(leaks, fmt.Sprintf("%s shows %s, which only the other side wrote", a.name, key))
			}
		}
	}
	return leaks, nil
}

// differing fails unless the sides have different digests: both wrote.
func (c *cluster) differing(ctx context.Context, sides [2]side) error {
	a, err := sides[0].nodes[0].digest(ctx)
	if err != nil {
		return err
	}
	b, err := sides[1].nodes[0].digest(ctx)
	if err != nil {
		return err
	}
	if a == b {
		return errors.New("both sides have equal digests before healing")
	}
	return nil
}

// converge waits until every node has the same digest, and the same clock, and
// returns how long after since each was first seen.
func (c *cluster) converge(ctx context.Context, since time.Time, within time.Duration) (contents, clocks time.Duration, err error) {
	ctx, cancel := context.WithDeadline(ctx, since.Add(within))
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var last []digest
	for {
		digests := make([]digest, len(c.nodes))
		errs := make([]error, len(c.nodes))
		var wg sync.WaitGroup
		for i, a := range c.nodes {
			wg.Go(func() { digests[i], errs[i] = a.digest(ctx) })
		}
		wg.Wait()
		sameContents, sameClocks := errors.Join(errs...) == nil, true
		if sameContents {
			last = digests
		}
		for _, d := range digests {
			sameContents = sameContents && d.Digest == digests[0].Digest
			sameClocks = sameClocks && d.Clock == digests[0].Clock
		}
		if sameContents && contents == 0 {
			contents = time.Since(since)
		}
		if sameContents && sameClocks {
			return contents, time.Since(since), nil
		}
		select {
		case <-ctx.Done():
			if contents == 0 {
				contents = time.Since(since)
			}
			return contents, time.Since(since), fmt.Errorf("after %v digests or clocks still differ: %v", within, last)
		case <-tick.C:
		}
	}
}

// repairs sums over the nodes what they applied and concluded.
func (c *cluster) repairs(ctx context.Context) (sum repair, err error) {
	for _, a := range c.nodes {
		r, err := a.repair(ctx)
		if err != nil {
			return sum, fmt.Errorf("status of %s: %w", a.name, err)
		}
		sum.Ops += r.Ops
		sum.Sessions += r.Sessions
	}
	return sum, nil
}

// judge compares what every node shows with the history and with the others.
func (c *cluster) judge(ctx context.Context, h *history, v *verdict) error {
	var first map[string]string
	for i, a := range c.nodes {
		shown, err := a.list(ctx)
		if err != nil {
			return fmt.Errorf("list at %s: %w", a.name, err)
		}
		if i == 0 {
			first = shown
		}
		if !maps.Equal(first, shown) {
			v.Differ = append(v.Differ, fmt.Sprintf("%s and %s show different keys or values: %d and %d keys", c.nodes[0].name, a.name, len(first), len(shown)))
		}
		for _, found := range h.check(shown) {
			found.Why += ", at " + a.name
			if !slices.Contains(v.Anomaly, found) { // seen by the first look already
				v.Anomaly = append(v.Anomaly, found)
			}
		}
	}
	return nil
}
