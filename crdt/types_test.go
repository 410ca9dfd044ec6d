package crdt

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// seesAll is for replicas whose cells do not expire.
func seesAll(*Cell) bool { return true }

// A typist is replicas whose ops arrive in any order, twice, or not before a session.
type typist struct {
	t        *rapid.T
	replicas []*Replica
	ops      []*Op
	got      []map[*Op]bool // by replica
	nextInc  Inc
	hlc      HLC
}

func newTypist(t *rapid.T, n int) *typist {
	w := &typist{t: t}
	for range n {
		w.replicas = append(w.replicas, nil)
		w.got = append(w.got, map[*Op]bool{})
		w.start(len(w.replicas)-1, State{Cells: NewMapCells(), Clock: NewClock()})
	}
	return w
}

// start begins a new life of replica i with what is in s.
func (w *typist) start(i int, s State) {
	w.nextInc++
	s.Inc, s.Seq = w.nextInc, 0
	w.replicas[i] = NewReplica(s)
}

// state is a copy of what replica i has on disk.
func (w *typist) state(i int) State {
	r := w.replicas[i]
	cells := NewMapCells()
	for c := range r.cells.(*MapCells).All() {
		cells.Add(c)
	}
	return State{Cells: cells, Clock: r.clock.Clone(), Pending: r.Pending()}
}

// change makes one change at replica i.
func (w *typist) change(i int, edit func(d *Draft) error) error {
	w.hlc += HLC(rapid.IntRange(0, 1).Draw(w.t, "tick"))
	d := w.replicas[i].Draft(w.hlc, seesAll)
	if err := edit(d); err != nil {
		return err
	}
	for _, op := range w.replicas[i].Commit(d) {
		w.ops = append(w.ops, op)
		w.got[i][op] = true
	}
	return nil
}

// deliver brings some ops to some replicas, through the codec.
func (w *typist) deliver() {
	for range rapid.IntRange(1, 8).Draw(w.t, "deliveries") {
		if len(w.ops) == 0 {
			return
		}
		op := w.ops[rapid.IntRange(0, len(w.ops)-1).Draw(w.t, "op")]
		w.take(rapid.IntRange(0, len(w.replicas)-1).Draw(w.t, "to"), op)
	}
}

func (w *typist) take(i int, op *Op) {
	w.replicas[i].Apply(recoded(w.t, op))
	w.got[i][op] = true
}

// recoded is op as it comes out of the wire.
func recoded(t interface{ Fatalf(string, ...any) }, op *Op) *Op {
	e, d := NewEncoder(), NewDecoder()
	e.Reset(nil)
	decode := d.Op
	if len(op.More) > 0 {
		e.Batch(op)
		decode = d.Batch
	} else {
		e.Op(op)
	}
	d.Reset(e.Bytes())
	out, err := decode()
	if err != nil {
		t.Fatalf("decode %+v: %v", op, err)
	}
	return out
}

// session makes two replicas equal.
func (w *typist) session(i, j int) {
	a, b := w.replicas[i], w.replicas[j]
	stateA, stateB := w.state(i), w.state(j)
	conclude := func(r *Replica, peer State) {
		for c := range peer.Cells.(*MapCells).All() {
			r.Provide(c)
		}
		var lacks []Dot
		for c := range r.cells.(*MapCells).All() {
			if peer.Cells.ByDot(c.Dot) == nil {
				lacks = append(lacks, c.Dot)
			}
		}
		r.Conclude(Known{Clock: peer.Clock, Pending: peer.Pending}, slices.Values(lacks))
	}
	conclude(a, stateB)
	conclude(b, stateA)
}

