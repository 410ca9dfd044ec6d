package reconcile

import (
	"fmt"
	"slices"
	"testing"

	"github.com/meshkv/meshkv/crdt"
)

// overhead is what a session cost in both directions, without the cells.
func overhead(s *Session) int {
	st := s.Stats()
	return int(st.SentBytes + st.ReceivedBytes - st.SentCellBytes - st.ReceivedCellBytes)
}

// outcome is what one side of a session came to, and what there was of it.
type outcome struct {
	provided []*crdt.Cell
	lacks    []crdt.Dot
	known    crdt.Known
	largest  int // payload
}

// exchange runs a session on two snapshots, without replicas.
func exchange(t fatal, a, b Snapshot, limit int) (sides [2]outcome, sessions [2]*Session) {
	t.Helper()
	sessions = [2]*Session{Open(1, testSeed, a), Accept(1, testSeed, b)}
	for moved := true; moved; {
		moved = false
		for i, s := range sessions {
			for {
				m, ok := s.NextMessage(nil, limit)
				if !ok {
					break
				}
				moved = true
				sides[i].largest = max(sides[i].largest, len(m))
				if err := sessions[1-i].Step(m); err != nil {
					t.Fatalf("side %d: %v", 1-i, err)
				}
				sides[1-i].provided = append(sides[1-i].provided, sessions[1-i].TakeProvided()...)
			}
			for j, s := range sessions {
				if known, lacks, ok := s.Concluded(); ok {
					sides[j].known, sides[j].lacks = known, slices.Collect(lacks)
				}
			}
		}
	}
	if !sessions[0].Done() || !sessions[1].Done() {
		t.Fatalf("stuck")
	}
	return sides, sessions
}

var testIncs = func() (incs [5]crdt.Inc) {
	for i := range incs {
		incs[i] = crdt.NewInc(1_700_000_000_000+int64(i)*12345, uint64(i)*999983)
	}
	return incs
}()

// shared is n cells that five incarnations wrote, and the clock of those.
func shared(n int) ([]*crdt.Cell, *crdt.Clock) {
	cells, clock := make([]*crdt.Cell, n), crdt.NewClock()
	for i := range cells {
		cells[i] = &crdt.Cell{
			Key: fmt.Sprintf("keyspace/some/key/%08d", i), Kind: crdt.KindRegister, HLC: crdt.HLCAt(1_700_000_000_000),
			Dot: crdt.Dot{Inc: testIncs[i%5], Seq: uint64(i/5) + 1}, Value: make([]byte, 100),
		}
		clock.Add(crdt.Span{Inc: cells[i].Dot.Inc, Lo: 1, Hi: cells[i].Dot.Seq})
	}
	return cells, clock
}

func TestByteBudget(t *testing.T) {
	sizes := []int{100_000, 1_000_000}
	if raceEnabled || testing.Short() {
		sizes = sizes[:1]
	}
	for _, n := range sizes {
		cells, clock := shared(n)
		trie := NewTrie(testSeed)
		for _, c := range cells {
			trie.Insert(c)
		}
		old := Snapshot{Data: trie.Snapshot(), Clock: clock.Clone()}
		changed := 0
		for _, test := range []struct{ differences, budget int }{
			{0, 160}, {1, 1 << 10}, {100, 60_000}, {1000, 400_000},
		} {
			for ; changed < test.differences; changed++ {
				was := cells[changed*997%n]
				is := *was
				is.Dot = crdt.Dot{Inc: testIncs[0], Seq: uint64(n + changed)}
				clock.Add(crdt.Span{Inc: is.Dot.Inc, Lo: 1, Hi: is.Dot.Seq})
				trie.Remove(was)
				trie.Insert(&is)
			}
			now := Snapshot{Data: trie.Snapshot(), Clock: clock.Clone()}
			for _, order := range [][2]Snapshot{{now, old}, {old, now}} {
				sides, sessions := exchange(t, order[0], order[1], 64<<10)
				stale := 0
				if order[0].Data == now.Data {
					stale = 1
				}
				if got := len(sides[stale].provided); got != test.differences {
					t.Errorf("%d cells provided, not %d", got, test.differences)
				}
				if got := len(sides[stale].lacks); got != test.differences {
					t.Errorf("%d cells lacking, not %d", got, test.differences)
				}
				if other := sides[1-stale]; len(other.provided)+len(other.lacks) > 0 {
					t.Errorf("the newer side changes")
				}
				got := overhead(sessions[0])
				t.Logf("%d keys, %d differences: %d B, %d payloads", n, test.differences, got,
					sessions[0].Stats().SentPayloads+sessions[1].Stats().SentPayloads)
				if got > test.budget {
					t.Errorf("%d keys, %d differences: %d B, budget %d", n, test.differences, got, test.budget)
				}
			}
		}
	}
}

