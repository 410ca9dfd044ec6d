package reconcile

import (
	"fmt"
	"slices"
	"testing"

	"github.com/meshkv/meshkv/crdt"
)

// Clocks of many entries and with very many islands, and many pending deaths,
// go over in payloads within the limit.
func TestLargeClocks(t *testing.T) {
	const limit = 8 << 10
	mine, theirs := crdt.NewClock(), crdt.NewClock()
	for i := range crdt.Inc(3000) {
		mine.Set(i+1, crdt.Entry{Prefix: uint64(i) + 1})
		if i%10 > 0 {
			theirs.Set(i+1, crdt.Entry{Prefix: uint64(i)%50 + 1, Closed: i%3 == 0})
		}
	}
	holes := crdt.Entry{Prefix: 3}
	var pending crdt.Dots
	for i := range uint64(20_000) {
		holes.Islands = append(holes.Islands, crdt.Interval{Lo: 10 + 3*i, Hi: 10 + 3*i})
		if i%4 == 0 {
			pending = append(pending, crdt.Span{Inc: 5000, Lo: 1 + 2*i, Hi: 1 + 2*i})
		}
	}
	mine.Set(4000, holes)
	holes.Islands = slices.Clone(holes.Islands)
	holes.Islands[17_000].Hi++
	theirs.Set(4000, holes)
	for name, pair := range map[string][2]*crdt.Clock{
		"both": {mine, theirs}, "one": {mine, crdt.NewClock()}, "other": {crdt.NewClock(), mine}, "few": {theirs, func() *crdt.Clock {
			c := crdt.NewClock()
			c.Set(4000, holes)
			c.Set(7, crdt.Entry{Prefix: 1})
			return c
		}()},
	} {
		a := Snapshot{Data: NewTrie(testSeed), Clock: pair[0], Pending: pending}
		b := Snapshot{Data: NewTrie(testSeed), Clock: pair[1], Pending: pending[:100]}
		sides, sessions := exchange(t, a, b, limit)
		if !sides[0].known.Clock.Equal(pair[1]) || !sides[1].known.Clock.Equal(pair[0]) {
			t.Errorf("%s: clocks", name)
		}
		if !slices.Equal(sides[0].known.Pending, b.Pending) || !slices.Equal(sides[1].known.Pending, pending) {
			t.Errorf("%s: pending deaths", name)
		}
		// One piece of an entry is a message of its own.
		if most := 18 * sessions[0].limits.islands; sides[0].largest > most+limit || sides[1].largest > most+limit {
			t.Errorf("%s: payloads of %d and %d B", name, sides[0].largest, sides[1].largest)
		}
	}
}

// Many cells of one key differ at both sides.
func TestManySiblings(t *testing.T) {
	a, b := NewTrie(testSeed), NewTrie(testSeed)
	mine, theirs := crdt.NewClock(), crdt.NewClock()
	want := [2]int{}
	for i := range uint64(3000) {
		c := cellAt("key", i%7+1, i/7+1)
		switch {
		case i%11 == 0:
			a.Insert(c)
			want[1]++
			mine.Add(crdt.Span{Inc: c.Dot.Inc, Lo: c.Dot.Seq, Hi: c.Dot.Seq})
		case i%13 == 0:
			b.Insert(c)
			want[0]++
			theirs.Add(crdt.Span{Inc: c.Dot.Inc, Lo: c.Dot.Seq, Hi: c.Dot.Seq})
		default:
			a.Insert(c)
			b.Insert(c)
			for _, clock := range []*crdt.Clock{mine, theirs} {
				clock.Add(crdt.Span{Inc: c.Dot.Inc, Lo: c.Dot.Seq, Hi: c.Dot.Seq})
			}
		}
	}
	sides, _ := exchange(t, Snapshot{Data: a.Snapshot(), Clock: mine}, Snapshot{Data: b.Snapshot(), Clock: theirs}, 4<<10)
	for i, side := range sides {
		if len(side.provided) != want[i] || len(side.lacks) != 0 {
			t.Errorf("side %d: %d cells, want %d; %d dropped", i, len(side.provided), want[i], len(side.lacks))
		}
		if side.largest > 4<<10 {
			t.Errorf("side %d: payload of %d B", i, side.largest)
		}
	}
}

// Cells of up to the largest size, wanted one by one and streamed.
func TestLargeCells(t *testing.T) {
	for _, empty := range []bool{true, false} {
		a, b := newSite(1), newSite(2)
		for i := range 40 {
			size := 10
			if i%8 == 0 {
				size = crdt.MaxValueBytes
			}
			b.put(fmt.Sprint("key", i), string(make([]byte, size)))
			if !empty {
				a.put(fmt.Sprint("own", i), "v")
			}
		}
		run(t, a, b)
		sameState(t, a, b)
	}
}

// What is kept of a session in which everything differs stays within the
// limits.
func TestBoundedWalk(t *testing.T) {
	const n = 60_000
	snaps := [2]Snapshot{}
	for i := range snaps {
		trie, clock := NewTrie(testSeed), crdt.NewClock()
		for k := range uint64(n) {
			trie.Insert(cellAt(fmt.Sprint("key", k), uint64(i+1), k+1))
		}
		clock.Add(crdt.Span{Inc: crdt.Inc(i + 1), Lo: 1, Hi: n})
		snaps[i] = Snapshot{Data: trie.Snapshot(), Clock: clock}
	}
	a, b := Open(1, testSeed, snaps[0]), Accept(1, testSeed, snaps[1])
	l := a.limits
	cells := [2]int{}
	for !a.finished || !b.finished {
		for i, s := range [][2]*Session{{a, b}, {b, a}} {
			for {
				m, ok := s[0].NextMessage(nil, 64<<10)
				if !ok {
					break
				}
				if err := s[1].Step(m); err != nil {
					t.Fatal(err)
				}
				cells[1-i] += len(s[1].TakeProvided())
				if len(a.queries) > l.stack+fanout*fanout*8 || len(a.tasks) > l.tasks+l.queries*fanout || len(b.tasks) > l.queries*(fanout+1) {
					t.Fatalf("%d queries, %d and %d tasks", len(a.queries), len(a.tasks), len(b.tasks))
				}
				for _, s := range s {
					if s.offeredN > l.offered || s.flight > l.flight+200 || len(s.wanted) > l.offered+l.queries*fanout*dataListMax {
						t.Fatalf("%d offered, %d B in flight, %d wanted", s.offeredN, s.flight, len(s.wanted))
					}
				}
			}
		}
	}
	if cells != [2]int{n, n} {
		t.Errorf("%d cells", cells)
	}
}
