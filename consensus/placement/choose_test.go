package placement

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func genServers(t *rapid.T) []Server {
	n := rapid.IntRange(0, 9).Draw(t, "servers")
	servers := make([]Server, n)
	for i := range servers {
		servers[i] = Server{
			Name: fmt.Sprintf("s%d", i), Disk: "d", Zone: rapid.SampledFrom([]string{"", "x", "y", "z"}).Draw(t, "zone"),
			Draining: rapid.IntRange(0, 4).Draw(t, "draining") == 0,
		}
	}
	return servers
}

func names(servers []Server) []string {
	names := make([]string, len(servers))
	for i, s := range servers {
		names[i] = s.Name
	}
	return slices.Sorted(slices.Values(names))
}

// minus are the elements of a that b lacks.
func minus(a, b []string) []string {
	return slices.DeleteFunc(slices.Clone(a), func(s string) bool { return slices.Contains(b, s) })
}

func TestChoose(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		servers, n := genServers(t), rapid.IntRange(0, 5).Draw(t, "n")
		keyspace := rapid.StringMatching("[a-c]{1,3}").Draw(t, "keyspace")
		usable := slices.DeleteFunc(slices.Clone(servers), func(s Server) bool { return s.Draining })
		chosen := Choose(keyspace, servers, n)

		if want := min(n, len(usable)); len(chosen) != want {
			t.Fatalf("%d chosen of %v, want %d", len(chosen), usable, want)
		}
		if extra := minus(names(chosen), names(usable)); len(extra) > 0 {
			t.Fatalf("chosen although draining: %v", extra)
		}
		if unique := slices.Compact(names(chosen)); len(unique) != len(chosen) {
			t.Fatalf("chosen twice: %v", chosen)
		}

		// Every zone has as many as any other, but for one more, or all that it can give.
		size, given := map[string]int{}, map[string]int{}
		for _, s := range usable {
			size[s.Zone]++
		}
		for _, s := range chosen {
			given[s.Zone]++
		}
		for zone := range size {
			for _, other := range slices.Collect(maps.Keys(given)) {
				if given[zone] < size[zone] && given[other] > given[zone]+1 {
					t.Fatalf("zone %q has %d of %d, zone %q has %d", zone, given[zone], size[zone], other, given[other])
				}
			}
		}

		shuffled := slices.Clone(servers)
		seed := rapid.Uint64().Draw(t, "seed")
		rand.New(rand.NewPCG(seed, 0)).Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		if again := Choose(keyspace, shuffled, n); !reflect.DeepEqual(again, chosen) {
			t.Fatalf("another order of servers: %v, want %v", again, chosen)
		}
	})
}

// TestChooseMovesLittle: without one server all others that were chosen still are, and only
// if it was chosen does another take its place. Read backwards, it is what happens when
// a server joins.
func TestChooseMovesLittle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		servers, n := genServers(t), rapid.IntRange(1, 5).Draw(t, "n")
		if len(servers) == 0 {
			return
		}
		gone := rapid.SampledFrom(servers).Draw(t, "gone")
		before := names(Choose("ks", servers, n))
		rest := slices.DeleteFunc(slices.Clone(servers), func(s Server) bool { return s == gone })
		after := names(Choose("ks", rest, n))
		if lost := minus(minus(before, after), []string{gone.Name}); len(lost) > 0 {
			t.Fatalf("without %v: %v, before %v: %v moved", gone, after, before, lost)
		}
		if !slices.Contains(before, gone.Name) && !slices.Equal(before, after) {
			t.Fatalf("without %v, which was not chosen: %v, before %v", gone, after, before)
		}
	})
}

// TestChooseSpreadsKeyspaces: the load is even enough over servers.
func TestChooseSpreadsKeyspaces(t *testing.T) {
	servers := make([]Server, 10)
	for i := range servers {
		servers[i] = Server{Name: fmt.Sprintf("server-%d", i), Zone: fmt.Sprintf("zone-%d", i%5)}
	}
	count := map[string]int{}
	for i := range 1000 {
		for _, s := range Choose(fmt.Sprintf("keyspace-%d", i), servers, 3) {
			count[s.Name]++
		}
	}
	for _, s := range servers {
		if c := count[s.Name]; c < 240 || c > 360 {
			t.Errorf("%s holds %d of 3000 replicas, want about 300", s.Name, c)
		}
	}
}

func TestChooseAvoids(t *testing.T) {
	servers := []Server{{Name: "a", Zone: "x"}, {Name: "b", Zone: "x"}, {Name: "c", Zone: "y"}}
	for n, want := range [][]string{{}, {"b"}, {"a", "b"}, {"a", "b", "c"}} {
		avoid := []string{"c"}
		if n == 1 {
			avoid = []string{"a", "c"}
		}
		if got := names(choose("ks", servers, n, nil, avoid)); !slices.Equal(got, want) {
			t.Errorf("%d without %v: %v, want %v", n, avoid, got, want)
		}
	}
}
