package main

import (
	"math"
	"strings"
	"testing"

	"github.com/anishathalye/porcupine"
)

func TestRegister(t *testing.T) {
	type op struct {
		in        input
		out       output
		call, end int64
	}
	read := func(value string, revision uint64, call, end int64) op {
		return op{input{kind: get}, output{value: value, revision: revision}, call, end}
	}
	write := func(value string, revision uint64, call, end int64) op {
		return op{input{kind: put, value: value}, output{revision: revision}, call, end}
	}
	const never = math.MaxInt64
	for _, c := range []struct {
		name string
		ops  []op
		want bool
	}{
		{"read what was written", []op{write("a", 2, 0, 1), read("a", 2, 2, 3)}, true},
		{"stale read", []op{write("a", 2, 0, 1), write("b", 3, 2, 3), read("a", 2, 4, 5)}, false},
		{"read beside the write", []op{write("a", 2, 0, 1), write("b", 3, 2, 9), read("a", 2, 4, 5), read("b", 3, 6, 7)}, true},
		{"two reads that disagree on the order", []op{write("a", 2, 0, 1), write("b", 3, 2, 9), read("b", 3, 4, 5), read("a", 2, 6, 7)}, false},
		{"an unknown write takes effect late", []op{write("a", 2, 0, 1), {input{kind: put, value: "b"}, output{unknown: true}, 2, never}, read("a", 2, 3, 4), read("b", 3, 9, 10)}, true},
		{"an unknown write never takes effect", []op{write("a", 2, 0, 1), {input{kind: put, value: "b"}, output{unknown: true}, 2, never}, read("a", 2, 9, 10)}, true},
		{"an unknown write takes effect twice", []op{{input{kind: put, value: "b"}, output{unknown: true}, 0, never}, read("b", 2, 1, 2), write("c", 3, 3, 4), read("b", 4, 5, 6)}, false},
		{"two swaps of one version", []op{write("a", 2, 0, 1), {input{swap, "b", "a"}, output{revision: 3}, 2, 9}, {input{swap, "c", "a"}, output{revision: 4}, 2, 9}}, false},
		{"a swap that conflicts and takes effect", []op{write("a", 2, 0, 1), {input{swap, "b", "a"}, output{conflict: true}, 2, 3}, read("b", 3, 4, 5)}, false},
		{"a swap that conflicts for nothing", []op{write("a", 2, 0, 1), {input{swap, "b", "a"}, output{conflict: true}, 2, 3}}, false},
		{"create where nothing is", []op{{input{kind: create, value: "a"}, output{revision: 2}, 0, 1}, read("a", 2, 2, 3)}, true},
		{"create over something", []op{write("a", 2, 0, 1), {input{kind: create, value: "b"}, output{revision: 3}, 2, 3}}, false},
		{"delete", []op{write("a", 2, 0, 1), {input{kind: remove}, output{removed: true, revision: 3}, 2, 3}, read("", 0, 4, 5)}, true},
		{"delete of nothing that says otherwise", []op{{input{kind: remove}, output{removed: true, revision: 3}, 2, 3}}, false},
		{"a value comes back after its deletion", []op{write("a", 2, 0, 1), {input{kind: remove}, output{removed: true, revision: 3}, 2, 3}, read("a", 2, 4, 5)}, false},
		{"a revision that falls", []op{write("a", 5, 0, 1), write("b", 4, 2, 3)}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHistory()
			for i, o := range c.ops {
				h.keys["k"] = append(h.keys["k"], porcupine.Operation{ClientId: i, Input: o.in, Output: o.out, Call: o.call, Return: o.end})
			}
			bad, undecided := h.problems()
			if got := len(bad) == 0; got != c.want || len(undecided) > 0 {
				t.Errorf("linearizable %v, want %v; %v", got, c.want, undecided)
			}
		})
	}
}

func TestGrantProblems(t *testing.T) {
	for _, c := range []struct {
		name   string
		grants []grant
		queues [][]string
		want   string
	}{
		{"one after the other", []grant{{"a", 1, 0, 1, 5}, {"b", 2, 0, 6, 9}}, [][]string{{"b"}}, ""},
		{"both at once", []grant{{"a", 1, 0, 1, 7}, {"b", 2, 0, 6, 9}}, nil, "both hold"},
		{"one token twice", []grant{{"a", 1, 0, 1, 2}, {"b", 1, 3, 6, 9}}, nil, "token 1 for"},
		{"a token that falls", []grant{{"a", 2, 0, 1, 2}, {"b", 1, 3, 6, 9}}, nil, "before b"},
		{"out of turn", []grant{{"a", 1, 0, 1, 2}, {"b", 2, 0, 3, 4}}, [][]string{{"b", "gone", "a"}}, "waited before"},
		{"one gave up", []grant{{"a", 1, 0, 1, 2}, {"b", 2, 0, 3, 4}}, [][]string{{"gone", "a", "b"}}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := strings.Join(grantProblems(c.grants, c.queues), "\n")
			if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
				t.Errorf("problems %q, want %q", got, c.want)
			}
		})
	}
}

func TestResource(t *testing.T) {
	var r resource
	for _, w := range []struct {
		token uint64
		want  bool
	}{{2, true}, {2, true}, {1, false}, {3, true}, {2, false}} {
		if got := r.write(w.token); got != w.want {
			t.Errorf("a write under token %d: %v, want %v", w.token, got, w.want)
		}
	}
	if r.accepted != 3 || r.refused != 2 {
		t.Errorf("%+v", r)
	}
}

func TestWatchProblems(t *testing.T) {
	w := newWrites()
	a, b, c := change{2, "a", "1"}, change{3, "b", "1"}, change{3, "c", "1"}
	for _, x := range []change{a, b, c} {
		w.tried(x.key, x.value)
		w.applied(x)
	}
	for _, x := range []struct {
		name  string
		shown []shownChange
		want  string
	}{
		{"complete", []shownChange{{a, true}, {b, false}, {c, true}}, ""},
		{"one is missing", []shownChange{{a, true}, {b, true}}, "is not shown"},
		{"one comes twice", []shownChange{{a, true}, {a, true}, {b, false}, {c, true}}, "twice"},
		{"out of order", []shownChange{{b, false}, {c, true}, {a, true}}, "revision 2 after 3"},
		{"a transaction in pieces", []shownChange{{a, true}, {b, true}, {c, true}}, "revision 3 after 3"},
		{"invented", []shownChange{{a, true}, {b, false}, {c, true}, {change{4, "d", "1"}, true}}, "nobody wrote"},
	} {
		t.Run(x.name, func(t *testing.T) {
			got := strings.Join(w.problems("w", x.shown), "\n")
			if (got == "") != (x.want == "") || !strings.Contains(got, x.want) {
				t.Errorf("problems %q, want %q", got, x.want)
			}
		})
	}
	if d := firstDifference([]shownChange{{a, true}}, nil); d == "" {
		t.Error("watches of different length do not differ")
	}
	got := state([]shownChange{{a, true}, {b, true}, {change{4, "a", ""}, true}})
	if len(got) != 1 || got["b"] != "1" {
		t.Errorf("state %v", got)
	}
}
