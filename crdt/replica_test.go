package crdt

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"pgregory.net/rapid"
)

func newReplica(inc Inc) *Replica {
	return NewReplica(State{Inc: inc, Cells: NewMapCells(), Clock: NewClock()})
}

// put makes one write and returns its op.
func put(t testing.TB, r *Replica, key, value string) *Op {
	t.Helper()
	ops, err := r.Put(Write{Key: key, Kind: KindRegister, Value: []byte(value)})
	if err != nil || len(ops) != 1 {
		t.Fatalf("put: %d ops, %v", len(ops), err)
	}
	return ops[0]
}

func liveDots(r *Replica) []Dot {
	var dots []Dot
	for c := range r.Cells().(*MapCells).All() {
		dots = append(dots, c.Dot)
	}
	return dots
}

// state is all that a replica holds, as text.
func state(r *Replica) string {
	var b strings.Builder
	for c := range r.Cells().(*MapCells).All() {
		fmt.Fprintf(&b, "%v=%s@%q ", c.Dot, c.Value, c.Key)
	}
	fmt.Fprintf(&b, "D %v C", r.Pending())
	for _, inc := range r.Clock().Incs() {
		fmt.Fprintf(&b, " %v:%+v", inc, r.Clock().Entry(inc))
	}
	return b.String()
}

func TestPutLimits(t *testing.T) {
	long := strings.Repeat("k", MaxKeyBytes+1)
	tests := []struct {
		name string
		w    Write
		want error
	}{
		{"no key", Write{}, ErrKeySize},
		{"long key", Write{Key: long}, ErrKeySize},
		{"long path", Write{Key: "k", Path: long}, ErrPathSize},
		{"large value", Write{Key: "k", Value: make([]byte, MaxValueBytes+1)}, ErrValueSize},
		{"largest", Write{Key: long[1:], Path: long[1:], Value: make([]byte, MaxValueBytes)}, nil},
	}
	for _, tt := range tests {
		r := newReplica(1)
		ops, err := r.Put(tt.w)
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: %v want %v", tt.name, err, tt.want)
		}
		if err != nil && (ops != nil || r.Seq() != 0 || !r.Changes().Empty()) {
			t.Errorf("%s: refused, and something changed", tt.name)
		}
	}
}

