package crdt

import (
	"maps"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// clockModel is the dumb model of Clock.
type clockModel struct {
	dots   dotSet
	closed map[Inc]bool
}

func newClockModel() *clockModel { return &clockModel{dotSet{}, map[Inc]bool{}} }

func (m *clockModel) clone() *clockModel {
	return &clockModel{maps.Clone(m.dots), maps.Clone(m.closed)}
}

func (m *clockModel) incs() []Inc {
	seen := maps.Clone(m.closed)
	for d := range m.dots {
		seen[d.Inc] = true
	}
	return slices.Sorted(maps.Keys(seen))
}

func (m *clockModel) add(sp Span) (changed bool) {
	for seq := sp.Lo; seq <= sp.Hi; seq++ {
		changed = changed || !m.dots[Dot{sp.Inc, seq}]
		m.dots[Dot{sp.Inc, seq}] = true
	}
	return changed
}

// mergeInc joins what other knows of inc.
func (m *clockModel) mergeInc(other *clockModel, inc Inc) (changed bool) {
	for d := range other.dots {
		if d.Inc == inc {
			changed = m.add(Span{inc, d.Seq, d.Seq}) || changed
		}
	}
	if other.closed[inc] && !m.closed[inc] {
		m.closed[inc] = true
		changed = true
	}
	return changed
}

func checkClock(t *rapid.T, c *Clock, m *clockModel) {
	if got, want := c.Incs(), m.incs(); !slices.Equal(got, want) || c.Len() != len(want) {
		t.Fatalf("Incs %v (Len %d) want %v", got, c.Len(), want)
	}
	for inc := Inc(1); inc <= 3; inc++ {
		e := c.Entry(inc)
		last := e.Prefix
		for _, is := range e.Islands {
			if is.Lo < last+2 || is.Hi < is.Lo {
				t.Fatalf("islands %+v", e)
			}
			last = is.Hi
		}
		most := uint64(0)
		for seq := range uint64(30) {
			d := Dot{inc, seq}
			if c.Contains(d) != m.dots[d] || e.Contains(seq) != m.dots[d] {
				t.Fatalf("Contains(%v) = %v in %+v", d, c.Contains(d), e)
			}
			if m.dots[d] {
				most = seq
			}
		}
		if e.Max() != most || e.Closed != m.closed[inc] {
			t.Fatalf("Max, Closed = %d, %v want %d, %v", e.Max(), e.Closed, most, m.closed[inc])
		}
	}
}

func TestClockAgainstSet(t *testing.T) {
	smallSpan := rapid.Custom(func(t *rapid.T) Span {
		lo := rapid.Uint64Range(1, 20).Draw(t, "lo")
		return Span{Inc(rapid.Uint64Range(1, 3).Draw(t, "inc")), lo, lo + rapid.Uint64Range(0, 4).Draw(t, "more")}
	})
	rapid.Check(t, func(t *rapid.T) {
		clocks := [2]*Clock{NewClock(), NewClock()}
		models := [2]*clockModel{newClockModel(), newClockModel()}
		for range rapid.IntRange(1, 25).Draw(t, "steps") {
			i := rapid.IntRange(0, 1).Draw(t, "which")
			c, m := clocks[i], models[i]
			clone, cloneModel := c.Clone(), m.clone()
			inc := Inc(rapid.Uint64Range(1, 3).Draw(t, "inc"))
			var got, want bool
			switch rapid.IntRange(0, 6).Draw(t, "what") {
			case 0, 1, 2:
				sp := smallSpan.Draw(t, "span")
				got, want = c.Add(sp), m.add(sp)
			case 3:
				got, want = c.Close(inc), !m.closed[inc]
				m.closed[inc] = true
			case 4:
				got, want = c.MergeEntry(inc, clocks[1-i].Entry(inc)), m.mergeInc(models[1-i], inc)
			case 5:
				var changed []Inc
				for _, inc := range models[1-i].incs() {
					if m.mergeInc(models[1-i], inc) {
						changed = append(changed, inc)
					}
				}
				if got := c.Merge(clocks[1-i]); !slices.Equal(got, changed) {
					t.Fatalf("Merge changed %v want %v", got, changed)
				}
			case 6:
				c.Set(inc, clocks[1-i].Entry(inc))
				maps.DeleteFunc(m.dots, func(d Dot, _ bool) bool { return d.Inc == inc })
				delete(m.closed, inc)
				m.mergeInc(models[1-i], inc)
			}
			if got != want {
				t.Fatalf("changed = %v want %v", got, want)
			}
			checkClock(t, c, m)
			checkClock(t, clone, cloneModel) // a clone does not follow
			if got, want := clocks[0].Equal(clocks[1]), maps.Equal(models[0].dots, models[1].dots) && maps.Equal(models[0].closed, models[1].closed); got != want {
				t.Fatalf("Equal = %v want %v", got, want)
			}
		}
		set, missing := Dots(nil), dotSet{}
		for _, sp := range rapid.SliceOfN(smallSpan, 0, 4).Draw(t, "spans") {
			set = set.With(sp)
		}
		for d := range set.All() {
			if !models[0].dots[d] {
				missing[d] = true
			}
		}
		checkDots(t, "Missing", clocks[0].Missing(set), missing)
		if got := clocks[0].ContainsAll(set); got != (len(missing) == 0) {
			t.Fatalf("ContainsAll = %v, missing %v", got, missing)
		}
	})
}

// An entry may know everything: a sealed incarnation does.
func TestClockKnowsAll(t *testing.T) {
	const most = math.MaxUint64
	for name, spans := range map[string][]Span{
		"prefix":           {{1, 1, most}},
		"prefix and again": {{1, 1, most}, {1, 5, most}},
		"island first":     {{1, 10, most}, {1, 3, 4}, {1, 1, 2}, {1, 5, 9}},
	} {
		c := NewClock()
		for _, sp := range spans {
			c.Add(sp)
		}
		if got := c.Entry(1); !got.Equal(Entry{Prefix: most}) {
			t.Errorf("%s: %+v", name, got)
		}
		if got := c.Missing(Dots{{1, 7, 9}, {1, most, most}}); got != nil {
			t.Errorf("%s: Missing %v", name, got)
		}
	}
	c := NewClock()
	c.Add(Span{1, 10, most})
	if got := c.Missing(Dots{{1, 2, most}}); !slices.Equal(got, Dots{{1, 2, 9}}) {
		t.Errorf("Missing %v", got)
	}
	other := NewClock()
	other.Add(Span{1, 1, 8})
	other.Add(Span{1, most, most})
	c.Merge(other)
	if got := c.Entry(1); !got.Equal(Entry{Prefix: 8, Islands: []Interval{{10, most}}}) {
		t.Errorf("merged %+v", got)
	}
}

// AddAll is Add of every span, whatever is known already.
func TestClockAddAll(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		one, all := NewClock(), NewClock()
		for range 3 {
			var s Dots
			for range rapid.IntRange(0, 6).Draw(t, "spans") {
				lo := rapid.Uint64Range(1, 20).Draw(t, "lo")
				s = s.With(Span{Inc(rapid.Uint64Range(1, 3).Draw(t, "inc")), lo, lo + rapid.Uint64Range(0, 3).Draw(t, "more")})
			}
			var want []Inc
			for _, sp := range s {
				if one.Add(sp) && !slices.Contains(want, sp.Inc) {
					want = append(want, sp.Inc)
				}
			}
			before := all.Clone()
			entries := make(map[Inc][]Interval)
			for _, inc := range before.Incs() {
				entries[inc] = slices.Clone(before.Entry(inc).Islands)
			}
			if got := all.AddAll(s); !slices.Equal(got, want) {
				t.Fatalf("changed %v, want %v", got, want)
			}
			if !all.Equal(one) {
				t.Fatalf("got %v, want %v", all.entries, one.entries)
			}
			for _, inc := range all.Incs() {
				if got := all.Missing(all.Entry(inc).Dots(inc)); got != nil {
					t.Fatalf("lacks %v of itself", got)
				}
			}
			for inc, islands := range entries {
				if !slices.Equal(before.Entry(inc).Islands, islands) {
					t.Fatalf("the clone changed")
				}
			}
		}
	})
}
