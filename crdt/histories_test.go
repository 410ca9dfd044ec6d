package crdt

import (
	"errors"
	"flag"
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
)

var (
	allOrders = flag.Int("orders", 2, "check all delivery orders of all histories of up to so many ops")
	someOrder = flag.Int("histories", 40, "random histories of 6 ops to check for each type, in all delivery orders")
	typeSteps = flag.Int("type-steps", 10_000, "steps of the random walk over replicas with all types")
)

// A deed is one change of a history: what replica by did, having seen the deeds in the bit set saw besides its own.
type deed struct {
	by   int
	what int // index of the type's verbs
	saw  uint
}

// A typeModel is one type, small enough to look at all histories: its verbs, its view as text, and a dumb model that says what is to be
// shown from what everybody did and saw.
type typeModel struct {
	name  string
	verbs []func(d *Draft, i int) error // i numbers the deed
	view  func(iter.Seq[*Cell]) string
	want  func(h []deed) string
}

const orderKey = "k"

// before reports whether deed i had seen deed j, an earlier one.
func before(h []deed, i, j int) bool {
	return j < i && (h[i].by == h[j].by || h[i].saw&(1<<j) != 0)
}

// unseen reports whether no deed of h that erases says to has seen j.
func unseen(h []deed, j int, erases func(what int) bool) bool {
	for i := range h {
		if erases(h[i].what) && before(h, i, j) {
			return false
		}
	}
	return true
}

