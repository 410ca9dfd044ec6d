package keyspace

import (
	"hash/maphash"
	"sync/atomic"

	"github.com/meshkv/meshkv/crdt"
)

// A table maps a key to the ref of the cell that a slab holds for it. Lookups take no
// lock and may run while the owner changes the table; changes come from one goroutine
// at a time. It is open addressing with linear probing over slots of 8 bytes, so
// that a lookup touches one line of slots, one of the slab, the cell, and the key's
// bytes beside it: at a million keys the time goes into cache and TLB misses, and a
// general concurrent map has more of them (its bucket's entry, and its own key).
//
// A key keeps its ref for as long as it is in the table: its cell is replaced in the
// slab. A ref that a reader has found, and that was given to another cell before it looked
// at it, is of a key that was taken out meanwhile: the slot, or the array, says so.
//
// A slot, once taken by a hash, keeps it until the table is rebuilt: deleting
// leaves the hash alone, and inserting a key of the same hash reuses the slot. A rebuild
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
	cells *slab
	slots atomic.Pointer[slotArray]
	used  int // slots with a hash, of the current array
	live  int // slots with a ref
	next  *rebuilding
}

// rebuilding is an array that is to take the place of the current one. It holds
// the cells of the slots of that one below at.
type rebuilding struct {
	slots *slotArray
	used  int
	at    int
}

// A tableSlot is 0 if it was never taken, or a hash, which is not 0, in its upper half
// and the ref of a key of that hash in the lower: none once the key was deleted.
type tableSlot struct{ atomic.Uint64 }

func (s *tableSlot) load() (hash uint32, r ref) {
	v := s.Load()
	return uint32(v >> 32), ref(v)
}

func (s *tableSlot) store(hash uint32, r ref) { s.Store(uint64(hash)<<32 | uint64(r)) }

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

func newTable(cells *slab) *table {
	t := &table{seed: maphash.MakeSeed(), cells: cells}
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
func (a *slotArray) placeOf(h uint32) uint64 { return uint64(h) * a.n >> 32 }

// after is the slot behind i.
func (a *slotArray) after(i uint64) uint64 { return (i + 1) & (a.n - 1) }

func (t *table) hashOf(key string) uint32 {
	return uint32(maphash.String(t.seed, key)>>32) | 1 // never 0
}

// Load is the cell of key, or nil. Safe for concurrent use.
func (t *table) Load(key string) *crdt.Cell {
	h := t.hashOf(key)
	slots := t.slots.Load()
	for i := slots.placeOf(h); ; i = slots.after(i) {
		switch hash, r := slots.at(i).load(); hash {
		case 0:
			return nil
		case h:
			// Two keys of one hash have two slots, so the key decides.
			c := t.cells.get(r)
			if c == nil || c.Key != key {
				continue
			}
			// Otherwise it may be another cell of the key, which came back meanwhile.
			if _, now := slots.at(i).load(); now == r && t.slots.Load() == slots {
				return c
			}
			return t.Load(key)
		}
	}
}

// Find is the ref of key, or 0.
func (t *table) Find(key string) ref {
	h := t.hashOf(key)
	slots := t.slots.Load()
	i := t.find(slots, h, key)
	if i < 0 {
		return 0
	}
	_, r := slots.at(uint64(i)).load()
	return r
}

// find is the slot of a that holds key, or -1.
func (t *table) find(a *slotArray, h uint32, key string) int {
	for i := a.placeOf(h); ; i = a.after(i) {
		switch hash, r := a.own(i).load(); hash {
		case 0:
			return -1
		case h:
			if c := t.cells.get(r); c != nil && c.Key == key {
				return int(i)
			}
		}
	}
}

// fill puts r, of a key of hash h that is not in a, into the first slot that may take
// it, and reports whether that was never taken before.
func (a *slotArray) fill(h uint32, r ref) (i int, fresh bool) {
	for i := a.placeOf(h); ; i = a.after(i) {
		s := a.own(i)
		if hash, old := s.load(); hash == 0 || hash == h && old == 0 {
			s.store(h, r)
			return int(i), hash == 0
		}
	}
}

// Insert makes r, which holds its cell already, the ref of key, which has none.
func (t *table) Insert(key string, r ref) {
	h := t.hashOf(key)
	i, fresh := t.slots.Load().fill(h, r)
	t.live++
	if fresh {
		t.used++
	}
	if n := t.next; n != nil && i < n.at {
		n.fill(h, r)
	}
	t.step()
}

// Delete takes key out, whose cell is still in the slab.
func (t *table) Delete(key string) {
	h := t.hashOf(key)
	slots := t.slots.Load()
	i := t.find(slots, h, key)
	if i < 0 {
		return
	}
	slots.own(uint64(i)).store(h, 0)
	t.live--
	if n := t.next; n != nil && i < n.at {
		if at := t.find(n.slots, h, key); at >= 0 {
			n.slots.own(uint64(at)).store(h, 0)
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
		if h, r := slots.at(uint64(n.at + i)).load(); r != 0 {
			n.fill(h, r)
		}
	}
	if n.at += rebuildStep; n.at == int(slots.n) {
		t.used, t.next = n.used, nil
		t.slots.Store(n.slots.complete())
	}
}

// fill is that of the array, and counts.
func (n *rebuilding) fill(h uint32, r ref) {
	if _, fresh := n.slots.fill(h, r); fresh {
		n.used++
	}
}
