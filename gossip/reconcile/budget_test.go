package reconcile

import (
	"fmt"
	"testing"

	"github.com/meshkv/meshkv/crdt"
)

// overhead is what a session cost in both directions, without the cells.
func overhead(s *Session) uint64 {
	st := s.Stats()
	return st.SentBytes + st.ReceivedBytes - st.SentCellBytes - st.ReceivedCellBytes
}

// cluster is n cells written by five incarnations that both sites know.
func pair(n int) (a, b *site) {
	a, b = newSite(100), newSite(200)
	incs := [5]crdt.Inc{}
	for i := range incs {
		incs[i] = crdt.NewInc(1_700_000_000_000+int64(i)*12345, uint64(i)*999983)
	}
	for i := range n {
		d := crdt.Dot{Inc: incs[i%5], Seq: uint64(i/5) + 1}
		c := &crdt.Cell{Key: fmt.Sprintf("key-%d", i), Kind: crdt.KindRegister, Dot: d, HLC: crdt.HLC(i + 1), Value: []byte("value")}
		for _, s := range []*site{a, b} {
			s.cells.Add(c)
			s.trie.Insert(c)
		}
	}
	for i, inc := range incs {
		for _, s := range []*site{a, b} {
			e := crdt.Entry{Prefix: uint64((n + 4 - i) / 5)}
			s.replica.Clock().Set(inc, e)
			s.sum.Update(inc, e)
		}
	}
	return a, b
}

func TestByteBudget(t *testing.T) {
	sizes := []int{100_000, 1_000_000}
	if testing.Short() {
		sizes = sizes[:1]
	}
	for _, n := range sizes {
		a, b := pair(n)
		for _, test := range []struct{ differences, budget int }{
			{0, 96}, {1, 1024}, {100, 60_000}, {1000, 450_000},
		} {
			for i := range test.differences {
				a.put(fmt.Sprintf("key-%d", i*(n/1000)), "new")
			}
			sa, sb := run(t, a, b)
			if got := overhead(sa); got > uint64(test.budget) {
				t.Errorf("%d keys, %d differences: %d B, budget %d", n, test.differences, got, test.budget)
			} else {
				t.Logf("%d keys, %d differences: %d B, %d payloads", n, test.differences, got, sa.Stats().SentPayloads+sb.Stats().SentPayloads)
			}
			if a.root() != b.root() {
				t.Fatal("roots differ")
			}
		}
	}
}
