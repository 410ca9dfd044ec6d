package main

import (
	"slices"
	"testing"
)

func TestJudge(t *testing.T) {
	for _, tc := range []struct {
		name  string
		note  func(*history)
		shown map[string]string
		want  []string
	}{
		{"kept", func(h *history) { h.note("k", true, present) }, map[string]string{"k": "k"}, nil},
		{"lost", func(h *history) { h.note("k", true, present) }, nil, []string{"k: acknowledged and lost"}},
		{"not acknowledged and lost", func(h *history) { h.note("k", false, present) }, nil, nil},
		{"not acknowledged and kept", func(h *history) { h.note("k", false, present) }, map[string]string{"k": "k"}, nil},
		{"deleted", func(h *history) { h.note("k", true, present); h.note("k", true, absent) }, nil, nil},
		{"delete lost", func(h *history) { h.note("k", true, present); h.note("k", true, absent) }, map[string]string{"k": "k"},
			[]string{"k: its delete was acknowledged and lost"}},
		{"perhaps deleted", func(h *history) { h.note("k", true, present); h.note("k", false, absent) }, map[string]string{"k": "k"}, nil},
		{"another value", func(h *history) { h.note("k", true, present) }, map[string]string{"k": "j"}, []string{`k: shows "j"`}},
		{"out of nothing", func(*history) {}, map[string]string{"k": "k"}, []string{"k: nobody wrote it"}},
	} {
		h := newHistory()
		tc.note(h)
		if got := h.judge(tc.shown); !slices.Equal(got, tc.want) {
			t.Errorf("%s: %v, want %v", tc.name, got, tc.want)
		}
	}
}