// settle brings everything everywhere and checks that all replicas have equal cells.
func (w *typist) settle() {
	for i := range w.replicas {
		for _, op := range w.ops {
			w.take(i, op)
		}
	}
	first := slices.Collect(w.replicas[0].cells.(*MapCells).All())
	for i, r := range w.replicas {
		cells := slices.Collect(r.cells.(*MapCells).All())
		if len(cells) != len(first) {
			w.t.Fatalf("replica %d has %d cells, the first one %d", i, len(cells), len(first))
		}
		for n, c := range cells {
			if c.Dot != first[n].Dot {
				w.t.Fatalf("replica %d has %v, the first one %v", i, c.Dot, first[n].Dot)
			}
		}
		if r.PendingLen() > 0 {
			w.t.Fatalf("replica %d waits for %v", i, r.Pending())
		}
	}
}

// restart begins a new life from what is there, from an older state, or from nothing.
func (w *typist) restart(i int, old []State) {
	s := w.state(i)
	if len(old) > 0 && rapid.Bool().Draw(w.t, "restored") {
		s = old[rapid.IntRange(0, len(old)-1).Draw(w.t, "backup")]
		cells := NewMapCells()
		for c := range s.Cells.(*MapCells).All() {
			cells.Add(c)
		}
		s = State{Cells: cells, Clock: s.Clock.Clone(), Pending: s.Pending}
	}
	w.start(i, s)
}

// A counter is the sum of all that was added, but for what a reset has seen: whatever order the ops come in, however often
// replicas start anew, from old directories, too.
func TestCounterIsTheSumOfWhatNoResetHasSeen(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newTypist(t, 3)
		type add struct {
			cell  Dot // of the total that holds it first
			delta int64
			reset bool
		}
		var adds []*add
		// contained is the adds that are in the total of c: those of its actor and chain up to it.
		contained := func(c *Cell) (out []*add) {
			chain, _ := chainOf(c.Path)
			for _, a := range adds {
				if a.cell.Inc == c.Dot.Inc && a.cell.Seq <= c.Dot.Seq && a.cell.Seq >= chain.Seq {
					out = append(out, a)
				}
			}
			return out
		}
		var backups []State
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			i := rapid.IntRange(0, 2).Draw(t, "replica")
			switch rapid.SampledFrom([]string{"add", "add", "add", "reset", "deliver", "deliver", "session", "restart", "backup", "twice"}).Draw(t, "what") {
			case "add", "twice":
				for range 2 {
					delta := rapid.Int64Range(-1<<40, 1<<40).Draw(t, "delta")
					if err := w.change(i, func(d *Draft) error { return d.CounterAdd("k", delta) }); err != nil {
						t.Fatal(err)
					}
					adds = append(adds, &add{cell: w.ops[len(w.ops)-1].Dot, delta: delta})
				}
			case "reset":
				newest := map[Inc]*Cell{}
				for c := range w.replicas[i].cells.Ascend("k", "") {
					if c.Path != baselinePath && (newest[c.Dot.Inc] == nil || c.Dot.Seq > newest[c.Dot.Inc].Dot.Seq) {
						newest[c.Dot.Inc] = c
					}
				}
				if err := w.change(i, func(d *Draft) error { return d.CounterReset("k") }); err != nil {
					t.Fatal(err)
				}
				for _, c := range newest {
					for _, a := range contained(c) {
						a.reset = true
					}
				}
			case "deliver":
				w.deliver()
			case "session":
				w.session(i, (i+1)%3)
			case "backup":
				backups = append(backups, w.state(i))
			case "restart":
				w.restart(i, backups)
			}
		}
		w.settle()
		want := int64(0)
		for _, a := range adds {
			if !a.reset {
				want += a.delta
			}
		}
		for i, r := range w.replicas {
			if got, err := CounterValue(r.cells.Ascend("k", "")); err != nil || got != want {
				t.Fatalf("replica %d counts %d, %v; want %d", i, got, err, want)
			}
		}
	})
}

