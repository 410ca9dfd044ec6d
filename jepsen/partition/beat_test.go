//go:build linux

package main

import (
	"strings"
	"testing"
	"time"
)

func TestBeatsJudge(t *testing.T) {
	const bar = 5 * time.Second
	start := time.Unix(1000, 0)
	names := []string{"n1", "n2", "n3"}
	var group []*agent
	for _, name := range names {
		group = append(group, &agent{api: &api{name: name}})
	}
	for _, c := range []struct {
		name        string
		first, last time.Duration // after which n2 and n3 show n1's second number; 0: never
		line        string
		problem     string
	}{
		{"both soon", time.Second, 2 * time.Second, "the last of them after 2s (p99 2s, max 2s), at a majority after 1s", ""},
		{"one late", time.Second, 9 * time.Second, "max 9s), at a majority after 1s", ""},
		{"one never", time.Second, 0, "2 never came to all", ""},
		{"both late", 6 * time.Second, 7 * time.Second, "", "number 0 of n1 came to a majority after 6s, the bar is 5s"},
		{"both never", 0, 0, "", "number 1 of n1 never came to a majority"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBeats(names)
			b.sent["n1"] = []time.Time{start, start}
			for at, after := range map[string]time.Duration{"n2": c.first, "n3": c.last} {
				if after > 0 { // it passes over the first number
					b.note(at, map[string]string{beatPrefix + "n1": "1"}, start.Add(after))
				}
			}
			lines, problems := b.judge([][]*agent{group}, 2, bar)
			if got := strings.Join(lines, "\n"); !strings.Contains(got, c.line) {
				t.Errorf("lines %q lack %q", got, c.line)
			}
			if got := strings.Join(problems, "\n"); !strings.Contains(got, c.problem) || (got == "") != (c.problem == "") {
				t.Errorf("problems %q, want %q", got, c.problem)
			}
		})
	}
}
