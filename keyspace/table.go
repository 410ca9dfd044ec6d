package keyspace

import (
	"hash/maphash"
	"math/bits"
	"sync/atomic"

	"github.com/meshkv/meshkv/crdt"
)

// A table maps a key to one cell that has that key. Lookups take no lock and
// may run while the owner changes the table; changes come from one goroutine at
// a time. It is open addressing with linear probing over slots of 16 bytes, so
// that a lookup touches one line of slots, the cell, and the key's bytes beside
// it: at a million keys the time goes into cache and TLB misses, and a general
// concurrent map has two more of them (its bucket's entry, and its own key).
//
// A slot, once taken by a hash, keeps it until the table is rebuilt: deleting
// stores nil, and inserting a key of the same hash reuses the slot. A rebuild
// fills a new array, some slots with each change, and publishes it when it holds
// everything: until then readers know nothing of it. Readers of the old one see
// the cells as they were.
//
// Cells stand in the order of their hashes, but for those that found their place
// taken. So a rebuild, which goes through the old array from its start, fills the
// new one from its start too, about at 2*at while it is doubled: every change
// touches the next few pages of it. In any other order the first hundreds of
// changes would touch all of its pages, and have the kernel clear megabytes at
// once.
type table struct {
	seed  maphash.Seed
	slots atomic.Pointer[[]tableSlot]
	used  int // slots with a hash, of the current array
	live  int // slots with a cell
	next  *rebuilding
}

// rebuilding is an array that is to take the place of the current one. It holds
// the cells of the slots of that one below at.
type rebuilding struct {
	slots []tableSlot
	used  int
	at    int
}

type tableSlot struct {
	hash atomic.Uint64 // 0: the slot was never taken
	cell atomic.Pointer[crdt.Cell]
}

const (
	minTableSlots = 64 // a power of two
	rebuildStep   = 16 // slots copied with one change, a divisor of minTableSlots
)

func newTable() *table {
	t := &table{seed: maphash.MakeSeed()}
	slots := make([]tableSlot, minTableSlots)
	t.slots.Store(&slots)
	return t
}

func (t *table) hashOf(key string) uint64 {
	return maphash.String(t.seed, key) | 1 // never 0
}

// placeOf is the slot of n, a power of two, from which on a hash is searched for:
// the first bits of it.
func placeOf(h uint64, n int) uint64 {
	place, _ := bits.Mul64(h, uint64(n))
	return place
}

// Load is the cell of key, or nil. Safe for concurrent use.
func (t *table) Load(key string) *crdt.Cell {
	h := t.hashOf(key)
	slots := *t.slots.Load()
	mask := uint64(len(slots) - 1)
	for i := placeOf(h, len(slots)); ; i = (i + 1) & mask {
		switch slots[i].hash.Load() {
		case 0:
			return nil
		case h:
			// Two keys of one hash have two slots, so the key decides.
			if c := slots[i].cell.Load(); c != nil && c.Key == key {
				return c
			}
		}
	}
}

// find is the slot that holds key, or -1, and the slot to put it into.
func (t *table) find(slots []tableSlot, h uint64, key string) (at, free int) {
	mask := uint64(len(slots) - 1)
	free = -1
	for i := placeOf(h, len(slots)); ; i = (i + 1) & mask {
		switch slots[i].hash.Load() {
		case 0:
			if free < 0 {
				free = int(i)
			}
			return -1, free
		case h:
			c := slots[i].cell.Load()
			if c != nil && c.Key == key {
				return int(i), int(i)
			}
			if c == nil && free < 0 {
				free = int(i)
			}
		}
	}
}

// Store makes c the cell of its key.
func (t *table) Store(c *crdt.Cell) {
	h := t.hashOf(c.Key)
	slots := *t.slots.Load()
	i, free := t.find(slots, h, c.Key)
	if i >= 0 {
		slots[i].cell.Store(c)
	} else {
		i = free
		t.live++
		if fill(&slots[i], h, c) {
			t.used++
		}
	}
	if n := t.next; n != nil && i < n.at {
		at, free := t.find(n.slots, h, c.Key)
		if at >= 0 {
			n.slots[at].cell.Store(c)
		} else if fill(&n.slots[free], h, c) {
			n.used++
		}
	}
	t.step()
}

// fill puts c into a slot without a cell, and reports whether the slot was never
// taken before.
func fill(s *tableSlot, h uint64, c *crdt.Cell) (fresh bool) {
	fresh = s.hash.Load() == 0
	s.cell.Store(c) // before the hash, by which readers find it
	if fresh {
		s.hash.Store(h)
	}
	return fresh
}

// Delete takes key out.
func (t *table) Delete(key string) {
	h := t.hashOf(key)
	slots := *t.slots.Load()
	i, _ := t.find(slots, h, key)
	if i < 0 {
		return
	}
	slots[i].cell.Store(nil)
	t.live--
	if n := t.next; n != nil && i < n.at {
		if at, _ := t.find(n.slots, h, key); at >= 0 {
			n.slots[at].cell.Store(nil)
		}
	}
	t.step()
}

// step goes on with a rebuild, or begins one when 11/16 of the slots are taken. It
// ends a sixteenth of them later: no slot is searched for in more than 3/4.
func (t *table) step() {
	slots := *t.slots.Load()
	if t.next == nil {
		if t.used*16 <= len(slots)*11 {
			return
		}
		// At most half full when it is published, whatever is added until then.
		size := minTableSlots
		for size < 2*(t.live+len(slots)/rebuildStep+1) {
			size *= 2
		}
		t.next = &rebuilding{slots: make([]tableSlot, size)}
	}
	n := t.next
	mask := uint64(len(n.slots) - 1)
	for i := range rebuildStep {
		s := &slots[n.at+i]
		c := s.cell.Load()
		if c == nil {
			continue
		}
		h := s.hash.Load()
		j := placeOf(h, len(n.slots))
		for n.slots[j].hash.Load() != 0 {
			j = (j + 1) & mask
		}
		fill(&n.slots[j], h, c)
		n.used++
	}
	if n.at += rebuildStep; n.at == len(slots) {
		t.used, t.next = n.used, nil
		t.slots.Store(&n.slots)
	}
}