func typeModels() []typeModel {
	elements := func(cells iter.Seq[*Cell]) (s string) {
		for c := range Elements(cells) {
			s += c.Path
		}
		return s
	}
	flagged := func(kind Kind) typeModel {
		return typeModel{
			name: kind.String(),
			verbs: []func(*Draft, int) error{
				func(d *Draft, _ int) error { return d.FlagSet(orderKey, kind, true) },
				func(d *Draft, _ int) error { return d.FlagSet(orderKey, kind, false) },
			},
			view: func(cells iter.Seq[*Cell]) string { return fmt.Sprint(FlagValue(cells, kind)) },
			want: func(h []deed) string {
				last := [2]bool{} // is there a last word of that kind?
				for j := range h {
					if unseen(h, j, func(int) bool { return true }) {
						last[h[j].what] = true
					}
				}
				return fmt.Sprint(last[0] && (kind == KindFlag || !last[1]))
			},
		}
	}
	return []typeModel{
		{
			name: "set",
			verbs: []func(*Draft, int) error{
				func(d *Draft, _ int) error { return d.SetAdd(orderKey, "x", Lifetime{}) },
				func(d *Draft, _ int) error { _, err := d.SetRemove(orderKey, "x"); return err },
				func(d *Draft, _ int) error {
					return errors.Join(d.SetAdd(orderKey, "y", Lifetime{}), d.SetAdd(orderKey, "x", Lifetime{}))
				},
			},
			view: elements,
			want: func(h []deed) string {
				x, y := false, false
				for j := range h {
					x = x || h[j].what != 1 && unseen(h, j, func(int) bool { return true }) // another add replaces it
					y = y || h[j].what == 2
				}
				s := ""
				if x {
					s = "x"
				}
				if y {
					s += "y"
				}
				return s
			},
		},
		{
			name: "counter",
			verbs: []func(*Draft, int) error{
				func(d *Draft, i int) error { return d.CounterAdd(orderKey, 1<<(2*i)) },
				func(d *Draft, _ int) error { return d.CounterReset(orderKey) },
			},
			view: func(cells iter.Seq[*Cell]) string { v, err := CounterValue(cells); return fmt.Sprint(v, err) },
			want: func(h []deed) string {
				// An add that was seen brought along those of its actor before it, unless a reset that the actor saw had seen them.
				brings := make([]uint, len(h))
				for i := range h {
					if h[i].what == 1 {
						continue
					}
					brings[i] = 1 << i
					for j := i - 1; j >= 0; j-- {
						if h[j].by == h[i].by && h[j].what == 0 {
							gone := false
							for k := range i {
								gone = gone || h[k].what == 1 && before(h, i, k) && before(h, k, j)
							}
							if !gone {
								brings[i] |= brings[j]
							}
							break
						}
					}
				}
				var taken uint
				for k := range h {
					for j := range k {
						if h[k].what == 1 && h[j].what == 0 && before(h, k, j) {
							taken |= brings[j]
						}
					}
				}
				sum := int64(0)
				for i := range h {
					if h[i].what == 0 && taken&(1<<i) == 0 {
						sum += 1 << (2 * i)
					}
				}
				return fmt.Sprint(sum, nil)
			},
		},
		flagged(KindFlag),
		flagged(KindInverseFlag),
		{
			name: "map",
			verbs: []func(*Draft, int) error{
				func(d *Draft, i int) error {
					return ignoreType(d.MapPut(orderKey, []string{"a", "b"}, []byte{byte('0' + i)}, Lifetime{}))
				},
				func(d *Draft, _ int) error { _, err := d.MapRemove(orderKey, []string{"a"}); return err },
				func(d *Draft, i int) error {
					return d.MapPut(orderKey, []string{"c"}, []byte{byte('0' + i)}, Lifetime{})
				},
			},
			view: func(cells iter.Seq[*Cell]) (s string) {
				for c := range Fields(cells) {
					s += fmt.Sprint(FieldsOf(c.Path), string(c.Value))
				}
				return s
			},
			want: func(h []deed) string {
				s := ""
				for _, place := range []struct {
					put  int
					name string
				}{{0, "[a b]"}, {2, "[c]"}} {
					newest := -1
					for j := range h {
						gone := func(what int) bool { return what == place.put || place.put == 0 && what == 1 }
						if h[j].what == place.put && unseen(h, j, gone) && (newest < 0 || later(h, j, newest)) {
							newest = j
						}
					}
					if newest >= 0 {
						s += fmt.Sprint(place.name, string(rune('0'+newest)))
					}
				}
				return s
			},
		},
		{
			name: "log",
			verbs: []func(*Draft, int) error{
				func(d *Draft, i int) error { return d.LogAppend(orderKey, []byte{byte('0' + i)}) },
				func(d *Draft, i int) error {
					return errors.Join(d.LogAppend(orderKey, []byte{byte('0' + i)}), d.LogAppend(orderKey, []byte{byte('a' + i)}))
				},
			},
			view: func(cells iter.Seq[*Cell]) (s string) {
				for _, c := range LogEntries(cells) {
					s += string(c.Value)
				}
				return s
			},
			want: func(h []deed) string {
				order := make([]int, len(h))
				for i := range order {
					order[i] = i
				}
				slices.SortFunc(order, func(i, j int) int {
					if later(h, i, j) {
						return 1
					}
					return -1
				})
				s := ""
				for _, i := range order {
					if s += string(rune('0' + i)); h[i].what == 1 {
						s += string(rune('a' + i))
					}
				}
				return s
			},
		},
		{
			name: "bounded counter",
			verbs: []func(*Draft, int) error{
				func(d *Draft, _ int) error { return d.BoundedAdd(orderKey, 2) },
				func(d *Draft, _ int) error { return ignoreRights(d.BoundedAdd(orderKey, -1)) },
				func(d *Draft, _ int) error { return ignoreRights(d.BoundedTransfer(orderKey, 1+d.r.inc%3, 1)) },
			},
			view: func(cells iter.Seq[*Cell]) string {
				b, ok, err := BoundedValue(cells)
				if ok && b.Value < b.Bound {
					return "below its bound"
				}
				return fmt.Sprint(ok, err)
			},
			want: func([]deed) string { return fmt.Sprint(true, nil) },
		},
	}
}

func ignoreType(err error) error {
	if errors.Is(err, ErrWrongType) {
		return nil
	}
	return err
}

func ignoreRights(err error) error {
	var rights *RightsError
	if errors.As(err, &rights) {
		return nil
	}
	return err
}

// stamp is the HLC of a deed: a count of what it knew, so that those that did not know of each other may have the same.
func stamp(h []deed, i int) HLC {
	at := HLC(0)
	for j := range i {
		if before(h, i, j) {
			at = max(at, stamp(h, j))
		}
	}
	return at + 1
}

