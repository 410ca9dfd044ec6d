package crdt

import (
	"cmp"
	"iter"
	"math"
	"slices"
)

// A Span is the dots of one incarnation from Lo to Hi, both included;
// 1 <= Lo <= Hi.
type Span struct {
	Inc    Inc
	Lo, Hi uint64
}

func (sp Span) compareLo(other Span) int {
	return cmp.Or(cmp.Compare(sp.Inc, other.Inc), cmp.Compare(sp.Lo, other.Lo))
}

// Dots is a set of dots as spans, ascending by (Inc, Lo), disjoint and not
// adjacent within one incarnation. The zero value is the empty set. Values are
// treated as immutable once shared: With and Union return a new set and leave
// their operands as they were.
type Dots []Span

// DotsOf is the set of the given dots.
func DotsOf(dots ...Dot) Dots {
	if !slices.IsSortedFunc(dots, Dot.Compare) {
		dots = slices.SortedFunc(slices.Values(dots), Dot.Compare)
	}
	var s Dots
	for _, d := range dots {
		s = s.push(Span{d.Inc, d.Seq, d.Seq})
	}
	return s
}

// push adds sp in place to a set that is not shared yet and has no span that
// begins above sp.Lo.
func (s Dots) push(sp Span) Dots {
	if n := len(s); n > 0 && s[n-1].Inc == sp.Inc && s[n-1].Hi >= sp.Lo-1 {
		s[n-1].Hi = max(s[n-1].Hi, sp.Hi)
		return s
	}
	return append(s, sp)
}

// Len is the number of dots, not of spans, or math.MaxInt if it is more.
func (s Dots) Len() int {
	n := 0
	for _, sp := range s {
		if sp.Hi-sp.Lo >= uint64(math.MaxInt-n) {
			return math.MaxInt
		}
		n += int(sp.Hi - sp.Lo + 1)
	}
	return n
}

// find is the index of the first span that ends at or after d.
func (s Dots) find(d Dot) int {
	i, _ := slices.BinarySearchFunc(s, d, func(sp Span, d Dot) int {
		return cmp.Or(cmp.Compare(sp.Inc, d.Inc), cmp.Compare(sp.Hi, d.Seq))
	})
	return i
}

// Contains reports whether d is in the set.
func (s Dots) Contains(d Dot) bool {
	i := s.find(d)
	return i < len(s) && s[i].Inc == d.Inc && s[i].Lo <= d.Seq
}

// With is the set and the dots of sp.
func (s Dots) With(sp Span) Dots {
	if n := len(s); n == 0 || s[n-1].Inc < sp.Inc || s[n-1].Inc == sp.Inc && s[n-1].Hi < sp.Lo-1 {
		return append(slices.Clip(s), sp)
	}
	// All spans of the same incarnation that overlap or touch sp merge into one.
	lo := sp.Lo
	if lo > 1 {
		lo--
	}
	i := s.find(Dot{sp.Inc, lo})
	j := i
	for ; j < len(s) && s[j].Inc == sp.Inc && s[j].Lo-1 <= sp.Hi; j++ {
		sp.Lo, sp.Hi = min(sp.Lo, s[j].Lo), max(sp.Hi, s[j].Hi)
	}
	out := make(Dots, 0, len(s)-(j-i)+1)
	out = append(out, s[:i]...)
	out = append(out, sp)
	return append(out, s[j:]...)
}

// Union is the dots that are in s or in other.
func (s Dots) Union(other Dots) Dots {
	switch {
	case len(other) == 0:
		return s
	case len(s) == 0:
		return other
	}
	out := make(Dots, 0, len(s)+len(other))
	for len(s) > 0 && len(other) > 0 {
		if s[0].compareLo(other[0]) <= 0 {
			out, s = out.push(s[0]), s[1:]
		} else {
			out, other = out.push(other[0]), other[1:]
		}
	}
	for _, sp := range s {
		out = out.push(sp)
	}
	for _, sp := range other {
		out = out.push(sp)
	}
	return out
}

// Without is the set less one dot.
func (s Dots) Without(d Dot) Dots {
	i := s.find(d)
	if i == len(s) || s[i].Inc != d.Inc || s[i].Lo > d.Seq {
		return s
	}
	out := make(Dots, 0, len(s)+1)
	out = append(out, s[:i]...)
	if sp := s[i]; sp.Lo < d.Seq {
		out = append(out, Span{sp.Inc, sp.Lo, d.Seq - 1})
	}
	if sp := s[i]; d.Seq < sp.Hi {
		out = append(out, Span{sp.Inc, d.Seq + 1, sp.Hi})
	}
	return append(out, s[i+1:]...)
}

// All yields every dot, ascending.
func (s Dots) All() iter.Seq[Dot] {
	return func(yield func(Dot) bool) {
		for _, sp := range s {
			for seq := sp.Lo; ; seq++ {
				if !yield(Dot{sp.Inc, seq}) {
					return
				}
				if seq == sp.Hi { // tested here: Hi may be the largest uint64
					break
				}
			}
		}
	}
}
