package crdt

import (
	"testing"

	"pgregory.net/rapid"
)

// genClock draws a clock of few incarnations, some of them closed, sealed, or
// retired below a horizon.
func genHorizonClock(t *rapid.T, name string) *Clock {
	c := NewClock()
	for inc := Inc(1); inc <= 4; inc++ {
		e := Entry{Prefix: uint64(rapid.IntRange(0, 2).Draw(t, name))}
		if rapid.Bool().Draw(t, name) {
			e.Islands = []Interval{{e.Prefix + 2, e.Prefix + 3}}
		}
		e.Closed = rapid.Bool().Draw(t, name)
		e.Sealed = e.Closed && rapid.Bool().Draw(t, name)
		c.Set(inc, e)
	}
	c.raise(Inc(rapid.IntRange(0, 5).Draw(t, name)))
	return c
}

func merged(a, b *Clock) *Clock {
	c := a.Clone()
	c.Merge(b)
	return c
}

// Clocks with horizons are a join semilattice: replicas may exchange them in any
// order. What either knew, the join knows.
func TestClockMergeWithHorizon(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := genHorizonClock(t, "a"), genHorizonClock(t, "b"), genHorizonClock(t, "c")
		ab := merged(a, b)
		if ba := merged(b, a); !ab.Equal(ba) || ab.Horizon() != ba.Horizon() {
			t.Fatalf("not commutative: %v, %v", ab.entries, ba.entries)
		}
		if x, y := merged(ab, c), merged(a, merged(b, c)); !x.Equal(y) {
			t.Fatalf("not associative: %v, %v", x.entries, y.entries)
		}
		if again := merged(ab, b); !again.Equal(ab) {
			t.Fatalf("not idempotent: %v, then %v", ab.entries, again.entries)
		}
		for inc := Inc(1); inc <= 5; inc++ {
			for seq := uint64(1); seq <= 6; seq++ {
				d := Dot{inc, seq}
				if (a.Contains(d) || b.Contains(d)) != ab.Contains(d) && !ab.Retired(inc) {
					t.Fatalf("%v is known to %v, %v; to the join %v", d, a.Contains(d), b.Contains(d), ab.Contains(d))
				}
				sp := Dots{{inc, seq, seq}}
				if ab.Contains(d) != ab.ContainsAll(sp) || ab.Contains(d) != (len(ab.Missing(sp)) == 0) {
					t.Fatalf("%v: Contains, ContainsAll and Missing differ", d)
				}
			}
			if ab.Retired(inc) && (ab.Close(inc) || ab.Add(Span{inc, 1, 2}) || ab.MergeEntry(inc, Entry{Prefix: 9})) {
				t.Fatalf("%v was retired, and has an entry again", inc)
			}
		}
		e := NewEncoder()
		e.Clock(ab)
		d := NewDecoder()
		d.Reset(e.Bytes())
		if got, err := d.Clock(64); err != nil || !got.Equal(ab) || got.Horizon() != ab.Horizon() {
			t.Fatalf("%v became %v, %v", ab.entries, got, err)
		}
	})
}

// A seal that made all dots of an incarnation known would lose a value: here two
// sides of a partition each agree on what an incarnation wrote, and one of them
// has a value that the other never saw. Seals keep the exact dots, so the value
// gets everywhere when the partition ends.
func TestSealsOfTwoSides(t *testing.T) {
	newReplica := func(inc Inc) (*Replica, *MapCells) {
		cells := NewMapCells()
		return NewReplica(State{Inc: inc, Cells: cells, Clock: NewClock()}), cells
	}
	writer, _ := newReplica(1)
	first, err := writer.Put(Write{Key: "a", Kind: KindRegister, Value: []byte("1"), HLC: 1})
	if err != nil {
		t.Fatal(err)
	}
	unsent, err := writer.Put(Write{Key: "b", Kind: KindRegister, Value: []byte("2"), HLC: 2})
	if err != nil {
		t.Fatal(err)
	}
	a, cellsA := newReplica(2)
	b, cellsB := newReplica(3)
	a.Apply(first[0])
	b.Apply(first[0])
	b.Apply(unsent[0]) // the writer came back from its disk on this side
	for r, cells := range map[*Replica]*MapCells{a: cellsA, b: cellsB} {
		r.Close(1)
		agreed, ok := Decide(r.Survey(cells), nil, 1)
		if !ok || !r.Agree(agreed, cells) || !r.Clock().Entry(1).Sealed {
			t.Fatal("not sealed")
		}
	}
	for _, c := range []*Cell{cellsB.ByDot(unsent[0].Dot)} { // the session
		if !a.Provide(c) {
			t.Fatal("the value is refused: its dot counts as known")
		}
	}
	snapshot := func(r *Replica) Known { return Known{Clock: r.Clock().Clone(), Pending: r.Pending()} }
	knownA, knownB := snapshot(a), snapshot(b)
	none := func(func(Dot) bool) {}
	a.Conclude(knownB, none)
	b.Conclude(knownA, func(yield func(Dot) bool) { yield(unsent[0].Dot) })
	if cellsA.ByDot(unsent[0].Dot) == nil || cellsB.ByDot(unsent[0].Dot) == nil {
		t.Fatal("an acknowledged value is lost")
	}
}

// The horizon rises above nothing that any member knows as unclosed, and nothing
// is decided unless all say the same.
func TestDecide(t *testing.T) {
	for _, c := range []struct {
		name   string
		own    Survey
		others []Survey
		limit  Inc
		want   Agreement
		ok     bool
	}{
		{"alone", Survey{1, 9}, nil, 20, Agreement{1, 9}, true},
		{"limited", Survey{1, 9}, nil, 5, Agreement{1, 5}, true},
		{"another's floor", Survey{1, 9}, []Survey{{1, 7}, {1, 3}, {1, 8}}, 5, Agreement{1, 3}, true},
		{"another's digest", Survey{1, 9}, []Survey{{1, 9}, {2, 9}}, 5, Agreement{}, false},
	} {
		if got, ok := Decide(c.own, c.others, c.limit); got != c.want || ok != c.ok {
			t.Errorf("%s: got %v, %v, want %v, %v", c.name, got, ok, c.want, c.ok)
		}
	}
}

// The floor is below everything that may still get ops: entries that are not
// closed, provisional cells of incarnations without an entry, and the writer.
func TestSurveyFloor(t *testing.T) {
	cells := NewMapCells()
	r := NewReplica(State{Inc: 9, Cells: cells, Clock: NewClock()})
	floor := func(want Inc) {
		t.Helper()
		if got := r.Survey(cells).Floor; got != want {
			t.Errorf("floor %v, want %v", got, want)
		}
	}
	floor(9)
	r.Apply(&Op{Dot: Dot{6, 1}, Key: "a", Cell: &Cell{Key: "a", Kind: KindRegister, Dot: Dot{6, 1}}})
	floor(6)
	r.Provide(&Cell{Key: "b", Kind: KindRegister, Dot: Dot{4, 1}})
	floor(4)
	if r.Agree(Agreement{Digest: r.Survey(cells).Digest, Horizon: 5}, cells) {
		t.Error("agreed to a horizon above a provisional cell")
	}
	r.Close(4)
	floor(6)
	r.Close(6)
	floor(9)
}
