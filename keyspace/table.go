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
// touches the next few pages of it, and its parts are made as it comes to them. To
// make or to touch all of it at once would have megabytes cleared within one
// change, and all nodes that get the same writes do so at the same time.
type table struct {
	seed  maphash.Seed
	slots atomic.Pointer[slotArray]
	used  int // slots with a hash, of the current array
	live  int // slots with a cell
	next  *rebuilding
}

// rebuilding is an array that is to take the place of the current one. It holds
// the cells of the slots of that one below at.
type rebuilding struct {
	slots *slotArray
	used  int
	at    int
}

type tableSlot struct {
	hash atomic.Uint64 // 0: the slot was never taken
	cell atomic.Pointer[crdt.Cell]
}

// A slotArray is n slots, a power of two, in parts.
type slotArray struct {
	parts [][]tableSlot // nil: not made yet
	n     uint64
}

const (
	partShift     = 12 // log2 of the slots of one part, if there are so many
	partMask      = 1<<partShift - 1
	minTableSlots = 64 // a power of two
	rebuildStep   = 16 // slots copied with one change, a divisor of minTableSlots
)

func newTable() *table {
	t := &table{seed: maphash.MakeSeed()}
	t.slots.Store(newSlotArray(minTableSlots).complete())
	return t
}

func newSlotArray(n uint64) *slotArray {
	return &slotArray{parts: make([][]tableSlot, (n+partMask)>>partShift), n: n}
}

// at is slot i of a complete array.
func (a *slotArray) at(i uint64) *tableSlot { return &a.parts[i>>partShift][i&partMask] }

// own is slot i, made now if it was not. Only for who changes the table.
func (a *slotArray) own(i uint64) *tableSlot {
	part := &a.parts[i>>partShift]
	if *part == nil {
		*part = make([]tableSlot, min(a.n, 1<<partShift))
	}
	return &(*part)[i&partMask]
}

// complete makes what was not made.
func (a *slotArray) complete() *slotArray {
	for i := uint64(0); i < a.n; i += 1 << partShift {
		a.own(i)
	}
	return a
}

// placeOf is the slot from which on a hash is searched for: the first bits of it.
func (a *slotArray) placeOf(h uint64) uint64 {
	place, _ := bits.Mul64(h, a.n)
	return place
}

// after is the slot behind i.
func (a *slotArray) after(i uint64) uint64 { return (i + 1) & (a.n - 1) }

func (t *table) hashOf(key string) uint64 {
	return maphash.String(t.seed, key) | 1 // never 0
}

// Load is the cell of key, or nil. Safe for concurrent use.
func (t *table) Load(key string) *crdt.Cell {
	h := t.hashOf(key)
	slots := t.slots.Load()
	for i := slots.placeOf(h); ; i = slots.after(i) {
		s := slots.at(i)
		switch s.hash.Load() {
		case 0:
			return nil
		case h:
			// Two keys of one hash have two slots, so the key decides.
			if c := s.cell.Load(); c != nil && c.Key == key {
				return c
			}
		}
	}
}

// find is the slot that holds key, or -1, and the slot to put it into.
func (a *slotArray) find(h uint64, key string) (at, free int) {
	free = -1
	for i := a.placeOf(h); ; i = a.after(i) {
		s := a.own(i)
		switch s.hash.Load() {
		case 0:
			if free < 0 {
				free = int(i)
			}
			return -1, free
		case h:
			c := s.cell.Load()
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
	slots := t.slots.Load()
	i, free := slots.find(h, c.Key)
	if i >= 0 {
		slots.own(uint64(i)).cell.Store(c)
	} else {
		i = free
		t.live++
		if fill(slots.own(uint64(i)), h, c) {
			t.used++
		}
	}
	if n := t.next; n != nil && i < n.at {
		at, free := n.slots.find(h, c.Key)
		if at >= 0 {
			n.slots.own(uint64(at)).cell.Store(c)
		} else if fill(n.slots.own(uint64(free)), h, c) {
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
	slots := t.slots.Load()
	i, _ := slots.find(h, key)
	if i < 0 {
		return
	}
	slots.own(uint64(i)).cell.Store(nil)
	t.live--
	if n := t.next; n != nil && i < n.at {
		if at, _ := n.slots.find(h, key); at >= 0 {
			n.slots.own(uint64(at)).cell.Store(nil)
		}
	}
	t.step()
}

// step goes on with a rebuild, or begins one when 11/16 of the slots are taken. It
// ends a sixteenth of them later: no slot is searched for in more than 3/4.
func (t *table) step() {
	slots := t.slots.Load()
	if t.next == nil {
		if t.used*16 <= int(slots.n)*11 {
			return
		}
		// At most half full when it is published, whatever is added until then.
		size := uint64(minTableSlots)
		for size < 2*(uint64(t.live)+slots.n/rebuildStep+1) {
			size *= 2
		}
		t.next = &rebuilding{slots: newSlotArray(size)}
	}
	n := t.next
	for i := range rebuildStep {
		s := slots.at(uint64(n.at + i))
		c := s.cell.Load()
		if c == nil {
			continue
		}
		h := s.hash.Load()
		j := n.slots.placeOf(h)
		for n.slots.own(j).hash.Load() != 0 {
			j = n.slots.after(j)
		}
		fill(n.slots.own(j), h, c)
		n.used++
	}
	if n.at += rebuildStep; n.at == int(slots.n) {
		t.used, t.next = n.used, nil
		t.slots.Store(n.slots.complete())
	}
}
