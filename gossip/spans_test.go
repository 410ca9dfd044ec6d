package gossip

import (
	"testing"

	"github.com/meshkv/meshkv/crdt"
)

func TestMinusOfManySpans(t *testing.T) {
	var a, b crdt.Dots
	for i := range uint64(200_000) { // hours if it were quadratic
		a = append(a, crdt.Span{Inc: 1, Lo: 4*i + 1, Hi: 4*i + 3})
		b = append(b, crdt.Span{Inc: 1, Lo: 4*i + 2, Hi: 4*i + 2})
	}
	if got := minus(a, b); len(got) != 2*len(a) {
		t.Fatalf("%d spans", len(got))
	}
	if got := minus(a, a); len(got) != 0 {
		t.Fatalf("%d spans", len(got))
	}
	most := crdt.Span{Inc: 1, Lo: 2, Hi: 1<<64 - 1}
	if got := minus(crdt.Dots{most}, crdt.Dots{{Inc: 1, Lo: 5, Hi: 1<<64 - 1}}); len(got) != 1 || got[0] != (crdt.Span{Inc: 1, Lo: 2, Hi: 4}) {
		t.Fatalf("minus %v", got)
	}
}
