package reconcile

import (
	"github.com/cespare/xxhash/v2"

	"github.com/meshkv/meshkv/crdt"
)

// A Sum stands for a set of items: the sum of their hashes modulo 2⁶⁴, and how
// many there are. Equal sets have equal sums; unequal ones have unequal sums
// but for a chance of 2⁻⁶⁴.
type Sum struct{ Hash, Count uint64 }

func (s *Sum) add(hash uint64)    { s.Hash += hash; s.Count++ }
func (s *Sum) remove(hash uint64) { s.Hash -= hash; s.Count-- }

// Root is the sums of everything that a replica holds and knows. Replicas with
// equal roots are in sync: equal clocks imply equal pending deaths.
type Root struct{ Data, Clock Sum }

// mix is a bijection of 64 bits in which every input bit affects every output
// bit (the finalizer of SplitMix64, Steele et al. 2014).
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// keyHash is where cells of (key, path) are put. Key and path are hashed apart,
// so that no two pairs run together.
func keyHash(seed uint64, c *crdt.Cell) uint64 {
	h := mix(xxhash.Sum64String(c.Key) ^ seed)
	if c.Path != "" {
		h = mix(h + xxhash.Sum64String(c.Path))
	}
	return h
}

// DataHash is the place of a live cell in the trie and its hash. The upper half
// of the place follows from (key, path) alone, so that an overwrite changes one
// leaf; the lower half from the hash, so that many cells of one key spread, too.
// A dot names one write, so the value is not hashed.
func DataHash(seed uint64, c *crdt.Cell) (place, hash uint64) {
	return dataHash(keyHash(seed, c), c.Dot)
}

// dataHash is the DataHash of the cell of a key, by its keyHash.
func dataHash(key uint64, d crdt.Dot) (place, hash uint64) {
	hash = mix(mix(mix(key+0x9e3779b97f4a7c15)+uint64(d.Inc)) + d.Seq)
	return key&^(1<<32-1) | hash>>32, hash
}

// EntryHash is the hash of what a clock knows of one incarnation.
func EntryHash(seed uint64, inc crdt.Inc, e crdt.Entry) uint64 {
	h := mix(mix(seed+0xd1b54a32d192ed03)+uint64(inc)) + e.Prefix
	if e.Closed {
		h = ^h
	}
	if e.Sealed {
		h += 0x9e3779b97f4a7c15
	}
	h = mix(h)
	for _, iv := range e.Islands {
		h = mix(mix(h+iv.Lo) + iv.Hi)
	}
	return h
}

// ClockRoot is the sum of all entries of c. It costs a pass over the clock:
// keep a ClockSum where it is asked for often.
func ClockRoot(seed uint64, c *crdt.Clock) Sum {
	var s Sum
	for _, inc := range c.Incs() {
		s.add(EntryHash(seed, inc, c.Entry(inc)))
	}
	return s
}

// A ClockSum is the ClockRoot of a clock, kept up to date entry by entry.
type ClockSum struct {
	seed   uint64
	hashes map[crdt.Inc]uint64
	sum    Sum
}

// NewClockSum is the sum of c as it is now.
func NewClockSum(seed uint64, c *crdt.Clock) *ClockSum {
	s := &ClockSum{seed: seed, hashes: make(map[crdt.Inc]uint64, c.Len())}
	for _, inc := range c.Incs() {
		s.Update(inc, c.Entry(inc))
	}
	return s
}

// Update takes over the present entry of inc, of which the zero Entry is none.
func (s *ClockSum) Update(inc crdt.Inc, e crdt.Entry) {
	if old, ok := s.hashes[inc]; ok {
		s.sum.remove(old)
	}
	if nothing(e) {
		delete(s.hashes, inc)
		return
	}
	h := EntryHash(s.seed, inc, e)
	s.hashes[inc] = h
	s.sum.add(h)
}

// Root is the sum.
func (s *ClockSum) Root() Sum { return s.sum }

// Swap is sum with the entry now of inc in the place of was.
func (s *ClockSum) Swap(sum Sum, inc crdt.Inc, was, now crdt.Entry) Sum {
	if !nothing(was) {
		sum.remove(EntryHash(s.seed, inc, was))
	}
	if !nothing(now) {
		sum.add(EntryHash(s.seed, inc, now))
	}
	return sum
}

func nothing(e crdt.Entry) bool {
	return e.Prefix == 0 && len(e.Islands) == 0 && !e.Closed && !e.Sealed
}
