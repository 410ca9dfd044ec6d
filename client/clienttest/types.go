package clienttest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/meshkv/meshkv/client"
)

// RunTypes runs the suite of the data types of eventual keyspaces. Each test opens a
// cluster of its own, empty; open sees to its end with t.Cleanup.
func RunTypes(t *testing.T, open func(t *testing.T) client.Cluster) {
	tests := []struct {
		name string
		test func(t *testing.T, ctx context.Context, k client.Keyspace)
	}{
		{"counter", testCounter},
		{"set", testSet},
		{"set of many", testSetOfMany},
		{"set of opaque elements", testSetOpaque},
		{"set lifetimes", testSetLifetimes},
		{"map", testMap},
		{"map nested", testMapNested},
		{"flags", testFlags},
		{"log", testLog},
		{"bounded counter", testBounded},
		{"wrong type", testWrongType},
		{"views", testViews},
		{"typed keys in lists and watches", testTypedEntries},
		{"update is all or nothing", testUpdateAtomic},
		{"update of many kinds", testUpdateBatch},
		{"bad updates", testBadUpdates},
		{"elements by pages", testElementPages},
		{"token", testTypesToken},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
			defer cancel()
			tt.test(t, ctx, keyspace(t, ctx, open(t), "k"))
		})
	}
}

// did fails unless a change was made.
func did(t *testing.T) func(v client.Version, err error) client.Version {
	return func(v client.Version, err error) client.Version {
		t.Helper()
		if err != nil || v.IsZero() {
			t.Fatalf("got version %v, %v", v, err)
		}
		return v
	}
}

func wantNumber(t *testing.T, ctx context.Context, c *client.Counter, want int64) {
	t.Helper()
	if got, err := c.Value(ctx); err != nil || got != want {
		t.Fatalf("Value: got %d, %v; want %d", got, err, want)
	}
}

func testCounter(t *testing.T, ctx context.Context, k client.Keyspace) {
	c := client.CounterOf(k, "c")
	wantNumber(t, ctx, c, 0)
	v1 := did(t)(c.Add(ctx, 5))
	v2 := did(t)(c.Add(ctx, -7))
	if v1 == v2 {
		t.Errorf("two changes have one version %v", v1)
	}
	wantNumber(t, ctx, c, -2)
	did(t)(c.Add(ctx, 1<<40))
	wantNumber(t, ctx, c, 1<<40-2)
	did(t)(c.Reset(ctx))
	wantNumber(t, ctx, c, 0)
	did(t)(c.Add(ctx, 3))
	wantNumber(t, ctx, c, 3)
	remove(t, ctx, k, "c")
	wantNumber(t, ctx, c, 0)
	did(t)(c.Add(ctx, 2))
	wantNumber(t, ctx, c, 2)
}

func elements(t *testing.T, ctx context.Context, s *client.Set) []string {
	t.Helper()
	out := []string{}
	for e, err := range s.Elements(ctx) {
		if err != nil {
			t.Fatalf("Elements: %v", err)
		}
		out = append(out, e)
	}
	return out
}

func testSet(t *testing.T, ctx context.Context, k client.Keyspace) {
	s := client.SetOf(k, "s")
	if got := elements(t, ctx, s); len(got) != 0 {
		t.Errorf("an absent set: got %q", got)
	}
	did(t)(s.Add(ctx, "b", "a", "c", "b"))
	did(t)(s.Add(ctx, "a"))
	if got := elements(t, ctx, s); !slices.Equal(got, []string{"a", "b", "c"}) {
		t.Errorf("Elements: got %q", got)
	}
	if n, err := s.Len(ctx); err != nil || n != 3 {
		t.Errorf("Len: got %d, %v", n, err)
	}
	if _, err := s.Remove(ctx, "b", "absent"); err != nil {
		t.Errorf("Remove: %v", err)
	}
	for e, want := range map[string]bool{"a": true, "b": false, "": false, "ab": false} {
		got, err := s.Has(ctx, e)
		if e == "" {
			wantError(t, "Has of nothing", err, client.ErrBadRequest)
		} else if err != nil || got != want {
			t.Errorf("Has(%q): got %v, %v", e, got, err)
		}
	}
	did(t)(s.Remove(ctx, "a", "c"))
	if got := elements(t, ctx, s); len(got) != 0 {
		t.Errorf("an emptied set: got %q", got)
	}
	_, err := k.View(ctx, "s", nil)
	wantError(t, "View of an emptied set", err, client.ErrNotFound)
	put(t, ctx, k, "s", "a key of any type", nil)
}

