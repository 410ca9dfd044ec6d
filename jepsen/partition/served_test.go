//go:build linux

package main

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestServedProblems(t *testing.T) {
	start := time.Unix(1000, 0)
	fill := func(s *served, node string, op operation, skip int) {
		for second := range 3 {
			if second != skip {
				at := start.Add(time.Duration(second)*time.Second + 500*time.Millisecond)
				s.note(node, op, at, at, nil)
			}
		}
	}
	for _, c := range []struct {
		name string
		fill func(s *served)
		want []string
	}{
		{"all served", func(s *served) { fill(s, "n1", reads, -1); fill(s, "n1", writes, -1) }, nil},
		{"a silent second", func(s *served) { fill(s, "n1", reads, 1); fill(s, "n1", writes, -1) }, []string{"n1 served no reads in second 1"}},
		{"no writes at the end", func(s *served) { fill(s, "n1", reads, -1); fill(s, "n1", writes, 2) }, []string{"n1 served no writes in second 2"}},
		{"an error in few", func(s *served) {
			fill(s, "n1", reads, -1)
			fill(s, "n1", writes, -1)
			s.note("n1", writes, start, start, errors.New("boom"))
		}, []string{"n1 answered 1 of 4 writes badly: [after 0s: boom]"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newServed(start)
			c.fill(s)
			got := s.problems([]string{"n1"}, start.Add(3*time.Second), 1)
			if strings.Join(got, "\n") != strings.Join(c.want, "\n") {
				t.Errorf("problems %q, want %q", got, c.want)
			}
		})
	}
	s := newServed(start)
	fill(s, "n1", reads, 1)
	fill(s, "n1", writes, -1)
	if got := s.problems([]string{"n1"}, start.Add(3*time.Second), 2); len(got) != 0 {
		t.Errorf("one silent second where two are allowed: %q", got)
	}
	if got := newServed(start).problems([]string{"n1"}, start.Add(2*time.Second), 2); len(got) != 2 {
		t.Errorf("two silent seconds: %q, want two problems", got)
	}
	if got := newServed(start).problems([]string{"n1"}, start.Add(time.Second), 1); len(got) != 2 {
		t.Errorf("a node that was never asked: %q, want two problems", got)
	}
}
