package keyspace

import (
	"sync/atomic"

	"github.com/meshkv/meshkv/crdt"
)

// A ref is the number of a cell in a slab, from 1; 0 is none. There are enough: so many
// cells would take a terabyte.
type ref uint32

// A slab numbers the cells of one replica, so that its indexes hold numbers of 32 bits
// and no pointers. The garbage collector, which has to follow every pointer to
// every cell, then finds one pointer to each, in about the order in which the cells
// were made, and reads nothing of the indexes. Numbers of cells that went are given
// out again; a slab does not shrink: it takes 12 bytes for each of the most cells that
// it held at a time, at most. get is safe for concurrent use, changes come from one
// goroutine at a time.
type slab struct {
	chunks atomic.Pointer[[]*slabChunk]
	last   ref   // the highest number that was ever given out
	free   []ref // those below it that hold no cell
}

// slabChunk holds the cells of slabCells numbers in a row.
type slabChunk [slabCells]atomic.Pointer[crdt.Cell]

const (
	slabShift = 8
	slabCells = 1 << slabShift
)

func newSlab() *slab {
	s := new(slab)
	s.chunks.Store(&[]*slabChunk{new(slabChunk)})
	return s
}

func (s *slab) place(r ref) *atomic.Pointer[crdt.Cell] {
	return &(*s.chunks.Load())[r>>slabShift][r%slabCells]
}

// get is the cell of that number: nil for 0, and if it went.
func (s *slab) get(r ref) *crdt.Cell { return s.place(r).Load() }

// put gives c a number.
func (s *slab) put(c *crdt.Cell) (r ref) {
	if n := len(s.free); n > 0 {
		r, s.free = s.free[n-1], s.free[:n-1]
	} else {
		s.last++
		r = s.last
		if r%slabCells == 0 {
			chunks := append(*s.chunks.Load(), new(slabChunk))
			s.chunks.Store(&chunks)
		}
	}
	s.set(r, c)
	return r
}

// set makes c the cell of a number that was given out.
func (s *slab) set(r ref, c *crdt.Cell) { s.place(r).Store(c) }

// drop takes a number back, that nothing refers to any more but readers who are late.
func (s *slab) drop(r ref) {
	s.set(r, nil)
	s.free = append(s.free, r)
}