func testSetOfMany(t *testing.T, ctx context.Context, k client.Keyspace) {
	s := client.SetOf(k, "s")
	var want []string
	for i := range 2500 { // several pages
		want = append(want, fmt.Sprintf("%06d%s", i, strings.Repeat("x", 500)))
	}
	for part := range slices.Chunk(want, 400) {
		did(t)(s.Add(ctx, part...))
	}
	if got := elements(t, ctx, s); !slices.Equal(got, want) {
		t.Errorf("Elements: got %d, want %d in order", len(got), len(want))
	}
	n := 0
	for range s.Elements(ctx) {
		if n++; n == 3 {
			break
		}
	}
	if got, err := s.Len(ctx); err != nil || got != len(want) {
		t.Errorf("Len: got %d, %v", got, err)
	}
}

func testSetOpaque(t *testing.T, ctx context.Context, k client.Keyspace) {
	s := client.SetOf(k, "\xff/")
	all := []string{"/", "\x00", "\x00\x00", "\xff\xfe", "ä", " ", strings.Repeat("x", client.MaxElement)}
	did(t)(s.Add(ctx, all...))
	if got, want := elements(t, ctx, s), slices.Sorted(slices.Values(all)); !slices.Equal(got, want) {
		t.Errorf("Elements: got %q, want %q", got, want)
	}
	for _, e := range all {
		if has, err := s.Has(ctx, e); err != nil || !has {
			t.Errorf("Has(%q): got %v, %v", e, has, err)
		}
	}
}

func testSetLifetimes(t *testing.T, ctx context.Context, k client.Keyspace) {
	s := client.SetOf(k, "s")
	s.TTL = 50 * time.Millisecond
	did(t)(s.Add(ctx, "short"))
	s.TTL, s.Ephemeral = time.Hour, true
	did(t)(s.Add(ctx, "long"))
	for deadline := time.Now().Add(patience); ; { // that a read hides it does not depend on anything
		if has, err := s.Has(ctx, "short"); err == nil && !has {
			break
		} else if err != nil || time.Now().After(deadline) {
			t.Fatalf("the element is not gone: %v", err)
		}
	}
	if got := elements(t, ctx, s); !slices.Equal(got, []string{"long"}) {
		t.Errorf("Elements: got %q", got)
	}
	for e, err := range k.Elements(ctx, "s", nil) {
		if left := time.Until(e.Expires); err != nil || !e.Ephemeral || left < 59*time.Minute || left > time.Hour || e.Origin == "" {
			t.Errorf("element: got %+v, %v", e, err)
		}
	}
}

func fields(t *testing.T, ctx context.Context, m *client.FieldMap) map[string]string {
	t.Helper()
	out := make(map[string]string)
	for e, err := range m.Fields(ctx) {
		if err != nil {
			t.Fatalf("Fields: %v", err)
		}
		out[strings.Join(e.Path, ".")] = string(e.Value)
	}
	return out
}

func wantFields(t *testing.T, ctx context.Context, m *client.FieldMap, want string) {
	t.Helper()
	if got := fmt.Sprint(fields(t, ctx, m)); got != want {
		t.Fatalf("Fields: got %s, want %s", got, want)
	}
}

