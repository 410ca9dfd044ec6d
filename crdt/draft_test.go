package crdt

import (
	"errors"
	"fmt"
	"iter"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
)

// change makes one batch at r, which must be one op.
func change(t testing.TB, r *Replica, at HLC, edit func(*Draft) error) *Op {
	t.Helper()
	d := r.Draft(at, seesAll)
	if err := edit(d); err != nil {
		t.Fatal(err)
	}
	ops := r.Commit(d)
	if len(ops) != 1 {
		t.Fatalf("%d ops", len(ops))
	}
	return ops[0]
}

// attempt is the error of one change, which is given up.
func attempt(r *Replica, edit func(*Draft) error) error {
	return edit(r.Draft(1<<40, seesAll))
}

// cellsOf is the live cells of key ascending by ComparePaths.
func cellsOf(r *Replica, key string) iter.Seq[*Cell] { return r.Cells().Ascend(key, "") }

func elementsOf(r *Replica, key string) (out []string) {
	for c := range Elements(cellsOf(r, key)) {
		out = append(out, c.Path)
	}
	return out
}

func fieldsOf(r *Replica, key string) (out []string) {
	for c := range Fields(cellsOf(r, key)) {
		out = append(out, strings.Join(FieldsOf(c.Path), ".")+"="+string(c.Value))
	}
	return out
}

func TestTypesDoNotMix(t *testing.T) {
	edits := map[Kind]func(*Draft) error{
		KindRegister:    func(d *Draft) error { return d.Put("k", nil, Lifetime{}) },
		KindSet:         func(d *Draft) error { return d.SetAdd("k", "e", Lifetime{}) },
		KindMap:         func(d *Draft) error { return d.MapPut("k", []string{"f"}, nil, Lifetime{}) },
		KindCounter:     func(d *Draft) error { return d.CounterAdd("k", 1) },
		KindFlag:        func(d *Draft) error { return d.FlagSet("k", KindFlag, true) },
		KindInverseFlag: func(d *Draft) error { return d.FlagSet("k", KindInverseFlag, true) },
		KindLog:         func(d *Draft) error { return d.LogAppend("k", nil) },
		KindBounded:     func(d *Draft) error { return d.BoundedCreate("k", 0, 1) },
	}
	for is, first := range edits {
		r := newReplica(1)
		change(t, r, 1, first)
		before := state(r)
		for other, edit := range edits {
			if err := attempt(r, edit); other != is && !errors.Is(err, ErrWrongType) {
				t.Errorf("a %v takes a change of a %v: %v", is, other, err)
			} else if other == is && errors.Is(err, ErrWrongType) {
				t.Errorf("a %v: %v", is, err)
			}
			if err := attempt(r, func(d *Draft) error { return errors.Join(d.Delete("k"), edit(d)) }); err != nil {
				t.Errorf("a %v that was deleted is not taken by a %v: %v", is, other, err)
			}
		}
		if state(r) != before {
			t.Errorf("drafts that were given up changed a %v", is)
		}
		hidden := r.Draft(5, func(*Cell) bool { return false })
		if err := hidden.SetAdd("k", "e", Lifetime{}); err != nil {
			t.Errorf("a hidden %v decides the type: %v", is, err)
		}
		change(t, r, 6, func(d *Draft) error { return d.Delete("k") })
		if r.Cells().Len() != 0 {
			t.Errorf("a %v leaves cells when it is deleted", is)
		}
	}
}

// What is gone within a draft decides no type, and what is left does.
func TestDraftSeesItsOwnChanges(t *testing.T) {
	r := newReplica(1)
	for i := range 3 {
		change(t, r, HLC(1+i), func(d *Draft) error { return d.SetAdd("k", fmt.Sprint("e", i), Lifetime{}) })
	}
	d := r.Draft(9, seesAll)
	for _, e := range []string{"e2", "e1"} {
		if removed, err := d.SetRemove("k", e); err != nil || !removed {
			t.Fatal(removed, err)
		}
		if err := d.Put("k", nil, Lifetime{}); !errors.Is(err, ErrWrongType) {
			t.Fatalf("a set that has elements left: %v", err)
		}
	}
	if removed, err := d.SetRemove("k", "e1"); err != nil || removed {
		t.Fatal("removed twice in a draft", err)
	}
	if _, err := d.SetRemove("k", "e0"); err != nil {
		t.Fatal(err)
	}
	if err := d.Put("k", []byte("v"), Lifetime{}); err != nil {
		t.Fatalf("a set without elements: %v", err)
	}
	op := r.Commit(d)[0]
	if op.Cell == nil || len(op.More) > 0 || op.Key != "k" || op.Removes.Len() != 3 || len(op.Covers) > 0 {
		t.Errorf("a batch that leaves one cell is %+v", op)
	}
}

