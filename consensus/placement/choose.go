package placement

import (
	"cmp"
	"slices"

	"github.com/cespare/xxhash/v2"
)

// Choose returns the n servers that shall hold the replicas of the keyspace, or all that
// may if there are fewer, best first. Draining servers never do. No two are in one zone
// while there is a zone with none, and so on for the second and third of a zone; apart
// from that, those with the highest hash of keyspace and server win.
//
// The result depends on the set of servers only, not on their order. When one server
// leaves, the others that were chosen stay chosen, zones notwithstanding; when one joins,
// at most one of those that were chosen is replaced, and by that one. The order is that of
// (place within the zone, hash): without a server of zone Z those behind it in Z move up
// by one place, and at most one of them gets ahead of any server of another zone, which
// itself moved up by one if the server that left was ahead of it.
func Choose(keyspace string, servers []Server, n int) []Server {
	return choose(keyspace, servers, n, nil, nil)
}

// choose is Choose beside what is there already: zones counts the replicas that stay, by
// zone, and servers in avoid come last.
func choose(keyspace string, servers []Server, n int, zones map[string]int, avoid []string) []Server {
	ranked := make([]candidate, 0, len(servers))
	for _, s := range servers {
		if !s.Draining {
			ranked = append(ranked, candidate{s, rank(keyspace, s.Name), slices.Contains(avoid, s.Name)})
		}
	}
	slices.SortFunc(ranked, candidate.compare)
	taken := make(map[string]int, len(zones)+n)
	for zone, count := range zones {
		taken[zone] = count
	}
	chosen := make([]Server, 0, min(n, len(ranked)))
	for len(chosen) < n && len(ranked) > 0 {
		best := 0
		for i, c := range ranked {
			b := ranked[best]
			if c.avoided == b.avoided && taken[c.Zone] < taken[b.Zone] {
				best = i
			}
		}
		s := ranked[best].Server
		taken[s.Zone]++
		chosen = append(chosen, s)
		ranked = slices.Delete(ranked, best, best+1)
	}
	return chosen
}

// A candidate is a server that may be chosen.
type candidate struct {
	Server
	rank    uint64
	avoided bool
}

// compare orders candidates of one zone, the best first.
func (c candidate) compare(o candidate) int {
	if c.avoided != o.avoided {
		if o.avoided {
			return -1
		}
		return 1
	}
	return cmp.Or(cmp.Compare(o.rank, c.rank), cmp.Compare(c.Name, o.Name))
}

// rank is how much the server is worth to the keyspace. The disk does not count: a server
// that lost it is chosen for the same keyspaces. The separator occurs in no name.
func rank(keyspace, server string) uint64 {
	return xxhash.Sum64String(keyspace + "\x00" + server)
}