func testMap(t *testing.T, ctx context.Context, k client.Keyspace) {
	m := client.MapOf(k, "m")
	_, err := m.Get(ctx, "a")
	wantError(t, "Get of an absent map", err, client.ErrNotFound)
	value := []byte("before")
	did(t)(m.Put(ctx, "a", value))
	copy(value, "after!")
	did(t)(m.Put(ctx, "b", nil))
	did(t)(m.Put(ctx, "ab", []byte("\xff\x00")))
	wantFields(t, ctx, m, "map[a:before ab:\xff\x00 b:]")
	if got, err := m.Get(ctx, "a"); err != nil || string(got) != "before" {
		t.Errorf("Get: got %q, %v", got, err)
	}
	_, err = m.Get(ctx, "c")
	wantError(t, "Get of an absent field", err, client.ErrNotFound)
	did(t)(m.Put(ctx, "a", []byte("2")))
	if _, err := m.Remove(ctx, "b", "c"); err != nil {
		t.Errorf("Remove: %v", err)
	}
	wantFields(t, ctx, m, "map[a:2 ab:\xff\x00]")
}

func testMapNested(t *testing.T, ctx context.Context, k client.Keyspace) {
	m := client.MapOf(k, "m")
	x, y := m.Sub("x"), m.Sub("y")
	did(t)(x.Put(ctx, "a", []byte("1")))
	did(t)(x.Sub("deep").Sub("er").Put(ctx, "b", []byte("2")))
	did(t)(y.Put(ctx, "a", []byte("3")))
	did(t)(m.Put(ctx, "z", []byte("4")))
	did(t)(m.Put(ctx, "xx", []byte("5")))
	wantFields(t, ctx, m, "map[x.a:1 x.deep.er.b:2 xx:5 y.a:3 z:4]")
	wantFields(t, ctx, x, "map[a:1 deep.er.b:2]")
	wantFields(t, ctx, x.Sub("deep"), "map[er.b:2]")
	if v, err := k.View(ctx, "m", nil); err != nil || v.Len != 5 || v.Type != client.TypeMap {
		t.Errorf("View: got %+v, %v", v, err)
	}
	_, err := m.Get(ctx, "x")
	wantError(t, "Get of a map", err, client.ErrWrongType)
	_, err = m.Sub("z").Put(ctx, "a", nil)
	wantError(t, "Put under a register", err, client.ErrWrongType)
	for _, err := range m.Sub("z").Fields(ctx) {
		wantError(t, "Fields of a register", err, client.ErrWrongType)
	}
	wantFields(t, ctx, m, "map[x.a:1 x.deep.er.b:2 xx:5 y.a:3 z:4]")
	did(t)(m.Put(ctx, "x", []byte("a register now")))
	wantFields(t, ctx, m, "map[x:a register now xx:5 y.a:3 z:4]")
	did(t)(m.Remove(ctx, "x", "y"))
	wantFields(t, ctx, m, "map[xx:5 z:4]")
	deep := m
	for i := range client.MaxFields - 1 {
		deep = deep.Sub(fmt.Sprint(i))
	}
	did(t)(deep.Put(ctx, "a", []byte("6")))
	_, err = deep.Sub("b").Put(ctx, "a", nil)
	wantError(t, "too deep", err, client.ErrBadRequest)
}

func testFlags(t *testing.T, ctx context.Context, k client.Keyspace) {
	for i, f := range []*client.Flag{client.FlagOf(k, "f0"), client.InverseFlagOf(k, "f1")} {
		for _, want := range []bool{true, false, false, true} {
			did(t)(f.Set(ctx, want))
			if got, err := f.Enabled(ctx); err != nil || got != want {
				t.Errorf("flag %d: got %v, %v; want %v", i, got, err, want)
			}
		}
	}
	if got, err := client.FlagOf(k, "absent").Enabled(ctx); err != nil || got {
		t.Errorf("an absent flag: got %v, %v", got, err)
	}
	_, err := client.FlagOf(k, "f1").Enabled(ctx)
	wantError(t, "the wrong kind of flag", err, client.ErrWrongType)
}