// The rule Apply, case by case, at a replica that knows 2/1, with its cell, and
// has 2/2 pending.
func TestApplyRule(t *testing.T) {
	cell := func(d Dot) *Cell { return &Cell{Key: "k", Kind: KindRegister, Dot: d} }
	op := func(d Dot, covers, removes Dots) *Op {
		return &Op{Dot: d, Key: "k", Covers: covers, Removes: removes, Cell: cell(d)}
	}
	tests := []struct {
		name    string
		op      *Op
		fresh   bool
		live    []Dot
		pending Dots
		known   uint64 // of 2, contiguous
	}{
		{"known", op(Dot{2, 1}, nil, nil), false, []Dot{{2, 1}}, Dots{{2, 2, 2}}, 1},
		{"known, and covers nothing new", op(Dot{2, 1}, Dots{{2, 1, 1}}, nil), false, []Dot{{2, 1}}, Dots{{2, 2, 2}}, 1},
		{"known, and covers a pending dot", op(Dot{2, 1}, Dots{{2, 2, 2}}, nil), true, []Dot{{2, 1}}, nil, 2},
		{"new", op(Dot{2, 3}, nil, nil), true, []Dot{{2, 1}, {2, 3}}, Dots{{2, 2, 2}}, 1},
		{"new, removes a known dot", op(Dot{2, 3}, nil, Dots{{2, 1, 1}}), true, []Dot{{2, 3}}, Dots{{2, 2, 2}}, 1},
		{"new, removes an unknown dot", op(Dot{2, 3}, nil, Dots{{3, 7, 7}}), true, []Dot{{2, 1}, {2, 3}}, Dots{{2, 2, 2}, {3, 7, 7}}, 1},
		{"new, removes and covers an unknown dot", op(Dot{2, 3}, Dots{{3, 7, 7}}, Dots{{3, 7, 7}}), true, []Dot{{2, 1}, {2, 3}}, Dots{{2, 2, 2}}, 1},
		{"new, covers a live dot", op(Dot{2, 3}, Dots{{2, 1, 1}}, nil), true, []Dot{{2, 3}}, Dots{{2, 2, 2}}, 1},
		{"new, covers its own dot", op(Dot{2, 3}, Dots{{2, 2, 3}}, nil), true, []Dot{{2, 1}, {2, 3}}, nil, 3},
		{"born dead", op(Dot{2, 2}, nil, Dots{{2, 1, 1}}), true, nil, nil, 2},
		{"bare removal", &Op{Dot: Dot{2, 3}, Removes: Dots{{2, 1, 1}}}, true, nil, Dots{{2, 2, 2}}, 1},
		{"bare removal that was removed", &Op{Dot: Dot{2, 2}, Removes: Dots{{2, 1, 1}}}, true, nil, nil, 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cells, clock := NewMapCells(), NewClock()
			cells.Add(cell(Dot{2, 1}))
			clock.Add(Span{2, 1, 1})
			r := NewReplica(State{Inc: 9, Cells: cells, Clock: clock, Pending: Dots{{2, 2, 2}}})
			if got := r.Apply(tt.op); got != tt.fresh {
				t.Errorf("fresh: %v", got)
			}
			if got := liveDots(r); !slices.Equal(got, tt.live) {
				t.Errorf("live: %v want %v", got, tt.live)
			}
			if got := r.Pending(); !slices.Equal(got, tt.pending) || r.PendingLen() != tt.pending.Len() {
				t.Errorf("pending: %v want %v", got, tt.pending)
			}
			if got := r.Clock().Entry(2).Prefix; got != tt.known {
				t.Errorf("known: %d want %d", got, tt.known)
			}
			if r.Clock().Contains(tt.op.Dot) != true {
				t.Error("own dot unknown")
			}
			before := state(r)
			if r.Apply(tt.op) || state(r) != before {
				t.Errorf("applied again: %s, was %s", state(r), before)
			}
		})
	}
}

// A delete that arrives before its create leaves nothing, and a new create
// lives at once (F1). Nothing is kept of the dead.
func TestDeleteBeforeCreate(t *testing.T) {
	a, b, c := newReplica(1), newReplica(2), newReplica(3)
	create := put(t, a, "k", "old")
	b.Apply(create)
	remove := b.Delete("k", 0)[0]
	again := put(t, b, "k", "new")
	c.Apply(remove)
	if !c.IsPending(create.Dot) || c.Cells().Len() != 0 {
		t.Fatal(state(c))
	}
	c.Apply(again)
	c.Apply(create)
	if got := liveDots(c); !slices.Equal(got, []Dot{again.Dot}) || c.PendingLen() != 0 {
		t.Fatal(state(c))
	}
	if ops := c.Delete("nothing", 0); ops != nil || c.Seq() != 0 {
		t.Fatalf("deleting nothing: %v", ops)
	}
}

// More cells than one op may remove take several ops.
func TestManyRemoves(t *testing.T) {
	const n = MaxRemoves + 10
	fill := func() *Replica {
		r := newReplica(1)
		for seq := range uint64(n) {
			d := Dot{2, 2*seq + 1}
			r.Apply(&Op{Dot: d, Key: "k", Cell: &Cell{Key: "k", Kind: KindRegister, Dot: d}})
		}
		return r
	}
	r := fill()
	dots := liveDots(r)
	ops, err := r.Put(Write{Key: "k", Kind: KindRegister})
	if err != nil || len(ops) != 2 || r.Cells().Len() != 1 || ops[1].Cell == nil {
		t.Fatalf("put: %d ops, %d cells, %v", len(ops), r.Cells().Len(), err)
	}
	other := fill()
	for _, op := range ops {
		if op.Removes.Len() > MaxRemoves {
			t.Errorf("one op removes %d", op.Removes.Len())
		}
		other.Apply(op)
	}
	if state(other) != state(r) {
		t.Error("applied elsewhere, the ops have another effect")
	}
	if r := fill(); len(r.Delete("k", 0)) != 2 || r.Cells().Len() != 0 {
		t.Errorf("delete: %d cells left", r.Cells().Len())
	}
	if r := fill(); len(r.Remove(append(dots, Dot{7, 7}, dots[0]), 0)) != 2 || r.Cells().Len() != 0 || r.PendingLen() != 0 {
		t.Errorf("remove: %d cells left", r.Cells().Len())
	}
}

