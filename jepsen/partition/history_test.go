//go:build linux

package main

import (
	"maps"
	"slices"
	"testing"

	"github.com/meshkv/meshkv/crdt"
	"pgregory.net/rapid"
)

func TestCheck(t *testing.T) {
	type op struct {
		side int
		f    final
		o    outcome
	}
	putting := func(v string) final { return final{put, v} }
	del := final{kind: deleted}
	for _, c := range []struct {
		name string
		base string
		ops  []op
		good []string          // "" is absent
		bad  map[string]string // value → kind
	}{
		{name: "untouched", base: "b", good: []string{"b"}, bad: map[string]string{"": "lost", "x": "invented"}},
		{name: "deleted on one side", base: "b", ops: []op{{0, del, ok}}, good: []string{""}, bad: map[string]string{"b": "resurrected"}},
		{name: "deleted on both", base: "b", ops: []op{{0, del, ok}, {1, del, ok}}, good: []string{""}, bad: map[string]string{"b": "resurrected"}},
		{
			name: "deleted here, overwritten there: the unseen write survives", base: "b", ops: []op{{0, del, ok}, {1, putting("n"), ok}},
			good: []string{"n"}, bad: map[string]string{"": "lost", "b": "resurrected"},
		},
		{
			name: "overwritten on both", base: "b", ops: []op{{0, putting("m"), ok}, {1, putting("n"), ok}},
			good: []string{"m", "n"}, bad: map[string]string{"": "lost", "b": "resurrected"},
		},
		{
			name: "put and deleted here, put there", ops: []op{{0, putting("m"), ok}, {0, del, ok}, {1, putting("n"), ok}},
			good: []string{"n"}, bad: map[string]string{"": "lost", "m": "resurrected"},
		},
		{name: "deleted and put again", base: "b", ops: []op{{0, del, ok}, {0, putting("m"), ok}}, good: []string{"m"}, bad: map[string]string{"": "lost", "b": "resurrected"}},
		{name: "unknown delete", base: "b", ops: []op{{0, del, unknown}}, good: []string{"b", ""}, bad: map[string]string{"x": "invented"}},
		{name: "unknown put", ops: []op{{0, putting("m"), unknown}}, good: []string{"m", ""}},
		{name: "failed put", base: "b", ops: []op{{0, putting("m"), failed}}, good: []string{"b"}, bad: map[string]string{"m": "resurrected"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHistory()
			h.before("other", "x")
			if c.base != "" {
				h.before("k", c.base)
			}
			for _, o := range c.ops {
				h.apply(o.side, "k", o.f, o.o)
			}
			show := func(v string) []anomaly {
				shown := map[string]string{"other": "x"}
				if v != "" {
					shown["k"] = v
				}
				return h.check(shown)
			}
			for _, v := range c.good {
				if found := show(v); len(found) > 0 {
					t.Errorf("%q: %v, want nothing", v, found)
				}
			}
			for v, kind := range c.bad {
				if found := show(v); len(found) != 1 || found[0].Kind != kind {
					t.Errorf("%q: %v, want %s", v, found, kind)
				}
			}
		})
	}
	h := newHistory()
	if found := h.check(map[string]string{"k": "v"}); len(found) != 1 || found[0].Kind != "invented" {
		t.Errorf("a key that nobody wrote: %v", found)
	}
}

// What survives a partition in the data model is exactly what is allowed, and
// no more than that if one side hears what the other does.
func TestAllowedIsTheDataModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		replicas := []*crdt.Replica{
			crdt.NewReplica(crdt.State{Inc: 1, Cells: crdt.NewMapCells(), Clock: crdt.NewClock()}),
			crdt.NewReplica(crdt.State{Inc: 2, Cells: crdt.NewMapCells(), Clock: crdt.NewClock()}),
		}
		h := newHistory()
		h.sees[0] = rapid.Bool().Draw(t, "one hears")
		hlc := uint64(0)
		exchange := func(ops [2][]*crdt.Op) {
			for side, list := range ops {
				for _, op := range list {
					replicas[1-side].Apply(op)
				}
			}
		}
		var ops [2][]*crdt.Op
		do := func(side int, f final) {
			// Each side's clock may be ahead of the other's.
			hlc += rapid.Uint64Range(1, 3).Draw(t, "time")
			at := crdt.HLC(hlc)
			r := replicas[side]
			if f.kind == deleted {
				ops[side] = append(ops[side], r.Delete("k", at)...)
				return
			}
			written, err := r.Put(crdt.Write{Key: "k", Value: []byte(f.value), HLC: at})
			if err != nil {
				t.Fatal(err)
			}
			ops[side] = append(ops[side], written...)
		}
		if rapid.Bool().Draw(t, "base") {
			h.before("k", "base")
			do(0, final{put, "base"})
			exchange(ops)
			ops = [2][]*crdt.Op{}
		}
		for i := range rapid.IntRange(0, 6).Draw(t, "ops") {
			side := rapid.IntRange(0, 1).Draw(t, "side")
			if h.sees[0] {
				for _, op := range ops[1][:rapid.IntRange(0, len(ops[1])).Draw(t, "heard")] {
					replicas[0].Apply(op)
				}
			}
			f := final{kind: deleted}
			if rapid.Bool().Draw(t, "put") {
				f = final{put, string(rune('a' + i))}
			}
			do(side, f)
			h.apply(side, "k", f, ok)
		}
		exchange(ops)
		values, absent := h.key("k").allowed()
		for _, r := range replicas {
			var got []string
			for _, c := range r.Cells().ByKey("k") {
				got = append(got, string(c.Value))
			}
			slices.Sort(got)
			if h.sees[0] {
				if len(got) == 0 && !absent || slices.ContainsFunc(got, func(v string) bool { return !values[v] }) {
					t.Fatalf("live %q, allowed %v, absent: %v", got, values, absent)
				}
				continue
			}
			if len(got) == 0 != absent {
				t.Fatalf("live %q, absent allowed: %v", got, absent)
			}
			if !slices.Equal(got, slices.Sorted(maps.Keys(values))) {
				t.Fatalf("live %q, allowed %v", got, values)
			}
		}
	})
}