func entries(t *testing.T, ctx context.Context, l *client.Log, o *client.ElementsOptions) (values []string, last client.Position) {
	t.Helper()
	for e, err := range l.Entries(ctx, o) {
		if err != nil {
			t.Fatalf("Entries: %v", err)
		}
		values, last = append(values, string(e.Value)), e.Position
	}
	return values, last
}

func testLog(t *testing.T, ctx context.Context, k client.Keyspace) {
	l := client.LogOf(k, "l")
	did(t)(l.Append(ctx, []byte("1"), []byte("2"), []byte("1")))
	did(t)(l.Append(ctx, []byte("")))
	did(t)(l.Append(ctx, []byte("\xff")))
	if got, _ := entries(t, ctx, l, nil); !slices.Equal(got, []string{"1", "2", "1", "", "\xff"}) {
		t.Errorf("Entries: got %q", got)
	}
	first, at := entries(t, ctx, l, &client.ElementsOptions{Limit: 2})
	rest, _ := entries(t, ctx, l, &client.ElementsOptions{After: at})
	if !slices.Equal(first, []string{"1", "2"}) || !slices.Equal(rest, []string{"1", "", "\xff"}) {
		t.Errorf("Entries in two parts: got %q and %q", first, rest)
	}
	did(t)(l.Cap(ctx, 2))
	did(t)(l.Append(ctx, []byte("3")))
	if got, _ := entries(t, ctx, l, nil); !slices.Equal(got, []string{"\xff", "3"}) {
		t.Errorf("Entries of a log with a cap: got %q", got)
	}
	if n, err := l.Len(ctx); err != nil || n != 2 {
		t.Errorf("Len: got %d, %v", n, err)
	}
	_, err := l.Cap(ctx, client.MaxLogCap+1)
	wantError(t, "a cap that is too large", err, client.ErrBadRequest)
}

func testBounded(t *testing.T, ctx context.Context, k client.Keyspace) {
	b := client.BoundedOf(k, "b")
	_, err := b.View(ctx)
	wantError(t, "View before the creation", err, client.ErrNotFound)
	_, err = b.Add(ctx, 1)
	wantError(t, "Add before the creation", err, client.ErrNotFound)
	did(t)(b.Create(ctx, -10, 5))
	_, err = b.Create(ctx, 0, 5)
	wantError(t, "a second creation", err, client.ErrConflict)
	did(t)(b.Add(ctx, -12))
	v, err := b.View(ctx)
	if err != nil || v.Number != -7 || v.Bound != -10 || v.Rights != 3 {
		t.Errorf("View: got %+v, %v", v, err)
	}
	_, err = b.Add(ctx, -4)
	wantError(t, "Add below the bound", err, client.ErrRights)
	wantError(t, "Add below the bound", err, client.ErrConflict)
	did(t)(b.Add(ctx, 1))
	did(t)(b.Add(ctx, -4))
	_, err = b.Transfer(ctx, "not a member", 1)
	wantError(t, "Transfer to nobody", err, client.ErrNotFound, client.ErrBadRequest)
}

func testWrongType(t *testing.T, ctx context.Context, k client.Keyspace) {
	c, s := client.CounterOf(k, "c"), client.SetOf(k, "s")
	did(t)(c.Add(ctx, 1))
	did(t)(s.Add(ctx, "a"))
	put(t, ctx, k, "r", "1", nil)
	_, err := k.Get(ctx, "c", nil)
	wantError(t, "Get of a counter", err, client.ErrWrongType)
	_, err = k.Put(ctx, "c", nil, nil)
	wantError(t, "Put on a counter", err, client.ErrWrongType)
	_, err = client.SetOf(k, "c").Add(ctx, "a")
	wantError(t, "Add to a counter as to a set", err, client.ErrWrongType)
	_, err = client.CounterOf(k, "r").Add(ctx, 1)
	wantError(t, "Add to a register", err, client.ErrWrongType)
	_, err = client.CounterOf(k, "s").Value(ctx)
	wantError(t, "Value of a set", err, client.ErrWrongType)
	for _, key := range []string{"c", "r"} {
		for _, err := range k.Elements(ctx, key, nil) {
			wantError(t, "Elements of "+key, err, client.ErrWrongType)
		}
	}
	for _, err := range client.MapOf(k, "s").Fields(ctx) {
		wantError(t, "Fields of a set", err, client.ErrWrongType)
	}
	wantNumber(t, ctx, c, 1)
	if d := remove(t, ctx, k, "c"); !d.Deleted {
		t.Errorf("Delete of a counter: got %+v", d)
	}
	did(t)(client.SetOf(k, "c").Add(ctx, "a"))
	wantValue(t, ctx, k, "r", "1")
}