// A bounded counter never shows less than its bound, at any moment, and in the end exactly what was added and taken.
func TestBoundedCounterKeepsItsBound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newTypist(t, 3)
		bound := rapid.Int64Range(-5, 5).Draw(t, "bound")
		want := bound + 20
		if err := w.change(0, func(d *Draft) error { return d.BoundedCreate("k", bound, want) }); err != nil {
			t.Fatal(err)
		}
		w.take(1, w.ops[0])
		w.take(2, w.ops[0])
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			i := rapid.IntRange(0, 2).Draw(t, "replica")
			switch rapid.SampledFrom([]string{"add", "take", "take", "transfer", "deliver", "deliver", "session", "restart"}).Draw(t, "what") {
			case "add", "take":
				delta := rapid.Int64Range(-12, 6).Draw(t, "delta")
				before, _, err := BoundedValue(w.replicas[i].cells.Ascend("k", ""))
				if err != nil {
					t.Fatal(err)
				}
				err = w.change(i, func(d *Draft) error { return d.BoundedAdd("k", delta) })
				have := before.Rights[w.replicas[i].inc]
				if refused := delta < 0 && uint64(-delta) > have; refused != (err != nil) {
					t.Fatalf("%d with %d rights: %v", delta, have, err)
				}
				if err == nil {
					want += delta
				}
			case "transfer":
				to := w.replicas[(i+1)%3].inc
				_ = w.change(i, func(d *Draft) error { return d.BoundedTransfer("k", to, uint64(rapid.IntRange(1, 9).Draw(t, "n"))) })
			case "deliver":
				w.deliver()
			case "session":
				w.session(i, (i+1)%3)
			case "restart":
				w.start(i, w.state(i))
			}
			for i, r := range w.replicas {
				if b, ok, err := BoundedValue(r.cells.Ascend("k", "")); err != nil || !ok || b.Value < bound {
					t.Fatalf("replica %d shows %+v, %v, %v with the bound %d", i, b, ok, err, bound)
				}
			}
		}
		w.settle()
		sum := uint64(0)
		b, _, err := BoundedValue(w.replicas[1].cells.Ascend("k", ""))
		for _, n := range b.Rights {
			sum += n
		}
		if err != nil || b.Value != want || sum != uint64(want-bound) {
			t.Fatalf("in the end %+v, %v; want the value %d and %d rights", b, err, want, want-bound)
		}
	})
}

// Sets, maps, flags and registers in batches: replicas with the same ops show the same, which is what a model of adds and
// observed removals says.
func TestBatchesOfAllTypes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newTypist(t, 3)
		// By place (key and path): the dots that were put there, and those of them that a removal has seen.
		put, gone := map[string][]Dot{}, map[Dot]bool{}
		held := func(i int, key, path string) (dots []Dot) {
			for _, c := range w.replicas[i].cells.ByPath(key, path) {
				dots = append(dots, c.Dot)
			}
			return dots
		}
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			i := rapid.IntRange(0, 2).Draw(t, "replica")
			switch rapid.SampledFrom([]string{"batch", "batch", "batch", "deliver", "deliver", "session", "restart"}).Draw(t, "what") {
			case "batch":
				type edit struct {
					key, path string
					add       bool
				}
				var edits []edit
				for range rapid.IntRange(1, 5).Draw(t, "edits") {
					e := edit{add: rapid.IntRange(0, 2).Draw(t, "add") > 0}
					if rapid.Bool().Draw(t, "set") {
						e.key, e.path = rapid.SampledFrom([]string{"s1", "s2"}).Draw(t, "key"), rapid.SampledFrom([]string{"x", "y", "z"}).Draw(t, "element")
					} else {
						e.key, e.path = "m", rapid.SampledFrom([]string{"x", "y"}).Draw(t, "field")
					}
					edits = append(edits, e)
				}
				seen := map[edit][]Dot{}
				for _, e := range edits {
					path := e.path
					if e.key == "m" {
						path, _ = FieldPath(e.path)
					}
					seen[edit{key: e.key, path: e.path}] = held(i, e.key, path)
				}
				before := len(w.ops)
				err := w.change(i, func(d *Draft) error {
					for _, e := range edits {
						var err error
						switch {
						case e.key == "m" && e.add:
							err = d.MapPut(e.key, []string{e.path}, []byte("v"), Lifetime{})
						case e.key == "m":
							_, err = d.MapRemove(e.key, []string{e.path})
						case e.add:
							err = d.SetAdd(e.key, e.path, Lifetime{})
						default:
							_, err = d.SetRemove(e.key, e.path)
						}
						if err != nil {
							return err
						}
					}
					return nil
				})
				if err != nil {
					t.Fatal(err)
				}
				if n := len(w.ops) - before; n > 1 {
					t.Fatalf("a batch became %d ops", n)
				}
				for _, dots := range seen {
					for _, d := range dots {
						gone[d] = true
					}
				}
				if len(w.ops) > before {
					op := w.ops[before]
					for _, c := range append(slices.Clone(op.More), op.Cell) {
						if c != nil {
							put[c.Key+"/"+c.Path] = append(put[c.Key+"/"+c.Path], c.Dot)
						}
					}
				}
				// The last edit of each place says whether it is there now.
				last := map[string]edit{}
				for _, e := range edits {
					last[e.key+"/"+e.path] = e
				}
				for _, e := range last {
					path := e.path
					if e.key == "m" {
						path, _ = FieldPath(e.path)
					}
					if n := len(held(i, e.key, path)); (n == 1) != e.add || n > 1 {
						t.Fatalf("%d cells at %s of %s after %v", n, e.path, e.key, edits)
					}
				}
			case "deliver":
				w.deliver()
			case "session":
				w.session(i, (i+1)%3)
			case "restart":
				w.start(i, w.state(i))
			}
		}
		w.settle()
		for place, dots := range put {
			for _, d := range dots {
				if live := w.replicas[1].cells.ByDot(d) != nil; live == gone[d] {
					t.Fatalf("%v at %q: live %v, removed %v", d, place, live, gone[d])
				}
			}
		}
	})
}

