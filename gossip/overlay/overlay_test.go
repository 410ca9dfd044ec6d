package overlay

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// genMembers draws members of few zones, in any order.
func genMembers(t *rapid.T) []Member {
	n := rapid.IntRange(1, 60).Draw(t, "n")
	zones := rapid.IntRange(1, 5).Draw(t, "zones")
	offset := rapid.IntRange(0, 1_000_000).Draw(t, "offset")
	all := make([]Member, 0, n)
	for i := range n {
		all = append(all, Member{
			Name: fmt.Sprintf("node-%d", offset+i),
			Zone: fmt.Sprint("z", rapid.IntRange(1, zones).Draw(t, "zone")),
		})
	}
	return rapid.Permutation(all).Draw(t, "order")
}

// reached is the number of members that can be reached from the first one over
// the given neighbours.
func reached(members []Member, neighbours func(string) []string) int {
	seen := map[string]bool{members[0].Name: true}
	for todo := []string{members[0].Name}; len(todo) > 0; {
		name := todo[0]
		todo = todo[1:]
		for _, next := range neighbours(name) {
			if !seen[next] {
				seen[next] = true
				todo = append(todo, next)
			}
		}
	}
	return len(seen)
}

func TestNeighbours(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		members := genMembers(t)
		o := New(members)
		for _, m := range members {
			names, complete := o.Neighbours(m.Name)
			if complete != (len(members) <= MaxComplete) || complete && len(names) != len(members)-1 {
				t.Fatalf("%d neighbours of %d members, complete %v", len(names), len(members), complete)
			}
			if !complete && len(names) > MaxDegree || !slices.IsSorted(names) || len(slices.Compact(slices.Clone(names))) != len(names) {
				t.Fatalf("neighbours %v", names)
			}
			for _, other := range names {
				back, _ := o.Neighbours(other)
				if other == m.Name || !slices.Contains(back, m.Name) {
					t.Fatalf("%s has %s, which has %v", m.Name, other, back)
				}
			}
		}
		if got := reached(members, func(n string) []string { names, _ := o.Neighbours(n); return names }); got != len(members) {
			t.Fatalf("%d of %d reached", got, len(members))
		}
	})
}

// A ring of everybody connects everybody: no ring may have a hole or a member
// twice. On the zoned ones a zone is one arc.
func TestEachRingHasEverybody(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		members := genMembers(t)
		o := New(members)
		want := make([]string, 0, len(members))
		zones := make(map[string]bool)
		for _, m := range members {
			want = append(want, m.Name)
			zones[m.Zone] = true
		}
		slices.Sort(want)
		for i, ring := range o.rings {
			var got []string
			borders := 0
			for j, p := range ring {
				got = append(got, p.name)
				if o.zones[p.name] != o.zones[ring[(j+1)%len(ring)].name] {
					borders++
				}
			}
			slices.Sort(got)
			if !slices.Equal(got, want) {
				t.Fatalf("ring %d holds %v", i, got)
			}
			if i < zonedRings && len(zones) > 1 && borders != len(zones) {
				t.Fatalf("ring %d has %d borders of %d zones", i, borders, len(zones))
			}
		}
	})
}

// However members came and went, the overlay is that of those who are there.
func TestIncremental(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := New(nil)
		model := make(map[string]string)
		for range rapid.IntRange(1, 80).Draw(t, "steps") {
			name := fmt.Sprint("n", rapid.IntRange(1, 25).Draw(t, "name"))
			zone, there := model[name]
			if rapid.IntRange(0, 3).Draw(t, "step") == 0 {
				delete(model, name)
				if o.Remove(name) != there {
					t.Fatal("removal not reported")
				}
				continue
			}
			m := Member{name, fmt.Sprint("z", rapid.IntRange(1, 3).Draw(t, "zone"))}
			model[name] = m.Zone
			if o.Add(m) != (!there || zone != m.Zone) {
				t.Fatal("addition not reported")
			}
		}
		var members []Member
		for name, zone := range model {
			members = append(members, Member{name, zone})
		}
		want := New(members)
		if o.Len() != len(members) {
			t.Fatalf("%d members", o.Len())
		}
		for i := range o.rings {
			if !slices.Equal(o.rings[i], want.rings[i]) {
				t.Fatalf("ring %d is %v, want %v", i, o.rings[i], want.rings[i])
			}
		}
	})
}

// One join or departure concerns no more than the 8 who stand next to it.
func TestChurnIsLocal(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		members := genMembers(t)
		for i := range MaxComplete {
			members = append(members, Member{fmt.Sprint("more-", i), "z1"})
		}
		o := New(members)
		before := make(map[string][]string)
		for _, m := range members {
			before[m.Name], _ = o.Neighbours(m.Name)
		}
		o.Add(Member{"joiner", rapid.SampledFrom([]string{"z1", "z2", "new"}).Draw(t, "zone")})
		changed := 0
		for name, names := range before {
			if now, _ := o.Neighbours(name); !slices.Equal(names, now) {
				changed++
			}
		}
		if changed == 0 || changed > MaxDegree {
			t.Fatalf("%d of %d members have other neighbours", changed, len(members))
		}
		o.Remove("joiner")
		for name, names := range before {
			if now, _ := o.Neighbours(name); !slices.Equal(names, now) {
				t.Fatalf("%s has %v after join and departure, had %v", name, now, names)
			}
		}
	})
}

func TestPartner(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		members := genMembers(t)
		o := New(members)
		self := members[0].Name
		drawn := make(map[string]int)
		for i := range 2 * (len(members) - 1) {
			drawn[o.Partner(self, uint64(i))]++
		}
		for _, m := range members[1:] {
			if drawn[m.Name] != 2 {
				t.Fatalf("%s was drawn %d times", m.Name, drawn[m.Name])
			}
		}
		if drawn[self] > 0 || len(members) == 1 && o.Partner(self, 7) != "" {
			t.Fatal("drawn itself")
		}
		if !o.Has(o.Partner("stranger", 1<<63)) {
			t.Fatal("a stranger's partner is no member")
		}
	})
	if got := New(nil).Partner("a", 1); got != "" {
		t.Fatalf("partner %q of nobody", got)
	}
	if names, complete := New(nil).Neighbours("a"); names != nil || complete {
		t.Fatal("a stranger has neighbours")
	}
}

func big(n int) (members []Member) {
	for i := range n {
		members = append(members, Member{fmt.Sprintf("node-%05d", i), fmt.Sprint("z", i%3)})
	}
	return members
}

func TestDegreeOfALargeOverlay(t *testing.T) {
	const n = 10_000
	members := big(n)
	o := New(members)
	links, within := 0, 0
	for _, m := range members {
		names, _ := o.Neighbours(m.Name)
		links += len(names)
		for _, other := range names {
			if o.zones[other] == m.Zone {
				within++
			}
		}
	}
	if mean := float64(links) / n; mean < 7.9 {
		t.Errorf("mean degree %.2f", mean)
	}
	if part := float64(within) / float64(links); part < 0.6 || part > 0.75 { // 1/2 + 1/2 · 1/3
		t.Errorf("%.2f of the links stay within a zone", part)
	}
}

func BenchmarkNeighbours(b *testing.B) {
	members := big(10_000)
	o := New(members)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		o.Neighbours(members[i%len(members)].Name)
	}
}

func BenchmarkAddRemove(b *testing.B) {
	o := New(big(10_000))
	b.ReportAllocs()
	for b.Loop() {
		o.Add(Member{"joiner", "z1"})
		o.Remove("joiner")
	}
}