func testViews(t *testing.T, ctx context.Context, k client.Keyspace) {
	put(t, ctx, k, "r", "1", nil)
	v, err := k.View(ctx, "r", nil)
	if err != nil || v.Type != client.TypeRegister || v.Key != "r" || v.Version.IsZero() {
		t.Errorf("View of a register: got %+v, %v", v, err)
	}
	s := client.SetOf(k, "s")
	did(t)(s.Add(ctx, "a"))
	before, err := k.View(ctx, "s", nil)
	age := time.Since(before.Modified)
	if err != nil || before.Type != client.TypeSet || before.Len != 1 || age < -time.Minute || age > time.Minute {
		t.Errorf("View of a set: got %+v, %v", before, err)
	}
	if parsed, err := client.ParseVersion(before.Version.String()); err != nil || parsed != before.Version {
		t.Errorf("version %v does not survive its string: %v, %v", before.Version, parsed, err)
	}
	did(t)(s.Add(ctx, "b"))
	after, err := k.View(ctx, "s", nil)
	if err != nil || after.Version == before.Version {
		t.Errorf("View of a changed set: got %+v, %v; before it %+v", after, err, before)
	}
	_, err = k.View(ctx, "absent", nil)
	wantError(t, "View of nothing", err, client.ErrNotFound)
	_, err = k.View(ctx, "", nil)
	wantError(t, "View of an empty key", err, client.ErrBadRequest)
	for _, err := range k.Elements(ctx, "absent", nil) {
		wantError(t, "Elements of nothing", err, client.ErrNotFound)
	}
}

func testTypedEntries(t *testing.T, ctx context.Context, k client.Keyspace) {
	w := watch(t, ctx, k, "", nil)
	wantEvent(t, ctx, w, client.EventSynced, "", "")
	s := client.SetOf(k, "s")
	did(t)(s.Add(ctx, "a", "b", "c"))
	ev := next(t, ctx, w)
	if ev.Type != client.EventPut || ev.Entry.Key != "s" || ev.Entry.Type != client.TypeSet || ev.Entry.Value != nil {
		t.Fatalf("event of an add: got %+v", ev)
	}
	put(t, ctx, k, "r", "1", nil)
	wantEvent(t, ctx, w, client.EventPut, "r", "1") // the add was one event
	view, err := k.View(ctx, "s", nil)
	if err != nil || view.Version != ev.Entry.Version {
		t.Errorf("View: got %+v, %v; want the version of the event %v", view, err, ev.Entry.Version)
	}
	for e, err := range k.List(ctx, "s", nil) {
		if err != nil || e.Type != client.TypeSet || e.Value != nil || e.Version != view.Version {
			t.Errorf("List: got %+v, %v", e, err)
		}
	}
	did(t)(s.Remove(ctx, "b"))
	wantEvent(t, ctx, w, client.EventPut, "s", "")
	did(t)(s.Remove(ctx, "a", "c"))
	wantEvent(t, ctx, w, client.EventDelete, "s", "")
}

