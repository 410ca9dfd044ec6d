//go:build linux

package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	beatPrefix = "beat/"
	beatEvery  = 100 * time.Millisecond
	lookEvery  = 25 * time.Millisecond // the resolution of every lag
)

// beats measure how late every node learns of what every other one wrote: each
// counts up under a key of its own, and looks at the keys of the others. Safe
// for concurrent use.
type beats struct {
	mu    sync.Mutex             // protects the fields below
	sent  map[string][]time.Time // by node: when it began to write each number
	shown map[[2]string][]lag    // by node that looks and node that wrote
}

type lag = time.Duration

func newBeats(nodes []string) *beats {
	b := &beats{sent: map[string][]time.Time{}, shown: map[[2]string][]lag{}}
	for _, name := range nodes {
		b.sent[name] = nil
	}
	return b
}

// beat counts up at a until ctx ends.
func (b *beats) beat(ctx context.Context, w *workload, s side, a *agent) {
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	for i := 0; ; i++ {
		b.mu.Lock()
		b.sent[a.name] = append(b.sent[a.name], time.Now())
		b.mu.Unlock()
		w.write(ctx, s, a, beatPrefix+a.name, final{put, fmt.Sprintf("%d", i)})
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// watch looks at the beats of all nodes at a until ctx ends. A look that fails
// is another lag: that a serves is judged by the workload.
func (b *beats) watch(ctx context.Context, a *agent) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		if shown, err := a.listPrefix(ctx, beatPrefix); err == nil {
			b.note(a.name, shown, time.Now())
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// note writes down what a node shows. A number that was passed over was
// learnt of with its successor.
func (b *beats) note(at string, shown map[string]string, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for key, value := range shown {
		from := strings.TrimPrefix(key, beatPrefix)
		n, err := strconv.Atoi(value)
		sent := b.sent[from]
		if err != nil || n >= len(sent) {
			continue // the history judges values
		}
		pair := [2]string{at, from}
		for i := len(b.shown[pair]); i <= n; i++ {
			b.shown[pair] = append(b.shown[pair], now.Sub(sent[i]))
		}
	}
}

// judge describes the lags within each group of nodes that could reach each
// other. Problems are beats that no majority of all nodes had within bar;
// groups smaller than one have no say in that.
func (b *beats) judge(groups [][]*agent, majority int, bar time.Duration) (lines, problems []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, g := range groups {
		var names []string
		for _, a := range g {
			names = append(names, a.name)
		}
		slices.Sort(names)
		var most, last []lag
		never := 0
		for _, from := range names {
			for i := range b.sent[from] {
				var lags []lag // of the others that came to show it
				for _, at := range names {
					if shown := b.shown[[2]string{at, from}]; at != from && i < len(shown) {
						lags = append(lags, shown[i])
					}
				}
				slices.Sort(lags)
				if len(lags) == len(names)-1 && len(lags) > 0 {
					last = append(last, lags[len(lags)-1])
				} else {
					never++
				}
				if len(names) < majority {
					continue
				}
				if len(lags) < majority-1 {
					problems = append(problems, fmt.Sprintf("number %d of %s never came to a majority", i, from))
					continue
				}
				most = append(most, lags[majority-2])
				if lags[majority-2] > bar {
					problems = append(problems, fmt.Sprintf("number %d of %s came to a majority after %v, the bar is %v", i, from, lags[majority-2].Round(time.Millisecond), bar))
				}
			}
		}
		line := fmt.Sprintf("%s: a write is at the last of them after %s", strings.Join(names, ","), describe(last))
		if len(most) > 0 {
			line += fmt.Sprintf(", at a majority after %s", describe(most))
		}
		if never > 0 {
			line += fmt.Sprintf("; %d never came to all", never)
		}
		lines = append(lines, line)
	}
	return lines, problems
}

// describe sorts lags.
func describe(lags []lag) string {
	if len(lags) == 0 {
		return "(nothing measured)"
	}
	slices.Sort(lags)
	at := func(q float64) lag { return lags[min(int(q*float64(len(lags))), len(lags)-1)].Round(time.Millisecond) }
	return fmt.Sprintf("%v (p99 %v, max %v)", at(0.5), at(0.99), at(1))
}

// views count how often a node ceased to take another for alive. Safe for
// concurrent use.
type views struct {
	mu   sync.Mutex
	lost map[string]int // by "node: member status"
}

func newViews() *views { return &views{lost: map[string]int{}} }

// watch follows the members as a sees them until ctx ends.
func (v *views) watch(ctx context.Context, a *agent) {
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	last := map[string]string{}
	for {
		if now, err := a.members(ctx); err == nil {
			v.mu.Lock()
			for name, status := range now {
				if last[name] == "alive" && status != "alive" {
					v.lost[status]++
				}
			}
			v.mu.Unlock()
			last = now
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (v *views) line() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	var parts []string
	for _, status := range slices.Sorted(maps.Keys(v.lost)) {
		parts = append(parts, fmt.Sprintf("%d times one became %s at another", v.lost[status], status))
	}
	if len(parts) == 0 {
		return "nobody ceased to be alive anywhere"
	}
	return strings.Join(parts, ", ")
}
