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

// union is the dots of both.
func union(a, b crdt.Dots) crdt.Dots {
	switch {
	case len(a) == 0:
		return b
	case len(b) == 0:
		return a
	}
	return dotsOf(slices.Concat(a, b))
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

// minus is the dots of a that are not in b.
func minus(a, b crdt.Dots) crdt.Dots {
	known := crdt.NewClock()
	for _, sp := range b {
		known.Add(sp)
	}
	return known.Missing(a)
}