// later reports whether deed i is shown rather than j.
func later(h []deed, i, j int) bool {
	a, b := stamp(h, i), stamp(h, j)
	if a != b {
		return a > b
	}
	return h[i].by > h[j].by || h[i].by == h[j].by && i > j
}

// play makes the ops of a history.
func (m *typeModel) play(t testing.TB, first *Op, h []deed) []*Op {
	var replicas [3]*Replica
	known := [3]uint{}
	ops := make([]*Op, len(h))
	for i, x := range h {
		r := replicas[x.by]
		if r == nil {
			r = newReplica(Inc(1 + x.by))
			if first != nil {
				r.Apply(first)
			}
			replicas[x.by] = r
		}
		for j := range i {
			if x.saw&(1<<j) != 0 && known[x.by]&(1<<j) == 0 && ops[j] != nil {
				r.Apply(ops[j])
			}
		}
		known[x.by] |= x.saw
		d := r.Draft(stamp(h, i)+1, seesAll)
		if err := m.verbs[x.what](d, i); err != nil {
			t.Fatalf("%s: %+v: deed %d: %v", m.name, h, i, err)
		}
		if made := r.Commit(d); len(made) > 0 {
			ops[i] = made[0]
		}
	}
	return ops
}

// full makes what replicas saw once what they saw for ever, as the model takes it.
func full(h []deed) []deed {
	var known [3]uint
	for i := range h {
		known[h[i].by] |= h[i].saw
		h[i].saw = known[h[i].by]
	}
	return h
}

// fork is an independent copy of a replica.
func fork(r *Replica) *Replica {
	cells := NewMapCells()
	for c := range r.Cells().(*MapCells).All() {
		cells.Add(c)
	}
	return NewReplica(State{Inc: 99, Cells: cells, Clock: r.Clock().Clone(), Pending: r.Pending()})
}

// check takes a history to a replica in all orders: by induction over the sets of ops, what a set leads to does not
// depend on which of them came last. Two replicas that have some each agree after a session on what all of these lead to.
// All ops lead to what the model says.
func (m *typeModel) check(t testing.TB, h []deed) {
	t.Helper()
	var first *Op
	if m.name == KindBounded.String() {
		first = change(t, newReplica(9), 1, func(d *Draft) error { return d.BoundedCreate(orderKey, 0, 1) })
	}
	h = full(slices.Clone(h))
	ops := m.play(t, first, h)
	n := len(ops)
	replicas := make([]*Replica, 1<<n)
	states := make([]string, 1<<n)
	for set := range replicas {
		for i := n - 1; i >= 0 && set > 0; i-- {
			if set&(1<<i) == 0 {
				continue
			}
			r := fork(replicas[set&^(1<<i)])
			if ops[i] != nil {
				r.Apply(ops[i])
			}
			if replicas[set] == nil {
				replicas[set], states[set] = r, state(r)
			} else if s := state(r); s != states[set] {
				t.Fatalf("%s: %+v: ops %b lead to\n%s, with %d last to\n%s", m.name, h, set, states[set], i, s)
			}
		}
		if set == 0 {
			replicas[0] = newReplica(99)
			if first != nil {
				replicas[0].Apply(first)
			}
		}
	}
	whole := 1<<n - 1
	for set := range replicas {
		a, b := fork(replicas[set]), fork(replicas[whole&^set|set&(set>>1)])
		reconcile(a, b)
		if state(a) != states[whole] || state(b) != states[whole] {
			t.Fatalf("%s: %+v: a session of %b leads to\n%s and\n%s, the ops to\n%s", m.name, h, set, state(a), state(b), states[whole])
		}
	}
	if got, want := m.view(cellsOf(replicas[whole], orderKey)), m.want(h); got != want {
		t.Fatalf("%s: %+v: shows %q, want %q\n%s", m.name, h, got, want, states[whole])
	}
}

// histories are all of n deeds. As the names of replicas stand for nothing but the order of their dots, all are tried.
func (m *typeModel) histories(n int) iter.Seq[[]deed] {
	return func(yield func([]deed) bool) {
		h := make([]deed, n)
		var rec func(i int) bool
		rec = func(i int) bool {
			if i == n {
				return yield(h)
			}
			for by := range 3 {
				var foreign uint
				for j := range i {
					if h[j].by != by {
						foreign |= 1 << j
					}
				}
				for what := range m.verbs {
					for saw := foreign; ; saw = (saw - 1) & foreign {
						h[i] = deed{by, what, saw}
						if !rec(i + 1) {
							return false
						}
						if saw == 0 {
							break
						}
					}
				}
			}
			return true
		}
		rec(0)
	}
}