func testUpdateAtomic(t *testing.T, ctx context.Context, k client.Keyspace) {
	put(t, ctx, k, "r", "1", nil)
	_, err := k.Update(ctx, []client.Change{
		{Verb: client.VerbCounterAdd, Key: "c", N: 1},
		{Verb: client.VerbPut, Key: "r", Value: []byte("2")},
		{Verb: client.VerbSetAdd, Key: "r", Path: []string{"a"}},
	}, nil)
	wantError(t, "an update with a change that does not fit", err, client.ErrWrongType)
	wantNumber(t, ctx, client.CounterOf(k, "c"), 0)
	wantValue(t, ctx, k, "r", "1")
}

func testUpdateBatch(t *testing.T, ctx context.Context, k client.Keyspace) {
	put(t, ctx, k, "old", "1", nil)
	did(t)(k.Update(ctx, []client.Change{
		{Verb: client.VerbPut, Key: "r", Value: []byte("1")},
		{Verb: client.VerbCounterAdd, Key: "c", N: 2},
		{Verb: client.VerbCounterAdd, Key: "c", N: 3},
		{Verb: client.VerbSetAdd, Key: "s", Path: []string{"a"}},
		{Verb: client.VerbSetAdd, Key: "s", Path: []string{"b"}},
		{Verb: client.VerbSetRemove, Key: "s", Path: []string{"a"}},
		{Verb: client.VerbMapPut, Key: "m", Path: []string{"x", "y"}, Value: []byte("1")},
		{Verb: client.VerbDelete, Key: "old"},
		{Verb: client.VerbSetAdd, Key: "old", Path: []string{"new"}},
	}, nil))
	wantValue(t, ctx, k, "r", "1")
	wantNumber(t, ctx, client.CounterOf(k, "c"), 5)
	if got := elements(t, ctx, client.SetOf(k, "s")); !slices.Equal(got, []string{"b"}) {
		t.Errorf("set: got %q", got)
	}
	if got := elements(t, ctx, client.SetOf(k, "old")); !slices.Equal(got, []string{"new"}) {
		t.Errorf("a key that was deleted first: got %q", got)
	}
	wantFields(t, ctx, client.MapOf(k, "m"), "map[x.y:1]")
	did(t)(k.Update(ctx, []client.Change{
		{Verb: client.VerbMapRemove, Key: "m", Path: []string{"x"}},
		{Verb: client.VerbMapPut, Key: "m", Path: []string{"x"}, Value: []byte("2")},
		{Verb: client.VerbSetRemove, Key: "s", Path: []string{"b"}},
		{Verb: client.VerbCounterAdd, Key: "s", N: 1},
	}, nil))
	wantFields(t, ctx, client.MapOf(k, "m"), "map[x:2]")
	wantNumber(t, ctx, client.CounterOf(k, "s"), 1)
}