func none(func(Dot) bool) {}

// A session's offer lives at once and is known only at the end.
func TestProvideAndConclude(t *testing.T) {
	a, b := newReplica(1), newReplica(2)
	live, dead := put(t, a, "live", "x"), put(t, a, "dead", "x")
	b.Apply(dead)
	a.Delete("dead", 0)
	known := Known{Clock: a.Clock().Clone(), Pending: Dots{{9, 4, 4}}}

	if !b.Provide(live.Cell) || b.Provide(live.Cell) {
		t.Error("an offer is taken once")
	}
	if b.Clock().Contains(live.Dot) || b.Cells().ByDot(live.Dot) == nil {
		t.Error("an offered cell is provisional")
	}
	b.Conclude(known, slices.Values([]Dot{dead.Dot, {5, 5}}))
	if got := liveDots(b); !slices.Equal(got, []Dot{live.Dot}) {
		t.Errorf("live: %v", got)
	}
	if !b.Clock().Equal(a.Clock()) || !b.IsPending(Dot{9, 4}) {
		t.Error(state(b))
	}
	if b.Provide(dead.Cell) || b.Provide(&Cell{Key: "k", Dot: Dot{9, 4}}) {
		t.Error("a dead cell was taken")
	}
	// What was pending dies with the end of a session that knows it.
	known.Clock.Add(Span{9, 1, 4})
	b.Conclude(known, none)
	if b.PendingLen() != 0 {
		t.Error(state(b))
	}
	// A cell that the peer never knew stays, though it lacks it.
	mine := put(t, b, "mine", "x")
	b.Conclude(known, slices.Values([]Dot{mine.Dot}))
	if b.Cells().ByDot(mine.Dot) == nil {
		t.Error("a cell unknown to the peer was dropped")
	}
}

func TestRenewAndClose(t *testing.T) {
	r := newReplica(1)
	put(t, r, "k", "x")
	r.Renew(5)
	if op := put(t, r, "k", "y"); op.Dot != (Dot{5, 1}) || r.Inc() != 5 || r.Seq() != 1 {
		t.Errorf("dot %v", op.Dot)
	}
	r.Changes().Reset()
	if !r.Close(1) || r.Close(1) || !r.Clock().Entry(1).Closed || !slices.Equal(r.Changes().Clock, []Inc{1}) {
		t.Errorf("%+v %+v", r.Clock().Entry(1), r.Changes())
	}
}

// history makes ops at two writers that see each other's now and then.
func history(steps iter.Seq[int]) []*Op {
	writers := [2]*Replica{newReplica(1), newReplica(2)}
	var ops []*Op
	for step := range steps {
		w := writers[step%2]
		switch step / 2 {
		case 0:
			new, _ := w.Put(Write{Key: "k", Kind: KindRegister})
			ops = append(ops, new...)
		case 1:
			ops = append(ops, w.Delete("k", 0)...)
		case 2:
			for _, op := range ops {
				w.Apply(op)
			}
		default:
			new, _ := w.Put(Write{Key: "k", Path: "p", Kind: KindMap})
			ops = append(ops, new...)
		}
	}
	return ops
}

