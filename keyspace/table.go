package keyspace

import (
	"hash/maphash"
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
// publishes a new array; readers of the old one see the cells as they were.
type table struct {
	seed  maphash.Seed
	slots atomic.Pointer[[]tableSlot]
	used  int // slots with a hash, of the current array
	live  int // slots with a cell
}

type tableSlot struct {
	hash atomic.Uint64 // 0: the slot was never taken
	cell atomic.Pointer[crdt.Cell]
}

const minTableSlots = 64 // a power of two

func newTable() *table {
	t := &table{seed: maphash.MakeSeed()}
	slots := make([]tableSlot, minTableSlots)
	t.slots.Store(&slots)
	return t
}

func (t *table) hashOf(key string) uint64 {
	return maphash.String(t.seed, key) | 1 // never 0
}

// Load is the cell of key, or nil. Safe for concurrent use.
func (t *table) Load(key string) *crdt.Cell {
	h := t.hashOf(key)
	slots := *t.slots.Load()
	mask := uint64(len(slots) - 1)
	for i := h >> 1 & mask; ; i = (i + 1) & mask {
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
	for i := h >> 1 & mask; ; i = (i + 1) & mask {
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
	at, free := t.find(slots, h, c.Key)
	if at >= 0 {
		slots[at].cell.Store(c)
		return
	}
	s := &slots[free]
	if s.hash.Load() == 0 {
		if (t.used+1)*4 > len(slots)*3 {
			t.rebuild()
			t.Store(c)
			return
		}
		t.used++
	}
	t.live++
	s.cell.Store(c) // before the hash, by which readers find it
	s.hash.Store(h)
}

// Delete takes key out.
func (t *table) Delete(key string) {
	slots := *t.slots.Load()
	if at, _ := t.find(slots, t.hashOf(key), key); at >= 0 {
		slots[at].cell.Store(nil)
		t.live--
	}
}

// rebuild publishes a new array with the live cells alone, at most half full.
func (t *table) rebuild() {
	size := minTableSlots
	for size < 2*(t.live+1) {
		size *= 2
	}
	old, slots := *t.slots.Load(), make([]tableSlot, size)
	mask := uint64(size - 1)
	t.used = 0
	for i := range old {
		c := old[i].cell.Load()
		if c == nil {
			continue
		}
		h := old[i].hash.Load()
		j := h >> 1 & mask
		for slots[j].hash.Load() != 0 {
			j = (j + 1) & mask
		}
		slots[j].cell.Store(c)
		slots[j].hash.Store(h)
		t.used++
	}
	t.slots.Store(&slots)
}
