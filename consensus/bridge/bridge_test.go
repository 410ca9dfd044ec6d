package bridge_test

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/meshkv/meshkv/consensus/bridge"
	"github.com/meshkv/meshkv/consensus/machine"
	"github.com/meshkv/meshkv/crdt"
)

const origin = crdt.Inc(7 << 22)

// A log drives a machine and keeps the ops of what it did.
type log struct {
	t     *rapid.T
	m     *machine.Machine
	index uint64
	ops   []*crdt.Op
	lease machine.LeaseID
}

func (l *log) apply(b machine.Body) machine.Result {
	l.index++
	c := machine.Command{Wall: 1000 + int64(l.index), Body: b}
	cmd, err := c.AppendBinary(nil)
	if err != nil {
		l.t.Fatalf("encode: %v", err)
	}
	res := l.m.Apply(l.index, cmd)
	l.ops = append(l.ops, bridge.Ops(origin, res.Changes)...)
	return res
}

var keys = []string{"a", "b", "c", "d"}

// step applies a command of any kind that changes keys.
func (l *log) step() {
	t := l.t
	key := func() string { return rapid.SampledFrom(keys).Draw(t, "key") }
	switch rapid.IntRange(0, 9).Draw(t, "command") {
	case 0:
		res := l.apply(&machine.Grant{TTL: 5000})
		l.lease = res.Lease
	case 1:
		if l.lease != 0 {
			l.apply(&machine.Revoke{ID: l.lease})
			l.lease = 0
		}
	case 2:
		l.apply(&machine.Txn{Then: []machine.Op{&machine.Delete{Span: machine.Span{Key: key(), End: "\x00"}}}})
	case 3, 4:
		l.apply(&machine.Txn{Then: []machine.Op{&machine.Delete{Span: machine.Span{Key: key()}}}})
	case 5:
		l.apply(&machine.Compact{Revision: l.m.View().Status().Revision})
	case 6:
		txn := &machine.Txn{}
		for _, k := range slices.Sorted(maps.Keys(map[string]bool{key(): true, key(): true})) {
			txn.Then = append(txn.Then, &machine.Put{Key: k, Value: []byte(k)})
		}
		l.apply(txn)
	default:
		l.apply(&machine.Txn{Then: []machine.Op{&machine.Put{Key: key(), Value: []byte(fmt.Sprint(l.index)), Lease: l.lease}}})
	}
}

// A node is one copy.
type node struct {
	replica *crdt.Replica
	cells   *crdt.MapCells
}

func newNode(inc crdt.Inc) *node {
	cells := crdt.NewMapCells()
	return &node{crdt.NewReplica(crdt.State{Inc: inc, Cells: cells, Clock: crdt.NewClock()}), cells}
}

func (n *node) live() []*crdt.Cell { return slices.Collect(n.cells.All()) }

// A told is what one side of a session, or a view, tells of itself.
type told struct {
	known crdt.Known
	cells []*crdt.Cell
}

func (n *node) told() told {
	return told{crdt.Known{Clock: n.replica.Clock().Clone(), Pending: n.replica.Pending()}, n.live()}
}

func toldBy(s bridge.State) told {
	clock := crdt.NewClock()
	if s.Seq() > 0 {
		clock.Add(crdt.Span{Inc: s.Origin(), Lo: 1, Hi: s.Seq()})
	}
	return told{crdt.Known{Clock: clock}, slices.Collect(s.Cells(func(uint64) bool { return true }))}
}

// take ends a session with whoever told that.
func (n *node) take(from told) {
	has := make(map[crdt.Dot]bool)
	for _, c := range from.cells {
		has[c.Dot] = true
		n.replica.Provide(c)
	}
	var lacks []crdt.Dot
	for _, c := range n.live() {
		if !has[c.Dot] {
			lacks = append(lacks, c.Dot)
		}
	}
	n.replica.Conclude(from.known, slices.Values(lacks))
}

func (n *node) want(t *rapid.T, s bridge.State) {
	t.Helper()
	want := toldBy(s)
	byDot := func(a, b *crdt.Cell) int { return a.Dot.Compare(b.Dot) }
	if got, want := n.live(), slices.SortedFunc(slices.Values(want.cells), byDot); !reflect.DeepEqual(got, want) {
		t.Fatalf("cells:\ngot  %v\nwant %v", got, want)
	}
	if !n.replica.Clock().Equal(want.known.Clock) {
		t.Fatalf("clock: got %+v, want %+v", n.replica.Clock().Entry(origin), want.known.Clock.Entry(origin))
	}
	if got := n.replica.Pending(); len(got) > 0 {
		t.Fatalf("pending: %v", got)
	}
}