func testBadUpdates(t *testing.T, ctx context.Context, k client.Keyspace) {
	long := strings.Repeat("x", client.MaxElement+1)
	tests := []struct {
		name   string
		change client.Change
	}{
		{"no verb", client.Change{Key: "a"}},
		{"unknown verb", client.Change{Verb: 200, Key: "a"}},
		{"no key", client.Change{Verb: client.VerbCounterAdd, N: 1}},
		{"long key", client.Change{Verb: client.VerbCounterAdd, Key: long, N: 1}},
		{"a path for a counter", client.Change{Verb: client.VerbCounterAdd, Key: "a", N: 1, Path: []string{"b"}}},
		{"no element", client.Change{Verb: client.VerbSetAdd, Key: "a"}},
		{"empty element", client.Change{Verb: client.VerbSetAdd, Key: "a", Path: []string{""}}},
		{"long element", client.Change{Verb: client.VerbSetAdd, Key: "a", Path: []string{long}}},
		{"two elements", client.Change{Verb: client.VerbSetAdd, Key: "a", Path: []string{"b", "c"}}},
		{"a value for a set", client.Change{Verb: client.VerbSetAdd, Key: "a", Path: []string{"b"}, Value: []byte("c")}},
		{"no fields", client.Change{Verb: client.VerbMapPut, Key: "a", Path: []string{}}},
		{"long field", client.Change{Verb: client.VerbMapPut, Key: "a", Path: []string{long[:256]}}},
		{"long path", client.Change{Verb: client.VerbMapPut, Key: "a", Path: []string{long[:255], long[:255], long[:255], long[:255], "x"}}},
		{"negative time to live", client.Change{Verb: client.VerbPut, Key: "a", TTL: -time.Second}},
		{"no cap", client.Change{Verb: client.VerbLogCap, Key: "a"}},
		{"first value below the bound", client.Change{Verb: client.VerbBoundedCreate, Key: "a", Bound: 1}},
		{"negative transfer", client.Change{Verb: client.VerbBoundedTransfer, Key: "a", N: -1, To: "b"}},
	}
	for _, tt := range tests {
		_, err := k.Update(ctx, []client.Change{tt.change}, nil)
		wantError(t, tt.name, err, client.ErrBadRequest)
	}
	_, err := k.Update(ctx, nil, nil)
	wantError(t, "no changes", err, client.ErrBadRequest)
	many := make([]client.Change, client.MaxUpdateChanges+1)
	for i := range many {
		many[i] = client.Change{Verb: client.VerbCounterAdd, Key: "a", N: 1}
	}
	_, err = k.Update(ctx, many, nil)
	wantError(t, "too many changes", err, client.ErrTooLarge)
	big := client.Change{Verb: client.VerbMapPut, Key: "a", Path: []string{"b"}, Value: make([]byte, 64<<10)}
	_, err = k.Update(ctx, []client.Change{big, big, big, big}, nil)
	wantError(t, "too many bytes", err, client.ErrTooLarge)
	if got := keys(t, ctx, k, "", nil); len(got) != 0 {
		t.Errorf("refused updates left %q", got)
	}
}

func testElementPages(t *testing.T, ctx context.Context, k client.Keyspace) {
	s := client.SetOf(k, "s")
	did(t)(s.Add(ctx, "a", "b", "c", "d", "e"))
	var got []string
	var at client.Position
	for range 5 {
		n := 0
		for e, err := range k.Elements(ctx, "s", &client.ElementsOptions{Limit: 2, After: at}) {
			if err != nil {
				t.Fatal(err)
			}
			got, at, n = append(got, e.Path[0]), e.Position, n+1
		}
		if n > 2 {
			t.Fatalf("a page of 2 has %d elements", n)
		}
	}
	if !slices.Equal(got, []string{"a", "b", "c", "d", "e"}) {
		t.Errorf("pages: got %q", got)
	}
	for _, err := range k.Elements(ctx, "s", &client.ElementsOptions{Limit: -1}) {
		wantError(t, "negative limit", err, client.ErrBadRequest)
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	for _, err := range k.Elements(ended, "s", nil) {
		wantError(t, "ended context", err, context.Canceled)
	}
}

func testTypesToken(t *testing.T, ctx context.Context, k client.Keyspace) {
	v := did(t)(client.CounterOf(k, "c").Add(ctx, 1))
	if view, err := k.View(ctx, "c", &client.GetOptions{After: v.Token()}); err != nil || view.Number != 1 {
		t.Errorf("View after one's own write: got %+v, %v", view, err)
	}
	_, err := k.View(ctx, "c", &client.GetOptions{After: "nonsense"})
	wantError(t, "bad token", err, client.ErrBadRequest)
	ahead := v
	ahead.Seq += 1000
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	_, err = k.View(short, "c", &client.GetOptions{After: ahead.Token()})
	if !errors.Is(err, client.ErrNotCaughtUp) {
		t.Errorf("View after a write that was not seen: got %v", err)
	}
	for _, err := range k.Elements(short, "c", &client.ElementsOptions{Seen: ahead.Token()}) {
		wantError(t, "Elements after a write that was not seen", err, client.ErrNotCaughtUp)
	}
}
