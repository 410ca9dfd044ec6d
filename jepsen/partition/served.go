//go:build linux

package main

import (
	"fmt"
	"slices"
	"sync"
	"time"
)

type operation int

const (
	reads operation = iota
	writes
)

var operationNames = [...]string{"reads", "writes"}

// served counts what each node answered in each second. Safe for concurrent
// use.
type served struct {
	mu    sync.Mutex // protects nodes
	start time.Time
	nodes map[string]*[2]tally // by operation
}

type tally struct {
	seconds   []int // answered well, in each second since the start
	good, bad int
	slowest   time.Duration // of those that were answered well
	errors    []string      // the first few
}

func newServed(start time.Time) *served {
	return &served{start: start, nodes: map[string]*[2]tally{}}
}

// note counts one operation in the second in which it ended.
func (s *served) note(node string, op operation, begin, end time.Time, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	both := s.nodes[node]
	if both == nil {
		both = &[2]tally{}
		s.nodes[node] = both
	}
	t := &both[op]
	if err != nil {
		t.bad++
		if len(t.errors) < 3 {
			t.errors = append(t.errors, fmt.Sprintf("after %v: %v", begin.Sub(s.start).Round(time.Millisecond), err))
		}
		return
	}
	t.good++
	t.slowest = max(t.slowest, end.Sub(begin))
	second := max(0, int(end.Sub(s.start)/time.Second))
	for len(t.seconds) <= second {
		t.seconds = append(t.seconds, 0)
	}
	t.seconds[second]++
}

// problems lists the nodes that did not serve in some whole second before
// end, or window of so many seconds, or that answered fewer than 99.9 % well.
func (s *served) problems(nodes []string, end time.Time, window int) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	whole := int(end.Sub(s.start) / time.Second)
	var found []string
	for _, name := range nodes {
		both := s.nodes[name]
		if both == nil {
			both = &[2]tally{}
		}
		for op, t := range both {
			silent := 0
			for second := range whole {
				silent++
				if second < len(t.seconds) && t.seconds[second] > 0 {
					silent = 0
				}
				if silent >= window {
					found = append(found, fmt.Sprintf("%s served no %s in second %d", name, operationNames[op], second))
				}
			}
			if t.bad*1000 > t.good+t.bad {
				found = append(found, fmt.Sprintf("%s answered %d of %d %s badly: %v", name, t.bad, t.good+t.bad, operationNames[op], t.errors))
			}
		}
	}
	return found
}

// lines describe every node, by name.
func (s *served) lines(nodes []string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for _, name := range nodes {
		both := s.nodes[name]
		if both == nil {
			both = &[2]tally{}
		}
		line := name + ":"
		for op, t := range both {
			fewest := 0
			if len(t.seconds) > 1 {
				fewest = slices.Min(t.seconds[:len(t.seconds)-1])
			}
			line += fmt.Sprintf(" %d %s (fewest in a second %d, slowest %v, %d bad)", t.good, operationNames[op], fewest, t.slowest.Round(100*time.Microsecond), t.bad)
		}
		out = append(out, line)
	}
	return out
}