// A batch reaches a replica whole, though some of its dots came by a session before, or were removed by a later op.
func TestBatchMeetsWhatIsKnown(t *testing.T) {
	a := NewReplica(State{Inc: 1, Cells: NewMapCells(), Clock: NewClock()})
	d := a.Draft(1, seesAll)
	for _, e := range []string{"x", "y", "z"} {
		if err := d.SetAdd("s", e, Lifetime{}); err != nil {
			t.Fatal(err)
		}
	}
	batch := a.Commit(d)[0]
	d = a.Draft(2, seesAll)
	if _, err := d.SetRemove("s", "y"); err != nil {
		t.Fatal(err)
	}
	removal := a.Commit(d)[0]
	shows := func(r *Replica) (out []string) {
		for c := range Elements(r.cells.Ascend("s", "")) {
			out = append(out, c.Path)
		}
		return out
	}
	for name, before := range map[string]func(r *Replica){
		"nothing":            func(*Replica) {},
		"the removal":        func(r *Replica) { r.Apply(removal) },
		"a provisional cell": func(r *Replica) { r.Provide(batch.More[0]) },
		"a part": func(r *Replica) { // as an op of its own, which covers one of the dots
			r.Apply(&Op{Dot: batch.More[0].Dot, Key: "s", Cell: batch.More[0], HLC: 1})
		},
		"a part that is gone": func(r *Replica) {
			r.Apply(&Op{Dot: batch.More[1].Dot, Key: "s", Cell: batch.More[1], HLC: 1})
			r.Apply(removal)
		},
		"itself": func(r *Replica) { r.Apply(batch) },
	} {
		b := NewReplica(State{Inc: 2, Cells: NewMapCells(), Clock: NewClock()})
		before(b)
		b.Apply(recoded(t, batch))
		b.Apply(removal)
		if got := shows(b); !slices.Equal(got, []string{"x", "z"}) || b.PendingLen() > 0 || !b.clock.Equal(a.clock) {
			t.Errorf("after %s: shows %q, waits for %v", name, got, b.Pending())
		}
	}
}

