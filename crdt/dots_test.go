package crdt

import (
	"maps"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// dotSet is the dumb model of Dots.
type dotSet map[Dot]bool

func (m dotSet) sorted() []Dot { return slices.SortedFunc(maps.Keys(m), Dot.Compare) }

// checkDots fails unless s is well formed and equals m.
func checkDots(t *rapid.T, what string, s Dots, m dotSet) {
	for i, sp := range s {
		if sp.Inc == 0 || sp.Lo == 0 || sp.Lo > sp.Hi {
			t.Fatalf("%s: invalid span %v", what, sp)
		}
		if i > 0 && (sp.Inc < s[i-1].Inc || sp.Inc == s[i-1].Inc && sp.Lo-1 <= s[i-1].Hi) {
			t.Fatalf("%s: spans %v, %v", what, s[i-1], sp)
		}
	}
	if got := slices.Collect(s.All()); !slices.Equal(got, m.sorted()) {
		t.Fatalf("%s: got %v want %v", what, got, m.sorted())
	}
	if s.Len() != len(m) {
		t.Fatalf("%s: Len %d want %d", what, s.Len(), len(m))
	}
	for inc := range Inc(4) {
		for seq := range uint64(25) {
			if d := (Dot{inc, seq}); s.Contains(d) != m[d] {
				t.Fatalf("%s: Contains(%v) = %v in %v", what, d, s.Contains(d), s)
			}
		}
	}
}

func TestDotsAgainstSet(t *testing.T) {
	smallSpan := rapid.Custom(func(t *rapid.T) Span {
		lo := rapid.Uint64Range(1, 20).Draw(t, "lo")
		return Span{Inc(rapid.Uint64Range(1, 3).Draw(t, "inc")), lo, lo + rapid.Uint64Range(0, 3).Draw(t, "more")}
	})
	rapid.Check(t, func(t *rapid.T) {
		var sets [2]Dots
		models := [2]dotSet{{}, {}}
		for range rapid.IntRange(1, 20).Draw(t, "steps") {
			i := rapid.IntRange(0, 1).Draw(t, "which")
			before, copied := sets[i], slices.Clone(sets[i])
			switch rapid.IntRange(0, 3).Draw(t, "what") {
			case 0, 1:
				sp := smallSpan.Draw(t, "span")
				sets[i] = sets[i].With(sp)
				for seq := sp.Lo; seq <= sp.Hi; seq++ {
					models[i][Dot{sp.Inc, seq}] = true
				}
			case 2:
				d := Dot{Inc(rapid.Uint64Range(1, 3).Draw(t, "inc")), rapid.Uint64Range(1, 23).Draw(t, "seq")}
				sets[i] = sets[i].Without(d)
				delete(models[i], d)
			default:
				sets[i] = sets[i].Union(sets[1-i])
				maps.Copy(models[i], models[1-i])
			}
			checkDots(t, "after a step", sets[i], models[i])
			if !slices.Equal(before, copied) {
				t.Fatalf("operand changed: %v was %v", before, copied)
			}
		}
		dots := rapid.Permutation(models[0].sorted()).Draw(t, "order")
		checkDots(t, "DotsOf", DotsOf(dots...), models[0])
	})
}

// The largest sequence number is one like any other.
func TestDotsAtTheEnd(t *testing.T) {
	const most = math.MaxUint64
	s := Dots(nil).With(Span{1, 5, most})
	for name, got := range map[string]Dots{
		"With inside":   s.With(Span{1, 7, 8}),
		"With the last": s.With(Span{1, most, most}),
		"With adjacent": s.With(Span{1, 3, 4}).Without(Dot{1, 3}).Without(Dot{1, 4}),
		"Union":         s.Union(Dots{{1, most, most}}),
	} {
		if !slices.Equal(got, s) {
			t.Errorf("%s: %v", name, got)
		}
	}
	if !s.Contains(Dot{1, most}) || s.Contains(Dot{2, most}) {
		t.Error("Contains")
	}
	if got := s.Without(Dot{1, most}); !slices.Equal(got, Dots{{1, 5, most - 1}}) {
		t.Errorf("Without: %v", got)
	}
	if got := s.With(Span{2, most, most}).Len(); got != math.MaxInt {
		t.Errorf("Len %d", got)
	}
	if got := (Dots{{1, 1, 1 << 62}, {2, 1, 1 << 62}}).Len(); got != math.MaxInt {
		t.Errorf("Len %d", got)
	}
	if got := slices.Collect(Dots{{1, most - 1, most}}.All()); !slices.Equal(got, []Dot{{1, most - 1}, {1, most}}) {
		t.Errorf("All: %v", got)
	}
}