func TestBatchBounds(t *testing.T) {
	r := newReplica(1)
	fill := func(n int, value []byte) func(*Draft) error {
		return func(d *Draft) error {
			for i := range n {
				if err := d.MapPut("k", []string{fmt.Sprint(i)}, value, Lifetime{}); err != nil {
					return err
				}
			}
			return nil
		}
	}
	again := func(n int) func(*Draft) error {
		return func(d *Draft) error {
			for range n {
				if err := d.CounterAdd("n", 1); err != nil {
					return err
				}
			}
			return nil
		}
	}
	for _, tc := range []struct {
		name string
		edit func(*Draft) error
		want error
	}{
		{"most cells", fill(MaxBatchCells, nil), nil},
		{"too many cells", fill(MaxBatchCells+1, nil), ErrBatchSize},
		{"one large value", fill(1, make([]byte, MaxValueBytes)), nil},
		{"too large a value", fill(1, make([]byte, MaxValueBytes+1)), ErrValueSize},
		{"too large in all", fill(5, make([]byte, 60<<10)), ErrBatchSize},
		{"most dots", again(MaxCovers), nil},
		{"too many dots", again(MaxCovers + 1), ErrBatchSize},
		{"no element", func(d *Draft) error { return d.SetAdd("s", "", Lifetime{}) }, ErrElement},
		{"no key", func(d *Draft) error { return d.SetAdd("", "e", Lifetime{}) }, ErrKeySize},
		{"no field", func(d *Draft) error { return d.MapPut("k", nil, nil, Lifetime{}) }, ErrElement},
		{"too deep", func(d *Draft) error { return d.MapPut("k", strings.Split("123456789", ""), nil, Lifetime{}) }, ErrElement},
	} {
		if err := attempt(r, tc.edit); !errors.Is(err, tc.want) {
			t.Errorf("%s: got %v want %v", tc.name, err, tc.want)
		}
	}
	for range 5 {
		change(t, r, 1, func(d *Draft) error {
			for i := range MaxBatchCells {
				if err := d.SetAdd("s", fmt.Sprint(r.Seq(), i), Lifetime{}); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := attempt(r, func(d *Draft) error { return d.Delete("s") }); !errors.Is(err, ErrBatchSize) {
		t.Errorf("more cells are removed than one op may: %v", err)
	}
}

func TestSetIsAddWins(t *testing.T) {
	a, b := newReplica(1), newReplica(2)
	add := change(t, a, 1, func(d *Draft) error {
		return errors.Join(d.SetAdd("k", "x", Lifetime{}), d.SetAdd("k", "y", Lifetime{}))
	})
	b.Apply(add)
	remove := change(t, b, 2, func(d *Draft) error {
		_, errX := d.SetRemove("k", "x")
		_, errY := d.SetRemove("k", "y")
		return errors.Join(errX, errY)
	})
	b.Apply(change(t, a, 2, func(d *Draft) error { return d.SetAdd("k", "x", Lifetime{}) }))
	a.Apply(remove)
	for _, r := range []*Replica{a, b} {
		if got := elementsOf(r, "k"); !slices.Equal(got, []string{"x"}) {
			t.Errorf("%q", got)
		}
	}
}

func TestMapOfMaps(t *testing.T) {
	a, b := newReplica(1), newReplica(2)
	put := func(r *Replica, at HLC, value string, fields ...string) *Op {
		return change(t, r, at, func(d *Draft) error { return d.MapPut("k", fields, []byte(value), Lifetime{}) })
	}
	for _, op := range []*Op{put(a, 1, "1", "x", "y"), put(a, 2, "2", "x", "yy"), put(a, 3, "3", "z"), put(a, 4, "4", "x", "w", "v")} {
		b.Apply(op)
	}
	if got := fieldsOf(b, "k"); !slices.Equal(got, []string{"x.w.v=4", "x.y=1", "x.yy=2", "z=3"}) {
		t.Fatalf("%q", got)
	}
	err := attempt(a, func(d *Draft) error { return d.MapPut("k", []string{"z", "a"}, nil, Lifetime{}) })
	if !errors.Is(err, ErrWrongType) {
		t.Errorf("a map at the place of a value: %v", err)
	}
	// A value at the place of a map, and concurrently something beneath: the newest decides.
	older, newer := put(a, 5, "value", "x"), put(b, 6, "6", "x", "y")
	a.Apply(newer)
	b.Apply(older)
	for _, r := range []*Replica{a, b} {
		if got := fieldsOf(r, "k"); !slices.Equal(got, []string{"x.y=6", "z=3"}) {
			t.Errorf("%q", got)
		}
	}
	removed := false
	a.Apply(change(t, b, 7, func(d *Draft) (err error) {
		removed, err = d.MapRemove("k", []string{"x"})
		return err
	}))
	if got := fieldsOf(a, "k"); !removed || !slices.Equal(got, []string{"z=3"}) {
		t.Errorf("%v, %q", removed, got)
	}
}

func TestFieldPaths(t *testing.T) {
	seen := map[string]string{}
	var all func(fields []string)
	all = func(fields []string) {
		if len(fields) > 0 {
			path, err := FieldPath(fields...)
			if err != nil || !slices.Equal(FieldsOf(path), fields) || seen[path] != "" {
				t.Fatalf("%q: %q, %v", fields, path, err)
			}
			seen[path] = strings.Join(fields, "/")
		}
		if len(fields) < 3 {
			for _, f := range []string{"a", "ab", "\x01", "\x01a", "b"} {
				all(append(slices.Clip(fields), f))
			}
		}
	}
	all(nil)
	for p, x := range seen {
		for q, y := range seen {
			if got, want := strings.HasPrefix(q, p), x == y || strings.HasPrefix(y, x+"/"); got != want {
				t.Fatalf("%q beneath %q: %v", y, x, got)
			}
		}
	}
	for _, bad := range []string{"\x00", "\x02a", "\x01a\x01", strings.Repeat("\x01a", MaxDepth+1)} {
		if FieldsOf(bad) != nil {
			t.Errorf("%q is taken for fields", bad)
		}
	}
}

func TestFlags(t *testing.T) {
	for _, tc := range []struct {
		kind             Kind
		concurrently     bool
		afterBothDisable bool
	}{{KindFlag, true, false}, {KindInverseFlag, false, false}} {
		a, b := newReplica(1), newReplica(2)
		set := func(r *Replica, on bool) *Op {
			return change(t, r, 1, func(d *Draft) error { return d.FlagSet("k", tc.kind, on) })
		}
		if FlagValue(cellsOf(a, "k"), tc.kind) {
			t.Errorf("%v: enabled from the beginning", tc.kind)
		}
		b.Apply(set(a, true))
		if !FlagValue(cellsOf(b, "k"), tc.kind) {
			t.Errorf("%v: not enabled", tc.kind)
		}
		on, off := set(a, true), set(b, false)
		a.Apply(off)
		b.Apply(on)
		for _, r := range []*Replica{a, b} {
			if got := FlagValue(cellsOf(r, "k"), tc.kind); got != tc.concurrently {
				t.Errorf("%v: enabled and disabled concurrently: %v", tc.kind, got)
			}
		}
		set(b, true)
		if !FlagValue(cellsOf(b, "k"), tc.kind) {
			t.Errorf("%v: not enabled by one who saw both", tc.kind)
		}
	}
}

func mustValue(t testing.TB, r *Replica) int64 {
	t.Helper()
	v, err := CounterValue(cellsOf(r, "k"))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestCounterRange(t *testing.T) {
	r, other := newReplica(1), newReplica(2)
	add := func(r *Replica, n int64) *Op {
		return change(t, r, 1, func(d *Draft) error { return d.CounterAdd("k", n) })
	}
	add(r, math.MinInt64)
	if got := mustValue(t, r); got != math.MinInt64 {
		t.Fatalf("%d", got)
	}
	if err := attempt(r, func(d *Draft) error { return d.CounterAdd("k", math.MinInt64) }); !errors.Is(err, ErrRange) {
		t.Errorf("the total overflows: %v", err)
	}
	add(r, -1)
	if _, err := CounterValue(cellsOf(r, "k")); !errors.Is(err, ErrRange) {
		t.Errorf("beyond an int64: %v", err)
	}
	other.Apply(add(r, math.MaxInt64))
	if got := mustValue(t, other); got != -2 {
		t.Fatalf("%d", got)
	}
	add(other, 3)
	if got := mustValue(t, other); got != 1 {
		t.Errorf("%d", got)
	}
	op := change(t, other, 1, func(d *Draft) error { return d.CounterReset("k") })
	r.Apply(op)
	if mustValue(t, other) != 0 || mustValue(t, r) != 0 {
		t.Errorf("after a reset: %d, %d", mustValue(t, other), mustValue(t, r))
	}
}

// The baseline of a reset does not grow with the number of resets.
func TestBaselineStaysShort(t *testing.T) {
	a, b := newReplica(1), newReplica(2)
	for i := range 50 {
		b.Apply(change(t, a, HLC(i), func(d *Draft) error { return d.CounterAdd("k", 5) }))
		a.Apply(change(t, b, HLC(i), func(d *Draft) error { return d.CounterReset("k") }))
		if v := mustValue(t, a); v != 0 {
			t.Fatalf("after %d resets: %d", i+1, v)
		}
	}
	for c := range cellsOf(a, "k") {
		if n := len(decodeBaseline(c.Value)); n > 1 {
			t.Errorf("the baseline has %d chains of one actor", n)
		}
	}
	if a.Cells().Len() != 1 {
		t.Errorf("%d cells", a.Cells().Len())
	}
}

// An actor that joined again adds before it knows its own total of before.
func TestCounterOfOneWhoJoinedAgain(t *testing.T) {
	a, b := newReplica(1), newReplica(2)
	b.Apply(change(t, a, 1, func(d *Draft) error { return d.CounterAdd("k", 5) }))
	again := NewReplica(State{Inc: 1, Seq: a.Seq(), Cells: NewMapCells(), Clock: NewClock()})
	for range 2 {
		b.Apply(change(t, again, 2, func(d *Draft) error { return d.CounterAdd("k", 1) }))
	}
	reconcile(again, b)
	change(t, again, 3, func(d *Draft) error { return d.CounterAdd("k", 10) })
	reconcile(again, b)
	for _, r := range []*Replica{again, b} {
		if got := mustValue(t, r); got != 17 || r.Cells().Len() != 2 {
			t.Errorf("value %d of %d cells", got, r.Cells().Len())
		}
	}
}

// reconcile is a session of two replicas.
func reconcile(a, b *Replica) {
	type snapshot struct {
		cells []*Cell
		has   map[Dot]bool
		known Known
	}
	take := func(r *Replica) snapshot {
		s := snapshot{slices.Collect(r.Cells().(*MapCells).All()), map[Dot]bool{}, Known{r.Clock().Clone(), r.Pending()}}
		for _, c := range s.cells {
			s.has[c.Dot] = true
		}
		return s
	}
	sa, sb := take(a), take(b)
	end := func(r *Replica, peer snapshot) {
		for _, c := range peer.cells {
			r.Provide(c)
		}
		var lacks []Dot
		for c := range r.Cells().(*MapCells).All() {
			if !peer.has[c.Dot] {
				lacks = append(lacks, c.Dot)
			}
		}
		r.Conclude(peer.known, slices.Values(lacks))
	}
	end(a, sb)
	end(b, sa)
}

func TestLogKeepsTheNewest(t *testing.T) {
	a, b := newReplica(1), newReplica(2)
	entries := func(r *Replica) (out string) {
		for _, c := range LogEntries(cellsOf(r, "k")) {
			out += string(c.Value)
		}
		return out
	}
	appended := func(r *Replica, at HLC, values string) *Op {
		return change(t, r, at, func(d *Draft) error {
			for _, v := range values {
				if err := d.LogAppend("k", []byte(string(v))); err != nil {
					return err
				}
			}
			return nil
		})
	}
	b.Apply(change(t, a, 1, func(d *Draft) error { return d.LogCap("k", 3) }))
	b.Apply(appended(a, 2, "abcd"))
	if got := entries(b); got != "bcd" || b.Cells().Len() != 4 {
		t.Fatalf("%q, %d cells", got, b.Cells().Len())
	}
	left, right := appended(a, 5, "e"), appended(b, 4, "fg")
	a.Apply(right)
	b.Apply(left)
	if entries(a) != "fge" || entries(b) != "fge" {
		t.Errorf("%q, %q", entries(a), entries(b))
	}
	change(t, a, 6, func(d *Draft) error { return d.LogCap("k", 1) })
	if got := entries(a); got != "e" || a.Cells().Len() != 2 {
		t.Errorf("%q, %d cells", got, a.Cells().Len())
	}
	for _, n := range []int{0, MaxLogCap + 1} {
		if err := attempt(a, func(d *Draft) error { return d.LogCap("k", n) }); !errors.Is(err, ErrRange) {
			t.Errorf("a cap of %d: %v", n, err)
		}
	}
}

func mustBounded(t testing.TB, r *Replica) Bounded {
	t.Helper()
	b, ok, err := BoundedValue(cellsOf(r, "k"))
	if err != nil || !ok {
		t.Fatalf("%v, %v", ok, err)
	}
	return b
}

func TestBoundedRights(t *testing.T) {
	a, b := newReplica(1), newReplica(2)
	add := func(n int64) func(*Draft) error { return func(d *Draft) error { return d.BoundedAdd("k", n) } }
	create := func(d *Draft) error { return d.BoundedCreate("k", -5, 5) }
	if err := attempt(b, add(1)); !errors.Is(err, ErrNotCreated) {
		t.Errorf("before it exists: %v", err)
	}
	b.Apply(change(t, a, 1, create))
	if err := attempt(b, create); !errors.Is(err, ErrExists) {
		t.Errorf("created twice: %v", err)
	}
	var rights *RightsError
	if err := attempt(b, add(-1)); !errors.As(err, &rights) || rights.Have != 0 || rights.Need != 1 {
		t.Errorf("taken without rights: %v", err)
	}
	b.Apply(change(t, a, 2, func(d *Draft) error { return d.BoundedTransfer("k", 2, 4) }))
	if err := attempt(a, add(-7)); !errors.As(err, &rights) || rights.Have != 6 || rights.Need != 7 {
		t.Errorf("taken what was given away: %v", err)
	}
	a.Apply(change(t, b, 3, add(-4)))
	b.Apply(change(t, a, 3, add(-6)))
	if got := mustBounded(t, b); got.Value != -5 || !maps.Equal(got.Rights, map[Inc]uint64{1: 0, 2: 0}) {
		t.Errorf("%+v", got)
	}
	for _, r := range []*Replica{a, b} {
		if err := attempt(r, add(-1)); !errors.As(err, &rights) {
			t.Errorf("below the bound: %v", err)
		}
	}
	b.Apply(change(t, a, 4, add(3)))
	if got := mustBounded(t, b); got.Value != -2 || got.Rights[1] != 3 {
		t.Errorf("%+v", got)
	}
}

// Rights that were spent are not there again, though the row that says so is lost or late.
func TestBoundedRowsAreNotForgotten(t *testing.T) {
	take := func(d *Draft) error { return d.BoundedAdd("k", -5) }
	setup := func() (a, b *Replica, create, give, spend *Op) {
		a, b = newReplica(1), newReplica(2)
		create = change(t, a, 1, func(d *Draft) error { return d.BoundedCreate("k", 0, 5) })
		give = change(t, a, 2, func(d *Draft) error { return d.BoundedTransfer("k", 2, 5) })
		b.Apply(create)
		b.Apply(give)
		return a, b, create, give, change(t, b, 3, take)
	}
	t.Run("joined again", func(t *testing.T) {
		a, b, _, _, spend := setup()
		again := NewReplica(State{Inc: 2, Seq: b.Seq(), Cells: NewMapCells(), Clock: NewClock()})
		reconcile(again, a)
		if err := attempt(again, take); !errors.Is(err, ErrBehind) {
			t.Errorf("taken again before its own row is there: %v", err)
		}
		a.Apply(spend)
		reconcile(again, a)
		var rights *RightsError
		if err := attempt(again, take); !errors.As(err, &rights) {
			t.Errorf("taken again: %v", err)
		}
	})
	for name, remove := range map[string]func(*Replica) []*Op{
		"deleted": func(r *Replica) []*Op { return r.Delete("k", 9) },
		"deleted in a batch": func(r *Replica) []*Op {
			d := r.Draft(9, seesAll)
			if err := d.Delete("k"); err != nil {
				t.Fatal(err)
			}
			return r.Commit(d)
		},
		"created anew": func(r *Replica) []*Op {
			d := r.Draft(0, seesAll) // older than the other: which stays the one that is shown
			if err := d.BoundedCreate("k", 0, 0); err != nil {
				t.Fatal(err)
			}
			return r.Commit(d)
		},
	} {
		t.Run(name+" where its counter is unknown", func(t *testing.T) {
			_, b, _, _, spend := setup()
			c := newReplica(3)
			c.Apply(spend)
			for _, op := range remove(c) {
				b.Apply(op)
			}
			var rights *RightsError
			if err := attempt(b, take); !errors.As(err, &rights) {
				t.Errorf("taken again: %v", err)
			}
		})
	}
	t.Run("deleted", func(t *testing.T) {
		_, b, _, _, _ := setup()
		b.Delete("k", 9)
		if b.Cells().Len() != 0 {
			t.Errorf("%d cells are left", b.Cells().Len())
		}
	})
}

// Two sides of a partition fill a log each: afterwards it takes entries as before, shows as many as its cap, and loses what is over
// with what comes.
func TestLogOfTwoSides(t *testing.T) {
	const most = MaxLogCap
	replicas := []*Replica{
		NewReplica(State{Inc: 1, Cells: NewMapCells(), Clock: NewClock()}),
		NewReplica(State{Inc: 2, Cells: NewMapCells(), Clock: NewClock()}),
	}
	var ops []*Op
	add := func(r *Replica, at HLC, n int) {
		t.Helper()
		d := r.Draft(at, seesAll)
		for range n {
			if err := d.LogAppend("log", []byte("entry")); err != nil {
				t.Fatal(err)
			}
		}
		ops = append(ops, r.Commit(d)...)
	}
	for i := range most / 1024 {
		add(replicas[0], HLC(i+1), 1024)
		add(replicas[1], HLC(i+1), 1024)
	}
	for _, op := range slices.Clone(ops) {
		replicas[0].Apply(op)
		replicas[1].Apply(op)
	}
	shown := func() int { return len(LogEntries(replicas[0].cells.Ascend("log", ""))) }
	if n := replicas[0].cells.Len(); n != 2*most || shown() != most {
		t.Fatalf("%d cells, %d shown", n, shown())
	}
	add(replicas[0], 100, 1)
	add(replicas[0], 101, 2)
	if n := replicas[0].cells.Len(); n != most || shown() != most {
		t.Errorf("%d cells, %d shown, after three more", n, shown())
	}
	entries := LogEntries(replicas[0].cells.Ascend("log", ""))
	if newest := entries[len(entries)-1]; newest.HLC != 101 {
		t.Errorf("the newest is of %d", newest.HLC)
	}
}

// A value of a map that is hidden keeps nobody from putting beneath its place; one that is shown does.
func TestHiddenValueOfMap(t *testing.T) {
	r := NewReplica(State{Inc: 1, Cells: NewMapCells(), Clock: NewClock()})
	d := r.Draft(1, seesAll)
	if err := d.MapPut("m", []string{"a"}, nil, Lifetime{Expires: 5}); err != nil {
		t.Fatal(err)
	}
	if err := d.MapPut("m", []string{"z"}, nil, Lifetime{}); err != nil {
		t.Fatal(err)
	}
	r.Commit(d)
	if err := r.Draft(2, seesAll).MapPut("m", []string{"a", "b"}, nil, Lifetime{}); !errors.Is(err, ErrWrongType) {
		t.Errorf("beneath a value: %v", err)
	}
	later := func(c *Cell) bool { return Visible(c, 10, OwnerAlive) == Shown }
	if err := r.Draft(2, later).MapPut("m", []string{"a", "b"}, nil, Lifetime{}); err != nil {
		t.Errorf("beneath a hidden value: %v", err)
	}
}