// A batch is whole or nothing, and within the bounds of an op.
func TestDraftBounds(t *testing.T) {
	r := NewReplica(State{Inc: 1, Cells: NewMapCells(), Clock: NewClock()})
	d := r.Draft(1, seesAll)
	for i := range MaxBatchCells {
		if err := d.SetAdd("s", fmt.Sprint(i), Lifetime{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.SetAdd("s", "one more", Lifetime{}); err == nil {
		t.Error("a batch with too many cells is taken")
	}
	if r.cells.Len() != 0 || r.Seq() != 0 {
		t.Errorf("a draft that was given up left %d cells", r.cells.Len())
	}
	d = r.Draft(1, seesAll)
	if err := d.Put("a", make([]byte, MaxBatchBytes), Lifetime{}); err != nil {
		t.Errorf("one large value: %v", err)
	}
	if err := d.Put("b", []byte("x"), Lifetime{}); err == nil {
		t.Error("a batch with too many bytes is taken")
	}
}

// Of a place that concurrent puts made both a value and a map, what is newest is shown.
func TestFieldsShown(t *testing.T) {
	path := func(fields ...string) string {
		p, err := FieldPath(fields...)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	for _, tt := range []struct {
		cells map[string]HLC
		want  []string
	}{
		{map[string]HLC{path("a"): 1, path("ab"): 1, path("b", "c"): 1}, []string{path("a"), path("b", "c"), path("ab")}},
		{map[string]HLC{path("a"): 2, path("a", "b"): 1, path("c"): 1}, []string{path("a"), path("c")}},
		{map[string]HLC{path("a"): 1, path("a", "b"): 2, path("a", "c"): 1}, []string{path("a", "b"), path("a", "c")}},
		{map[string]HLC{path("a"): 1, path("a", "b"): 3, path("a", "b", "c"): 2, path("a", "d", "e"): 1}, []string{path("a", "b"), path("a", "d", "e")}},
		{map[string]HLC{path("a"): 3, path("a", "b"): 1, path("a", "b", "c"): 2}, []string{path("a")}},
	} {
		var cells []*Cell
		for i, p := range slices.Sorted(maps.Keys(tt.cells)) {
			cells = append(cells, &Cell{Path: p, HLC: tt.cells[p], Kind: KindMap, Dot: Dot{1, uint64(i + 1)}})
		}
		var got []string
		for c := range Fields(slices.Values(cells)) {
			got = append(got, c.Path)
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%q: shows %q, want %q", tt.cells, got, tt.want)
		}
	}
	if got := FieldsOf(path("a", "bc")); !slices.Equal(got, []string{"a", "bc"}) {
		t.Errorf("FieldsOf: %q", got)
	}
	for _, bad := range []string{"\x00", "\x02a", "a"} {
		if got := FieldsOf(bad); got != nil {
			t.Errorf("FieldsOf(%q): %q", bad, got)
		}
	}
}

// What comes off the wire as a batch and is none is refused, and costs no more memory than it has bytes.
func FuzzBatch(f *testing.F) {
	r := NewReplica(State{Inc: 1, Cells: NewMapCells(), Clock: NewClock()})
	d := r.Draft(1, seesAll)
	rng := rand.New(rand.NewPCG(1, 1))
	for range 5 {
		if err := d.SetAdd("s", fmt.Sprint(rng.Uint64()), Lifetime{}); err != nil {
			f.Fatal(err)
		}
	}
	e := NewEncoder()
	e.Reset(nil)
	e.Batch(r.Commit(d)[0])
	f.Add(slices.Clone(e.Bytes()))
	f.Fuzz(func(t *testing.T, b []byte) {
		d := NewDecoder()
		d.Reset(b)
		op, err := d.Batch()
		if err != nil {
			return
		}
		other := NewReplica(State{Inc: 2, Cells: NewMapCells(), Clock: NewClock()})
		other.Apply(op)
		if other.Apply(op) {
			t.Error("a batch is new twice")
		}
	})
}