// All delivery orders of all histories.
func TestAllHistories(t *testing.T) {
	for _, m := range typeModels() {
		t.Run(m.name, func(t *testing.T) {
			count := 0
			for n := 1; n <= *allOrders; n++ {
				for h := range m.histories(n) {
					m.check(t, h)
					count++
				}
			}
			rng := rand.New(rand.NewPCG(rand.Uint64(), 1))
			for range *someOrder {
				h := make([]deed, 6)
				for i := range h {
					h[i] = deed{rng.IntN(3), rng.IntN(len(m.verbs)), uint(rng.IntN(1 << i))}
					for j := range i {
						if h[j].by == h[i].by {
							h[i].saw &^= 1 << j
						}
					}
				}
				m.check(t, h)
			}
			t.Logf("%d histories, and %d of 6 ops", count, *someOrder)
		})
	}
}

// A walk of replicas that change keys of all types, lose messages, get them twice and out of order, leave and
// come back, and start again: counters show what was added and not reset, bounded ones stay above their bounds.
func TestTypesWalk(t *testing.T) {
	seed := rand.Uint64N(1e12)
	t.Logf("seed %d", seed)
	for i := 0; i < *typeSteps; i += 500 {
		w := newWalk(t, seed+uint64(i))
		for range min(500, *typeSteps-i) {
			w.step()
		}
		w.finish()
	}
}

// A walk is replicas, and the dumb model of their counters.
type walk struct {
	t        testing.TB
	rng      *rand.Rand
	replicas []*Replica
	ops      []*Op
	lastInc  Inc
	at       HLC
	adds     []int64              // to the counter
	brings   map[Dot]map[int]bool // by cell of the counter: the additions in its total
	reset    map[int]bool         // additions that a reset had seen
	above    int64                // what the bounded counter is worth beyond its bound
}

func newWalk(t testing.TB, seed uint64) *walk {
	w := &walk{t: t, rng: rand.New(rand.NewPCG(seed, 2)), brings: map[Dot]map[int]bool{}, reset: map[int]bool{}, above: 20}
	for range 4 {
		w.replicas = append(w.replicas, w.replica())
	}
	first := change(t, w.replicas[0], 1, func(d *Draft) error { return d.BoundedCreate("bounded", -7, 13) })
	for _, r := range w.replicas[1:] {
		r.Apply(first)
	}
	return w
}

func (w *walk) replica() *Replica {
	w.lastInc++
	return newReplica(w.lastInc)
}

func (w *walk) step() {
	i := w.rng.IntN(len(w.replicas))
	r := w.replicas[i]
	switch x := w.rng.IntN(100); {
	case x < 30:
		w.count(r)
	case x < 32:
		w.resetAt(r)
	case x < 45:
		w.bound(r)
	case x < 55:
		w.others(r)
	case x < 88:
		if len(w.ops) > 0 {
			r.Apply(w.ops[max(len(w.ops)-1-w.rng.IntN(30), 0)])
		}
	case x < 96:
		w.meet(i)
	case x < 97: // leaves after a session, and joins again with nothing
		reconcile(r, w.replicas[(i+1)%len(w.replicas)])
		w.replicas[i] = NewReplica(State{Inc: r.Inc(), Seq: r.Seq(), Cells: NewMapCells(), Clock: NewClock()})
	case x < 98: // starts again from what it has
		w.lastInc++
		r.Renew(w.lastInc)
	}
	if b, ok, err := BoundedValue(r.Cells().Ascend("bounded", "")); err != nil || ok && b.Value < b.Bound {
		w.t.Fatalf("%+v, %v", b, err)
	}
}

func (w *walk) meet(i int) {
	other := w.rng.IntN(len(w.replicas))
	if other != i {
		reconcile(w.replicas[i], w.replicas[other])
	}
}