// A bootstrap sends every cell once, whoever opens the session, with next to
// nothing beside them, and in payloads within the limit.
func TestBootstrapBudget(t *testing.T) {
	const limit = 64 << 10
	n := 100_000
	if raceEnabled {
		n = 20_000
	}
	cells, clock := shared(n)
	trie := NewTrie(testSeed)
	for _, c := range cells {
		trie.Insert(c)
	}
	own := NewTrie(testSeed)
	ownClock := crdt.NewClock()
	ownClock.Add(crdt.Span{Inc: 9, Lo: 1, Hi: 3})
	for i := range 3 {
		own.Insert(cellAt(fmt.Sprint("own", i), 9, uint64(i+1)))
	}
	all := Snapshot{Data: trie.Snapshot(), Clock: clock}
	for name, empty := range map[string]Snapshot{
		"empty": {Data: NewTrie(testSeed), Clock: crdt.NewClock()},
		"a few": {Data: own.Snapshot(), Clock: ownClock},
	} {
		for bootstrapped, order := range [][2]Snapshot{{empty, all}, {all, empty}} {
			sides, sessions := exchange(t, order[0], order[1], limit)
			got := sides[bootstrapped]
			if len(got.provided) != n || len(sides[1-bootstrapped].provided) != empty.Data.Len() || len(got.lacks) != 0 {
				t.Fatalf("%s: %d cells provided, %d back, %d dropped", name, len(got.provided), len(sides[1-bootstrapped].provided), len(got.lacks))
			}
			if !got.known.Clock.Equal(clock) {
				t.Fatalf("%s: clock", name)
			}
			if over := overhead(sessions[0]); over > 2*n {
				t.Errorf("%s: %d B beside the cells", name, over)
			}
			if sides[0].largest > limit || sides[1].largest > limit {
				t.Errorf("%s: payloads of %d and %d B", name, sides[0].largest, sides[1].largest)
			}
		}
	}
}

// BenchmarkBootstrap is both ends of a session that fills an empty replica with
// 100,000 cells of 100 B.
func BenchmarkBootstrap(b *testing.B) {
	const n = 100_000
	cells, clock := shared(n)
	trie := NewTrie(testSeed)
	for _, c := range cells {
		trie.Insert(c)
	}
	all := Snapshot{Data: trie.Snapshot(), Clock: clock}
	b.ResetTimer()
	defer reportCPU(b, cpuTime())
	for range b.N {
		sides, sessions := exchange(b, Snapshot{Data: NewTrie(testSeed), Clock: crdt.NewClock()}, all, 64<<10)
		if len(sides[0].provided) != n {
			b.Fatal("incomplete")
		}
		b.SetBytes(int64(sessions[0].Stats().ReceivedBytes))
	}
}

// A trie that has grown and shrunk finds a difference at the cost of one that
// always was of its size, and keeps no more nodes than it needs.
func TestBudgetAfterResizing(t *testing.T) {
	const most, least = 60_000, 3_000
	cells, _ := shared(most)
	grown, fresh := NewTrie(testSeed), NewTrie(testSeed)
	for _, c := range cells {
		grown.Insert(c)
	}
	for i, c := range cells {
		if i%(most/least) == 0 {
			fresh.Insert(c)
		} else if !grown.Remove(c) {
			t.Fatal("not there")
		}
	}
	if grown.Root() != fresh.Root() {
		t.Fatal("sums depend on the history")
	}
	var leaves func(n *node) (count int)
	leaves = func(n *node) (count int) {
		if n.kids == nil {
			return 1
		}
		for i := range n.kids.nodes {
			count += leaves(&n.kids.nodes[i])
		}
		return count
	}
	if a, b := leaves(&grown.root), leaves(&fresh.root); a > 5*b { // 16 kids are kept while they have more than 16 items
		t.Errorf("%d and %d leaves for %d cells", a, b, least)
	}
	_, clock := shared(most)
	cost := func(trie *Trie) int {
		old := Snapshot{Data: trie.Snapshot(), Clock: clock.Clone()}
		was := cells[0]
		is := *was
		is.Dot = crdt.Dot{Inc: testIncs[0], Seq: most + 1}
		later := clock.Clone()
		later.Add(crdt.Span{Inc: is.Dot.Inc, Lo: is.Dot.Seq, Hi: is.Dot.Seq})
		trie.Remove(was)
		trie.Insert(&is)
		_, sessions := exchange(t, old, Snapshot{Data: trie.Snapshot(), Clock: later}, 64<<10)
		return overhead(sessions[0])
	}
	if a, b := cost(grown), cost(fresh); a != b || a > 1<<10 {
		t.Errorf("one difference costs %d B after shrinking, %d B in a trie of that size", a, b)
	}
}
