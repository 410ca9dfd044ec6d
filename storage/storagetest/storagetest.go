// Package storagetest is the suite that every storage.Store must pass.
package storagetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/meshkv/meshkv/crdt"
	"github.com/meshkv/meshkv/storage"
	"pgregory.net/rapid"
)

// A Case is one implementation.
type Case struct {
	// Open is a new, empty store that the test closes.
	Open func(t *testing.T) storage.Store
	// Reopen closes s and opens what it has left; nil if nothing is left.
	Reopen func(t *testing.T, s storage.Store) storage.Store
}

// Run checks one implementation.
func Run(t *testing.T, c Case) {
	t.Run("an empty store is empty", func(t *testing.T) { testEmpty(t, c) })
	t.Run("commit before load is refused", func(t *testing.T) { testNotLoaded(t, c) })
	t.Run("a closed store is closed", func(t *testing.T) { testClosed(t, c) })
	t.Run("invalid batches change nothing", func(t *testing.T) { testInvalid(t, c) })
	t.Run("equals a model", func(t *testing.T) { testModel(t, c) })
}

func open(t *testing.T, c Case) storage.Store {
	t.Helper()
	s := c.Open(t)
	t.Cleanup(func() { _ = s.Close() })
	load(t, s)
	return s
}

func load(t interface {
	Helper()
	Fatal(...any)
}, s storage.Store) storage.State {
	t.Helper()
	st, err := s.Load(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func testEmpty(t *testing.T, c Case) {
	s := open(t, c)
	st := load(t, s)
	if st.NodeID == "" || st.HLCBound != 0 || len(st.Keyspaces) != 0 {
		t.Fatalf("got %+v, want only a node id", st)
	}
	if other := load(t, open(t, c)); other.NodeID == st.NodeID {
		t.Fatal("two stores have the same node id")
	}
}

func testNotLoaded(t *testing.T, c Case) {
	s := c.Open(t)
	defer s.Close()
	if err := s.Commit(context.Background(), storage.Batch{HLCBound: 1}); !errors.Is(err, storage.ErrNotLoaded) {
		t.Fatalf("got %v, want ErrNotLoaded", err)
	}
}

func testClosed(t *testing.T, c Case) {
	s := open(t, c)
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Commit(context.Background(), storage.Batch{HLCBound: 1}); !errors.Is(err, storage.ErrClosed) {
		t.Errorf("commit: got %v, want ErrClosed", err)
	}
	if _, err := s.Load(context.Background()); !errors.Is(err, storage.ErrClosed) {
		t.Errorf("load: got %v, want ErrClosed", err)
	}
}

func testInvalid(t *testing.T, c Case) {
	s := open(t, c)
	ok := Cell(1, 1, "k", "v")
	bad := func(change func(*crdt.Cell)) []*crdt.Cell {
		c := *ok
		change(&c)
		return []*crdt.Cell{ok, &c}
	}
	long := string(make([]byte, crdt.MaxKeyBytes+1))
	for name, ks := range map[string]storage.KeyspaceBatch{
		"no name":       {Put: []*crdt.Cell{ok}},
		"long name":     {Name: long, Put: []*crdt.Cell{ok}},
		"nil cell":      {Name: "a", Put: []*crdt.Cell{nil}},
		"no key":        {Name: "a", Put: bad(func(c *crdt.Cell) { c.Key = "" })},
		"long key":      {Name: "a", Put: bad(func(c *crdt.Cell) { c.Key = long })},
		"long path":     {Name: "a", Put: bad(func(c *crdt.Cell) { c.Path = long })},
		"large value":   {Name: "a", Put: bad(func(c *crdt.Cell) { c.Value = make([]byte, crdt.MaxValueBytes+1) })},
		"no kind":       {Name: "a", Put: bad(func(c *crdt.Cell) { c.Kind = 0 })},
		"no dot":        {Name: "a", Put: bad(func(c *crdt.Cell) { c.Dot = crdt.Dot{} })},
		"early expiry":  {Name: "a", Put: bad(func(c *crdt.Cell) { c.Expires = -1 })},
		"zero drop":     {Name: "a", Put: []*crdt.Cell{ok}, Drop: []crdt.Dot{{}}},
		"zero pending":  {Name: "a", Put: []*crdt.Cell{ok}, PendingAdd: []crdt.Dot{{Inc: 1}}},
		"zero clock id": {Name: "a", Put: []*crdt.Cell{ok}, Clock: []storage.ClockEntry{{Entry: crdt.Entry{Prefix: 1, Closed: true}}}},
	} {
		err := s.Commit(context.Background(), storage.Batch{HLCBound: 9, Keyspaces: []storage.KeyspaceBatch{ks}})
		if !errors.Is(err, storage.ErrInvalid) {
			t.Errorf("%s: got %v, want ErrInvalid", name, err)
		}
	}
	if st := load(t, s); st.HLCBound != 0 || len(st.Keyspaces) != 0 {
		t.Fatalf("got %+v, want nothing", st)
	}
}

// Cell is a register whose other fields follow from its dot.
func Cell(inc crdt.Inc, seq uint64, key, value string) *crdt.Cell {
	return &crdt.Cell{
		Key: key, Kind: crdt.KindRegister, Dot: crdt.Dot{Inc: inc, Seq: seq},
		HLC: crdt.HLCAt(int64(seq)), Value: []byte(value),
	}
}

// Model is a dumb store.
type Model struct {
	HLCBound  crdt.HLC
	Keyspaces map[string]*ModelKeyspace
}

// ModelKeyspace is one keyspace of a Model.
type ModelKeyspace struct {
	Cells   map[crdt.Dot]*crdt.Cell
	Clock   *crdt.Clock
	Pending map[crdt.Dot]bool
}

// NewModel is an empty model.
func NewModel() *Model { return &Model{Keyspaces: make(map[string]*ModelKeyspace)} }

// Apply is one committed batch.
func (m *Model) Apply(b storage.Batch) {
	m.HLCBound = max(m.HLCBound, b.HLCBound)
	for _, kb := range b.Keyspaces {
		if kb.Reset {
			delete(m.Keyspaces, kb.Name)
			if len(kb.Put)+len(kb.Drop)+len(kb.Clock)+len(kb.PendingAdd)+len(kb.PendingDrop) == 0 {
				continue
			}
		}
		ks := m.Keyspaces[kb.Name]
		if ks == nil {
			ks = &ModelKeyspace{Cells: map[crdt.Dot]*crdt.Cell{}, Clock: crdt.NewClock(), Pending: map[crdt.Dot]bool{}}
			m.Keyspaces[kb.Name] = ks
		}
		for _, c := range kb.Put {
			ks.Cells[c.Dot] = c
		}
		for _, d := range kb.Drop {
			delete(ks.Cells, d)
		}
		for _, e := range kb.Clock {
			ks.Clock.Set(e.Inc, e.Entry)
		}
		for _, d := range kb.PendingAdd {
			ks.Pending[d] = true
		}
		for _, d := range kb.PendingDrop {
			delete(ks.Pending, d)
		}
	}
}

// Check compares a state with the model.
func (m *Model) Check(st storage.State) error {
	if st.HLCBound != m.HLCBound {
		return fmt.Errorf("hlc bound: got %v, want %v", st.HLCBound, m.HLCBound)
	}
	if got, want := slices.Sorted(maps.Keys(st.Keyspaces)), slices.Sorted(maps.Keys(m.Keyspaces)); !slices.Equal(got, want) {
		return fmt.Errorf("keyspaces: got %q, want %q", got, want)
	}
	for name, want := range m.Keyspaces {
		got := st.Keyspaces[name]
		if len(got.Cells) != len(want.Cells) {
			return fmt.Errorf("%s: got %d cells, want %d", name, len(got.Cells), len(want.Cells))
		}
		for _, c := range got.Cells {
			w := want.Cells[c.Dot]
			if w == nil || !EqualCells(c, w) {
				return fmt.Errorf("%s: got cell %+v, want %+v", name, c, w)
			}
		}
		if !got.Clock.Equal(want.Clock) {
			return fmt.Errorf("%s: clocks differ", name)
		}
		dots := slices.SortedFunc(maps.Keys(want.Pending), crdt.Dot.Compare)
		if p := crdt.DotsOf(dots...); !slices.Equal(got.Pending, p) {
			return fmt.Errorf("%s: pending: got %v, want %v", name, got.Pending, p)
		}
	}
	return nil
}

// EqualCells reports whether both have the same content.
func EqualCells(a, b *crdt.Cell) bool {
	x, y := *a, *b
	x.Value, y.Value = nil, nil
	return fmt.Sprintf("%+v", x) == fmt.Sprintf("%+v", y) && bytes.Equal(a.Value, b.Value)
}

// Dots gives each dot once, as replicas do.
type Dots struct {
	next map[string]uint64
	live map[string][]crdt.Dot
}

// NewDots has given none.
func NewDots() *Dots { return &Dots{next: map[string]uint64{}, live: map[string][]crdt.Dot{}} }

// Batch draws a batch that keeps the contract.
func (g *Dots) Batch(t *rapid.T) storage.Batch {
	b := storage.Batch{HLCBound: crdt.HLC(rapid.IntRange(0, 5).Draw(t, "bound"))}
	for _, name := range []string{"a", "b"} {
		if !rapid.Bool().Draw(t, name) {
			continue
		}
		kb := storage.KeyspaceBatch{Name: name}
		live := g.live[name]
		if kb.Reset = rapid.IntRange(0, 5).Draw(t, "reset") == 0; kb.Reset {
			live = nil
			for inc := range 4 { // a replica that begins anew may get the same cells again
				delete(g.next, fmt.Sprint(name, inc))
			}
			if rapid.Bool().Draw(t, "gone") {
				g.live[name] = nil
				b.Keyspaces = append(b.Keyspaces, kb)
				continue
			}
		}
		for range rapid.IntRange(0, 3).Draw(t, "drops") {
			if len(live) == 0 {
				break
			}
			i := rapid.IntRange(0, len(live)-1).Draw(t, "drop")
			kb.Drop = append(kb.Drop, live[i])
			live = slices.Delete(live, i, i+1)
		}
		for range rapid.IntRange(0, 6).Draw(t, "puts") {
			inc := crdt.Inc(rapid.IntRange(1, 3).Draw(t, "inc"))
			id := fmt.Sprint(name, inc)
			g.next[id]++
			c := Cell(inc, g.next[id], rapid.StringN(1, 8, 32).Draw(t, "key"), rapid.StringN(0, 20, 80).Draw(t, "value"))
			c.Kind = crdt.Kind(rapid.IntRange(1, 5).Draw(t, "kind"))
			c.Flags = crdt.Flags(rapid.IntRange(0, 1).Draw(t, "flags"))
			c.Path = rapid.SampledFrom([]string{"", "p"}).Draw(t, "path")
			c.Expires = rapid.SampledFrom([]int64{0, 1, 1 << 41}).Draw(t, "expires")
			kb.Put = append(kb.Put, c)
			live = append(live, c.Dot)
		}
		g.live[name] = live
		for range rapid.IntRange(0, 2).Draw(t, "entries") {
			en := crdt.Entry{Prefix: uint64(rapid.IntRange(0, 3).Draw(t, "prefix")), Closed: rapid.Bool().Draw(t, "closed")}
			if rapid.Bool().Draw(t, "island") {
				en.Islands = []crdt.Interval{{Lo: en.Prefix + 2, Hi: en.Prefix + 4}}
			}
			en.Sealed = en.Closed && rapid.Bool().Draw(t, "sealed")
			e := storage.ClockEntry{Inc: crdt.Inc(rapid.IntRange(0, 4).Draw(t, "inc")), Entry: en}
			if e.Inc == 0 { // the horizon
				e.Entry = crdt.Entry{Prefix: en.Prefix}
			}
			kb.Clock = append(kb.Clock, e)
		}
		for range rapid.IntRange(0, 2).Draw(t, "deaths") {
			d := crdt.Dot{Inc: 9, Seq: uint64(rapid.IntRange(1, 6).Draw(t, "seq"))}
			if rapid.Bool().Draw(t, "add") {
				if !slices.Contains(kb.PendingDrop, d) {
					kb.PendingAdd = append(kb.PendingAdd, d)
				}
			} else if !slices.Contains(kb.PendingAdd, d) {
				kb.PendingDrop = append(kb.PendingDrop, d)
			}
		}
		b.Keyspaces = append(b.Keyspaces, kb)
	}
	return b
}

func testModel(t *testing.T, c Case) {
	rapid.Check(t, func(rt *rapid.T) {
		s := c.Open(t)
		defer func() { _ = s.Close() }()
		id := load(rt, s).NodeID
		m, g := NewModel(), NewDots()
		for range rapid.IntRange(1, 12).Draw(rt, "steps") {
			b := g.Batch(rt)
			if err := s.Commit(context.Background(), b); err != nil {
				rt.Fatal(err)
			}
			m.Apply(b)
			if c.Reopen != nil && rapid.IntRange(0, 4).Draw(rt, "reopen") == 0 {
				s = c.Reopen(t, s)
				if got := load(rt, s).NodeID; got != id {
					rt.Fatalf("node id %q became %q", id, got)
				}
			}
			if rapid.Bool().Draw(rt, "check") {
				if err := m.Check(load(rt, s)); err != nil {
					rt.Fatal(err)
				}
			}
		}
		if err := m.Check(load(rt, s)); err != nil {
			rt.Fatal(err)
		}
	})
}