// All delivery orders of all short histories end in the same state (F10).
func TestAllOrders(t *testing.T) {
	const length, choices = 4, 8
	histories := map[string]bool{}
	var steps [length]int
	for n := range 1 << (3 * length) {
		for i := range steps {
			steps[i] = n >> (3 * i) % choices
		}
		ops := history(slices.Values(steps[:]))
		text := fmt.Sprint(len(ops))
		for _, op := range ops {
			text += fmt.Sprint(op.Dot, op.Removes, op.Cell != nil, ";")
		}
		if histories[text] {
			continue
		}
		histories[text] = true
		want := ""
		permute(ops, 0, func() {
			r := newReplica(9)
			for _, op := range ops {
				r.Apply(op)
			}
			if want == "" {
				want = state(r)
			} else if got := state(r); got != want {
				t.Fatalf("%v: %s and %s", steps, got, want)
			}
		})
	}
	if len(histories) < 100 {
		t.Errorf("only %d histories", len(histories))
	}
	t.Logf("%d different histories", len(histories))
}

func permute(ops []*Op, k int, f func()) {
	if k == len(ops) {
		f()
		return
	}
	for i := k; i < len(ops); i++ {
		ops[k], ops[i] = ops[i], ops[k]
		permute(ops, k+1, f)
		ops[k], ops[i] = ops[i], ops[k]
	}
}

// Where two ops coalesce, the result has the effect of both, anywhere and in
// any order among others.
func TestCoalesceIsBoth(t *testing.T) {
	merged := 0
	rapid.Check(t, func(t *rapid.T) {
		ops := history(slices.Values(rapid.SliceOfN(rapid.IntRange(0, 7), 2, 12).Draw(t, "history")))
		if len(ops) < 2 {
			return
		}
		i := rapid.IntRange(0, len(ops)-2).Draw(t, "older")
		j := rapid.IntRange(i+1, len(ops)-1).Draw(t, "newer")
		both := Coalesce(ops[i], ops[j])
		if both == nil {
			return
		}
		merged++
		older, newer := opText(ops[i]), opText(ops[j])
		rest := slices.Delete(slices.Clone(ops), j, j+1)
		rest[i] = both
		rest = rapid.Permutation(rest).Draw(t, "order")
		rest = rest[:rapid.IntRange(0, len(rest)).Draw(t, "arrived")]
		a, b := newReplica(9), newReplica(9)
		for _, op := range rest {
			a.Apply(op)
			if op == both {
				b.Apply(ops[i])
				b.Apply(ops[j])
			} else {
				b.Apply(op)
			}
		}
		if state(a) != state(b) {
			t.Fatalf("coalesced: %s\napart:     %s", state(a), state(b))
		}
		if opText(ops[i]) != older || opText(ops[j]) != newer {
			t.Fatal("an operand changed")
		}
	})
	if merged == 0 {
		t.Error("nothing was ever coalesced")
	}
}

func opText(op *Op) string { return fmt.Sprintf("%+v", *op) }

// A chain of overwrites becomes one op, until it would remove too much.
func TestCoalesceChain(t *testing.T) {
	r := newReplica(1)
	last := put(t, r, "k", "0")
	for i := range MaxRemoves {
		next := put(t, r, "k", "x")
		if last = Coalesce(last, next); last == nil {
			t.Fatalf("overwrite %d does not coalesce", i)
		}
	}
	if len(last.Covers) != 1 || len(last.Removes) != 1 || last.Removes.Len() != MaxRemoves {
		t.Errorf("%d spans covered, %d removed", len(last.Covers), len(last.Removes))
	}
	if Coalesce(last, put(t, r, "k", "x")) != nil {
		t.Error("an op removes more than it may")
	}
	if Coalesce(put(t, r, "a", ""), put(t, r, "b", "")) != nil {
		t.Error("ops on two keys coalesce")
	}
}