// Copies that get the ops in any order, some twice, some coalesced, and that reconcile
// with each other and with views in between, come to what the view says.
func TestCopiesEqualTheView(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := &log{t: t, m: machine.New()}
		nodes := []*node{newNode(1 << 22), newNode(2 << 22)}
		late := make([][]*crdt.Op, len(nodes)) // on their way
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			before := len(l.ops)
			l.step()
			for i := range nodes {
				late[i] = append(late[i], l.ops[before:]...)
			}
			i := rapid.IntRange(0, 1).Draw(t, "node")
			n := nodes[i]
			switch rapid.IntRange(0, 7).Draw(t, "what") {
			case 0: // a session that both end
				a, b := nodes[0].told(), nodes[1].told()
				nodes[0].take(b)
				nodes[1].take(a)
			case 1: // one that ends on one side
				n.take(nodes[1-i].told())
			case 2: // all that is on its way is lost, and a voter tells its state
				late[i] = nil
				n.take(toldBy(bridge.StateOf(origin, l.m.View())))
			case 3: // an older op comes again
				if len(l.ops) > 0 {
					n.replica.Apply(rapid.SampledFrom(l.ops).Draw(t, "again"))
				}
			case 4: // two coalesce
				coalesceOne(late[i])
				late[i] = slices.DeleteFunc(late[i], func(op *crdt.Op) bool { return op == nil })
			default:
				if k := len(late[i]); k > 0 {
					j := rapid.IntRange(0, k-1).Draw(t, "op")
					n.replica.Apply(late[i][j])
					late[i] = slices.Delete(late[i], j, j+1)
				}
			}
		}
		for i, n := range nodes {
			for _, op := range rapid.Permutation(late[i]).Draw(t, "order") {
				n.replica.Apply(op)
			}
			n.take(toldBy(bridge.StateOf(origin, l.m.View()))) // what was lost
			n.want(t, bridge.StateOf(origin, l.m.View()))
		}
	})
}

// coalesceOne merges the first pair of ops of one key that may be, and clears the
// place of the older.
func coalesceOne(ops []*crdt.Op) {
	for j, newer := range ops {
		for i := j - 1; i >= 0; i-- {
			if ops[i].Key != newer.Key {
				continue
			}
			if merged := crdt.Coalesce(ops[i], newer); merged != nil {
				ops[i], ops[j] = nil, merged
				return
			}
			break
		}
	}
}

// All ops in any order are enough: no session has to mend anything.
func TestOpsAloneEqualTheView(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := &log{t: t, m: machine.New()}
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			l.step()
		}
		n := newNode(1 << 22)
		for _, op := range rapid.Permutation(l.ops).Draw(t, "order") {
			n.replica.Apply(op)
		}
		n.want(t, bridge.StateOf(origin, l.m.View()))
	})
}

// A voter whose machine is older than its copy takes nothing back.
func TestOlderStateTakesNothingBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := &log{t: t, m: machine.New()}
		n := newNode(1 << 22)
		var older []told
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			l.step()
			older = append(older, toldBy(bridge.StateOf(origin, l.m.View())))
		}
		for _, op := range l.ops {
			n.replica.Apply(op)
		}
		n.take(rapid.SampledFrom(older).Draw(t, "older"))
		n.want(t, bridge.StateOf(origin, l.m.View()))
	})
}

func TestEntryOfCell(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		number := rapid.OneOf(rapid.Uint64Range(0, 3), rapid.Uint64())
		e := machine.Entry{
			Key: rapid.SampledFrom(keys).Draw(t, "key"), Value: rapid.SliceOfN(rapid.Byte(), 0, 3).Draw(t, "value"),
			Create: machine.Revision(number.Draw(t, "create")), Mod: machine.Revision(number.Draw(t, "mod")),
			Version: number.Draw(t, "version"), Lease: machine.LeaseID(number.Draw(t, "lease")),
			Seq: machine.Seq(number.Draw(t, "seq")), Modified: crdt.HLC(number.Draw(t, "hlc")),
		}
		got, err := bridge.Entry(bridge.Cell(origin, &e))
		if err != nil || !reflect.DeepEqual(got, e) {
			t.Fatalf("got %+v, %v, want %+v", got, err, e)
		}
	})
}

