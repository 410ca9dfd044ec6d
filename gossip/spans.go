package gossip

import (
	"cmp"
	"math"
	"slices"

	"github.com/meshkv/meshkv/crdt"
)

// dotsOf is the set of spans, which may be in any order and overlap. It sorts
// them in place.
func dotsOf(spans []crdt.Span) crdt.Dots {
	slices.SortFunc(spans, func(a, b crdt.Span) int {
		return cmp.Or(cmp.Compare(a.Inc, b.Inc), cmp.Compare(a.Lo, b.Lo))
	})
	out := make(crdt.Dots, 0, len(spans))
	for _, sp := range spans {
		if n := len(out); n > 0 && out[n-1].Inc == sp.Inc && sp.Lo-1 <= out[n-1].Hi {
			out[n-1].Hi = max(out[n-1].Hi, sp.Hi)
			continue
		}
		out = append(out, sp)
	}
	return out
}

// size is the number of dots, or math.MaxInt if that is less: a span that a
// peer sent may name any number.
func size(d crdt.Dots) int {
	var n uint64
	for _, sp := range d {
		if n += sp.Hi - sp.Lo; n >= math.MaxInt-1 || sp.Hi-sp.Lo >= math.MaxInt-1 {
			return math.MaxInt
		}
		n++
	}
	return int(n)
}

// split is the dots of the incarnations that are in, and the others.
func split(dots crdt.Dots, in func(crdt.Inc) bool) (yes, no crdt.Dots) {
	for i := 0; i < len(dots); {
		j := i + 1
		for j < len(dots) && dots[j].Inc == dots[i].Inc {
			j++
		}
		if in(dots[i].Inc) {
			yes = append(yes, dots[i:j]...)
		} else {
			no = append(no, dots[i:j]...)
		}
		i = j
	}
	return yes, no
}

// minus is the dots of a that are not in b.
func minus(a, b crdt.Dots) crdt.Dots {
	var out crdt.Dots
	for _, sp := range a {
		// Spans of b that end below sp.Lo concern no later span of a either.
		for len(b) > 0 && (b[0].Inc < sp.Inc || b[0].Inc == sp.Inc && b[0].Hi < sp.Lo) {
			b = b[1:]
		}
		lo, rest := sp.Lo, true
		for _, cut := range b {
			if cut.Inc != sp.Inc || cut.Lo > sp.Hi {
				break
			}
			if lo < cut.Lo {
				out = append(out, crdt.Span{Inc: sp.Inc, Lo: lo, Hi: cut.Lo - 1})
			}
			if cut.Hi >= sp.Hi { // tested here: Hi may be the largest uint64
				rest = false
				break
			}
			lo = cut.Hi + 1
		}
		if rest {
			out = append(out, crdt.Span{Inc: sp.Inc, Lo: lo, Hi: sp.Hi})
		}
	}
	return out
}
