package main

import (
	"cmp"
	"fmt"
	"slices"
)

// A grant is one lock that was held, as its holder saw it.
type grant struct {
	claim string
	token uint64
	call  int64 // ns, before it was asked for
	from  int64 // ns, after it was granted
	sure  int64 // ns, the last time before which the holder was told nothing of a loss
}

// grantProblems checks what the holders of one lock saw against each other, and against the
// queues that were seen meanwhile (claims in their order).
func grantProblems(grants []grant, queues [][]string) (found []string) {
	add := func(format string, args ...any) {
		if len(found) < maxShown {
			found = append(found, fmt.Sprintf(format, args...))
		}
	}
	sorted := slices.Clone(grants)
	slices.SortFunc(sorted, func(a, b grant) int { return cmp.Compare(a.token, b.token) })
	tokens := make(map[string]uint64)
	for i, g := range sorted {
		tokens[g.claim] = g.token
		if i > 0 && sorted[i-1].token == g.token {
			add("token %d for %s and for %s", g.token, sorted[i-1].claim, g.claim)
		}
		for _, later := range sorted[i+1:] {
			if later.from < g.call {
				add("%s got token %d before %s, which got %d, asked", later.claim, later.token, g.claim, g.token)
			}
			if later.from < g.sure && g.from < later.sure {
				add("%s (token %d) and %s (token %d) both hold the lock for %d ns", g.claim, g.token, later.claim, later.token,
					min(g.sure, later.sure)-max(g.from, later.from))
			}
		}
	}
	for _, q := range queues {
		var before string
		for _, claim := range q {
			if tokens[claim] == 0 {
				continue // it gave up, or its session was lost
			}
			if tokens[claim] <= tokens[before] {
				add("%s waited before %s and got token %d after its %d", before, claim, tokens[before], tokens[claim])
			}
			before = claim
		}
	}
	return found
}

// A resource is what the lock protects: it knows the highest token that it has seen.
type resource struct {
	highest           uint64
	accepted, refused int
}

// write reports whether the resource takes a write under the token.
func (r *resource) write(token uint64) bool {
	if token < r.highest {
		r.refused++
		return false
	}
	r.highest = token
	r.accepted++
	return true
}
