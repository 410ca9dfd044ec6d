package overlay

import (
	"cmp"
	"slices"

	"github.com/cespare/xxhash/v2"
)

// Sizes of an overlay.
const (
	rings      = 4
	zonedRings = 2 // the first of them
	// MaxDegree is the number of neighbours that a member has at most on the rings.
	MaxDegree = 2 * rings
	// MaxComplete is the number of members up to which everybody is everybody's
	// neighbour: one hop and no forwarding cost less than the sockets (ADR 0013).
	MaxComplete = 17
)

// A Member is a node that holds the keyspace.
type Member struct{ Name, Zone string }

// place is a member on a ring. zone is 0 on rings that know no zones.
type place struct {
	zone, hash uint64
	name       string
}

func (p place) compare(other place) int {
	return cmp.Or(cmp.Compare(p.zone, other.zone), cmp.Compare(p.hash, other.hash), cmp.Compare(p.name, other.name))
}

// placeOf is where m stands on ring i. The two zoned rings differ in the order
// of the zones, too, so that each zone borders on several others.
func placeOf(m Member, i int) place {
	p := place{hash: mix(xxhash.Sum64String(m.Name), uint64(i)), name: m.Name}
	if i < zonedRings {
		p.zone = mix(xxhash.Sum64String(m.Zone), uint64(i))
	}
	return p
}

// mix is a hash of h under a key: the finalizer of SplitMix64 (Steele et al. 2014).
func mix(h, key uint64) uint64 {
	h += (key + 1) * 0x9e3779b97f4a7c15
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}

// An Overlay is the rings of a set of members. It may be read concurrently.
type Overlay struct {
	rings [rings][]place // each ascending
	zones map[string]string
}

// New is the overlay of members, in any order. Of several with one name the
// last counts.
func New(members []Member) *Overlay {
	o := &Overlay{zones: make(map[string]string, len(members))}
	for _, m := range members {
		o.zones[m.Name] = m.Zone
	}
	for i := range o.rings {
		ring := make([]place, 0, len(o.zones))
		for name, zone := range o.zones { // sorted below
			ring = append(ring, placeOf(Member{name, zone}, i))
		}
		slices.SortFunc(ring, place.compare)
		o.rings[i] = ring
	}
	return o
}

// Add makes m a member, or moves it to another zone, and reports whether that
// changed anything.
func (o *Overlay) Add(m Member) (changed bool) {
	if zone, ok := o.zones[m.Name]; ok {
		if zone == m.Zone {
			return false
		}
		o.Remove(m.Name)
	}
	o.zones[m.Name] = m.Zone
	for i := range o.rings {
		p := placeOf(m, i)
		at, _ := slices.BinarySearchFunc(o.rings[i], p, place.compare)
		o.rings[i] = slices.Insert(o.rings[i], at, p)
	}
	return true
}

// Remove takes out the member of that name, and reports whether there was one.
func (o *Overlay) Remove(name string) (changed bool) {
	if _, ok := o.zones[name]; !ok {
		return false
	}
	for i := range o.rings {
		at := o.find(name, i)
		o.rings[i] = slices.Delete(o.rings[i], at, at+1)
	}
	delete(o.zones, name)
	return true
}

// find is the index of the member of that name on ring i.
func (o *Overlay) find(name string, i int) int {
	at, _ := slices.BinarySearchFunc(o.rings[i], placeOf(Member{name, o.zones[name]}, i), place.compare)
	return at
}

// Len is the number of members.
func (o *Overlay) Len() int { return len(o.zones) }

// Has reports whether there is a member of that name.
func (o *Overlay) Has(name string) bool {
	_, ok := o.zones[name]
	return ok
}

// Neighbours are the names of the neighbours of self, ascending. complete says
// that they are all other members. If self is no member it has none.
func (o *Overlay) Neighbours(self string) (names []string, complete bool) {
	if !o.Has(self) {
		return nil, false
	}
	n := o.Len()
	if n <= MaxComplete {
		names = make([]string, 0, MaxComplete)
		for _, p := range o.rings[0] {
			if p.name != self {
				names = append(names, p.name)
			}
		}
		slices.Sort(names)
		return names, true
	}
	names = make([]string, 0, MaxDegree)
	for i, ring := range o.rings {
		at := o.find(self, i)
		names = append(names, ring[(at+n-1)%n].name, ring[(at+1)%n].name)
	}
	slices.Sort(names)
	return slices.Compact(names), false
}

// Partner is a member other than self, or "" if there is none: each equally
// often for evenly distributed draws.
func (o *Overlay) Partner(self string, draw uint64) string {
	n := uint64(o.Len())
	if !o.Has(self) {
		if n == 0 {
			return ""
		}
		return o.rings[rings-1][draw%n].name
	}
	if n == 1 {
		return ""
	}
	at := uint64(o.find(self, rings-1))
	return o.rings[rings-1][(at+1+draw%(n-1))%n].name
}