func TestMalformedCells(t *testing.T) {
	good := bridge.Cell(origin, &machine.Entry{Key: "k", Create: 1, Mod: 300, Version: 2, Lease: 1 << 63})
	for _, path := range []string{"", "\x01", good.Path[:len(good.Path)-1], good.Path + "\x00", "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"} {
		c := *good
		c.Path = path
		if _, err := bridge.Entry(&c); !errors.Is(err, bridge.ErrMalformed) {
			t.Errorf("path %q: got %v", path, err)
		}
	}
	c := *good
	c.Kind = crdt.KindMap
	if _, err := bridge.Entry(&c); !errors.Is(err, bridge.ErrMalformed) {
		t.Errorf("a field of a map: got %v", err)
	}
}

func FuzzEntry(f *testing.F) {
	f.Add(bridge.Cell(origin, &machine.Entry{Key: "k", Create: 1, Mod: 300, Version: 2, Lease: 1 << 63}).Path)
	f.Add("")
	f.Fuzz(func(t *testing.T, path string) {
		e, err := bridge.Entry(&crdt.Cell{Key: "k", Path: path, Kind: crdt.KindRegister})
		if err != nil {
			return
		}
		if again, err := bridge.Entry(bridge.Cell(0, &e)); err != nil || !reflect.DeepEqual(again, e) {
			t.Fatalf("got %+v, %v, want %+v", again, err, e)
		}
	})
}

func TestOriginsDiffer(t *testing.T) {
	seen := make(map[crdt.Inc]string)
	for _, c := range []struct {
		cluster, name string
		gen, epoch    uint64
	}{{"c", "ks", 1, 0}, {"d", "ks", 1, 0}, {"c", "kt", 1, 0}, {"c", "ks", 2, 0}, {"c", "ks", 1, 1}, {"ck", "s", 1, 0}, {"c", "ks", 0, 1}} {
		inc := bridge.Origin(c.cluster, c.name, c.gen, c.epoch)
		if other, ok := seen[inc]; ok {
			t.Errorf("%+v and %s have one origin", c, other)
		}
		seen[inc] = fmt.Sprintf("%+v", c)
		if again := bridge.Origin(c.cluster, c.name, c.gen, c.epoch); again != inc {
			t.Errorf("%+v: %v, then %v", c, inc, again)
		}
	}
}

// A view of more keys than are read at once, some of which follow one another closely.
func TestStateOfManyKeys(t *testing.T) {
	m := machine.New()
	want := make(map[string]bool)
	var replaced []*crdt.Cell
	for i := range uint64(3000) {
		key := fmt.Sprintf("%04d", (i+1)/2) // so that a page ends between two that follow closely
		if i%2 == 0 {
			key += "\x00"
		}
		for range 2 {
			cmd, err := (&machine.Command{Body: &machine.Txn{Then: []machine.Op{&machine.Put{Key: key}}}}).AppendBinary(nil)
			if err != nil {
				t.Fatal(err)
			}
			res := m.Apply(m.View().Status().Applied+1, cmd)
			if prev := res.Changes[0].Prev; prev != nil {
				replaced = append(replaced, bridge.Cell(origin, prev))
			}
		}
		want[key] = true
	}
	s := bridge.StateOf(origin, m.View())
	got := make(map[string]bool)
	for c := range s.Cells(func(seq uint64) bool { return true }) {
		if got[c.Key] {
			t.Fatalf("key %q twice", c.Key)
		}
		got[c.Key] = true
		if !s.Holds(c) {
			t.Fatalf("does not hold its cell of %q", c.Key)
		}
		other := *c
		other.Dot.Inc++
		if s.Holds(&other) {
			t.Fatalf("holds another origin's cell of %q", c.Key)
		}
	}
	if !maps.Equal(got, want) {
		t.Fatalf("%d keys, want %d", len(got), len(want))
	}
	for _, c := range replaced {
		if s.Holds(c) {
			t.Fatalf("holds the former cell of %q", c.Key)
		}
	}
	n := 0
	for range s.Cells(func(seq uint64) bool { return seq > 5000 }) {
		n++
	}
	if n != 500 {
		t.Fatalf("%d cells above 5000, want 500", n)
	}
}