// Neither what an op removes nor what it covers grows without bound.
func TestCoalesceLimits(t *testing.T) {
	older, newer := Dot{1, 1}, Dot{2, 1}
	tests := []struct {
		name            string
		covers, removes uint64 // of the older
		want            bool
	}{
		{"just", MaxCovers - 1, MaxRemoves - 1, true},
		{"covers too much", MaxCovers, 0, false},
		{"removes too much", 0, MaxRemoves, false},
	}
	for _, tt := range tests {
		a := &Op{Dot: older, Key: "k", Covers: Dots{{3, 1, tt.covers}}, Removes: Dots{{3, 1, tt.removes}}}
		if tt.covers == 0 {
			a.Covers = nil
		}
		if tt.removes == 0 {
			a.Removes = nil
		}
		b := &Op{Dot: newer, Key: "k", Removes: DotsOf(older)}
		if got := Coalesce(a, b) != nil; got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}

func TestMapCellsAgainstMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m, model := NewMapCells(), map[Dot]*Cell{}
		next := uint64(0)
		fresh := func(key string) *Cell {
			next++
			return &Cell{Key: key, Dot: Dot{1, next}}
		}
		for range rapid.IntRange(1, 20).Draw(t, "steps") {
			key := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "key")
			before := m.ByKey(key)
			copied := slices.Clone(before)
			if old := before; len(old) > 0 && rapid.Bool().Draw(t, "remove") {
				c := old[rapid.IntRange(0, len(old)-1).Draw(t, "which")]
				delete(model, c.Dot)
				if rapid.Bool().Draw(t, "replace") {
					by := fresh(key)
					model[by.Dot] = by
					m.Replace(c, by)
				} else {
					m.Remove(c)
				}
			} else {
				c := fresh(key)
				model[c.Dot] = c
				m.Add(c)
			}
			if !slices.Equal(before, copied) {
				t.Fatal("a slice that was handed out changed")
			}
			dots := slices.SortedFunc(maps.Keys(model), Dot.Compare)
			var all []Dot
			for c := range m.All() {
				all = append(all, c.Dot)
				if model[c.Dot] != c || m.ByDot(c.Dot) != c || !slices.Contains(m.ByKey(c.Key), c) {
					t.Fatalf("%v is not found", c.Dot)
				}
			}
			if !slices.Equal(all, dots) || m.Len() != len(dots) || len(m.ByKey("a"))+len(m.ByKey("b")) != len(dots) {
				t.Fatalf("got %v want %v", all, dots)
			}
		}
	})
}

// A put cell is a copy, whatever its size, and shares nothing with the caller.
func TestPutCopies(t *testing.T) {
	for n := range 300 {
		r := NewReplica(State{Inc: 1, Cells: NewMapCells(), Clock: NewClock()})
		key, path, value := []byte(strings.Repeat("k", 1+n/3)), []byte(strings.Repeat("p", n/5)), bytes.Repeat([]byte("v"), n)
		w := Write{Key: unsafe.String(&key[0], len(key)), Path: string(path), Kind: KindMap, Value: value, Expires: 7, HLC: 9, Flags: FlagEphemeral}
		want := Cell{Key: string(key), Path: string(path), Kind: KindMap, Value: bytes.Clone(value), Expires: 7, HLC: 9, Flags: FlagEphemeral, Dot: Dot{1, 1}}
		ops, err := r.Put(w)
		if err != nil {
			t.Fatal(err)
		}
		for i := range key {
			key[i] = 'x'
		}
		for i := range value {
			value[i] = 'x'
		}
		got := *ops[0].Cell
		if got.Key != want.Key || ops[0].Key != want.Key || got.Path != want.Path || !bytes.Equal(got.Value, want.Value) {
			t.Fatalf("%d bytes: got %+v, want %+v", n, got, want)
		}
		got.Value, want.Value = nil, nil
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("%d bytes: got %+v, want %+v", n, got, want)
		}
		if cap(ops[0].Cell.Value) != len(ops[0].Cell.Value) {
			t.Fatalf("%d bytes: an append to the value would write behind it", n)
		}
	}
}
