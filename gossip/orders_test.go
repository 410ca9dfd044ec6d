package gossip

import (
	"fmt"
	"testing"

	"github.com/meshkv/meshkv/crdt"
)

// F10: same history, different value. Every order of delivery of every short
// history over one key, each op possibly twice, through frames.
func TestF10AllOrdersOfShortHistories(t *testing.T) {
	const length = 4
	histories := 0
	for code := range 1 << (2 * length) {
		// Two bits a step: which of two writers acts, and whether it puts or
		// deletes. The second hears of everything at once, the first of nothing.
		writers := []writer{newWriter(1), newWriter(2)}
		var ops []*crdt.Op
		for i := range length {
			w := writers[code>>(2*i)&1]
			if code>>(2*i+1)&1 == 0 {
				ops = append(ops, w.put(t, "k", ""))
			} else {
				ops = append(ops, w.Delete("k", 1)...)
			}
			for _, op := range ops {
				writers[1].Apply(op)
			}
		}
		histories++
		var want []crdt.Dot
		var root any
		permute(ops, 0, func(order []*crdt.Op) {
			r := newReplicator("r", 9, Limits{})
			r.LinkUp(start, "p", RoleDirect)
			for _, op := range order {
				for range 2 {
					if err := r.Step(start, "p", encoded(op)); err != nil {
						t.Fatal(err)
					}
				}
			}
			var got []crdt.Dot
			for c := range r.Replica().Cells().(*crdt.MapCells).All() {
				got = append(got, c.Dot)
			}
			if root == nil {
				root, want = r.root(), got
			} else if root != any(r.root()) || r.Replica().PendingLen() != 0 {
				t.Fatalf("history %d: %v in one order, %v in another", code, want, got)
			}
		})
	}
	if histories != 256 {
		t.Fatal(fmt.Sprint(histories, " histories"))
	}
}

func permute(ops []*crdt.Op, n int, do func([]*crdt.Op)) {
	if n >= len(ops)-1 {
		do(ops)
		return
	}
	for i := n; i < len(ops); i++ {
		ops[n], ops[i] = ops[i], ops[n]
		permute(ops, n+1, do)
		ops[n], ops[i] = ops[i], ops[n]
	}
}