func (w *walk) commit(r *Replica, d *Draft) []*Op {
	ops := r.Commit(d)
	w.ops = append(w.ops, ops...)
	return ops
}

func (w *walk) draft(r *Replica) *Draft {
	w.at += HLC(w.rng.IntN(2))
	return r.Draft(w.at, seesAll)
}

// value is what the counter shows at r.
func (w *walk) value(r *Replica) int64 {
	v, err := CounterValue(r.Cells().Ascend("counter", ""))
	if err != nil {
		w.t.Fatal(err)
	}
	return v
}

func (w *walk) count(r *Replica) {
	before := w.value(r)
	delta := w.rng.Int64N(1<<41) - 1<<40
	d := w.draft(r)
	if err := d.CounterAdd("counter", delta); err != nil {
		w.t.Fatal(err)
	}
	op := w.commit(r, d)[0]
	w.adds = append(w.adds, delta)
	brings := map[int]bool{len(w.adds) - 1: true}
	for d := range op.Removes.All() {
		maps.Copy(brings, w.brings[d])
	}
	w.brings[op.Dot] = brings
	if got := w.value(r); got != before+delta {
		w.t.Fatalf("%d, and then %d added: %d", before, delta, got)
	}
}

func (w *walk) resetAt(r *Replica) {
	d := w.draft(r)
	for c := range r.Cells().Ascend("counter", "") {
		maps.Copy(w.reset, w.brings[c.Dot])
	}
	if err := d.CounterReset("counter"); err != nil {
		w.t.Fatal(err)
	}
	w.commit(r, d)
	if got := w.value(r); got != 0 {
		w.t.Fatalf("after a reset: %d", got)
	}
}

func (w *walk) bound(r *Replica) {
	d := w.draft(r)
	n := w.rng.Int64N(12) - 7
	var err error
	if w.rng.IntN(3) == 0 {
		n = 0
		err = d.BoundedTransfer("bounded", w.replicas[w.rng.IntN(len(w.replicas))].Inc(), uint64(w.rng.IntN(4)))
	} else {
		err = d.BoundedAdd("bounded", n)
	}
	if err != nil { // the replica may give nothing to itself, not have enough, or know nothing of it
		return
	}
	w.commit(r, d)
	if w.above += n; w.above < 0 {
		w.t.Fatalf("taken %d more than there is", -w.above)
	}
}

// others changes some other types in one batch.
func (w *walk) others(r *Replica) {
	d := w.draft(r)
	for range 1 + w.rng.IntN(4) {
		var err error
		e := fmt.Sprint("e", w.rng.IntN(5))
		switch w.rng.IntN(7) {
		case 0:
			err = d.SetAdd("set", e, Lifetime{})
		case 1:
			_, err = d.SetRemove("set", e)
		case 2:
			err = ignoreType(d.MapPut("map", []string{e, "x"}[:1+w.rng.IntN(2)], []byte(e), Lifetime{}))
		case 3:
			_, err = d.MapRemove("map", []string{e})
		case 4:
			err = d.FlagSet("flag", KindFlag, w.rng.IntN(2) == 0)
		case 5:
			err = d.LogAppend("log", []byte(e))
		default:
			err = d.Put("register", []byte(e), Lifetime{})
		}
		if err != nil {
			w.t.Fatal(err)
		}
	}
	w.commit(r, d)
}

// finish lets all replicas meet.
func (w *walk) finish() {
	for range 2 {
		for i := range w.replicas {
			reconcile(w.replicas[i], w.replicas[(i+1)%len(w.replicas)])
		}
	}
	want := int64(0)
	for i, delta := range w.adds {
		if !w.reset[i] {
			want += delta
		}
	}
	for _, r := range w.replicas {
		if got := w.value(r); got != want {
			w.t.Fatalf("the counter is %d, want %d", got, want)
		}
		b, _, err := BoundedValue(r.Cells().Ascend("bounded", ""))
		if err != nil || b.Value-b.Bound != w.above {
			w.t.Fatalf("the bounded counter is %+v, %v; want %d above", b, err, w.above)
		}
		if s := state(r); s != state(w.replicas[0]) {
			w.t.Fatalf("replicas differ:\n%s\n%s", s, state(w.replicas[0]))
		}
	}
}
