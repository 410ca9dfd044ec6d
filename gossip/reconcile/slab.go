package reconcile

import (
	"slices"

	"github.com/meshkv/meshkv/crdt"
)

// A ref is the number of a cell in a slab. There are enough: so many cells would take
// a terabyte.
type ref uint32

// A slab numbers the cells of a trie, so that its items hold numbers and no pointers:
// the garbage collector has to follow each pointer, and finds one here, beside those of
// cells that were made at about the same time. Numbers of cells that went are given out
// again. A slab does not shrink: it takes 12 bytes for each of the most cells
// that it held at a time, at most. A snapshot of it is a copy of the struct without
// free, and never changed; what it shares with the slab is copied before it is changed.
type slab struct {
	chunks []slabChunk
	epoch  uint64 // at which chunks was made: of another one it is shared, up to its length
	free   []ref  // numbers that hold no cell, below last
	last   ref    // the number of numbers that were ever given out
}

type slabChunk struct {
	cells *[slabCells]*crdt.Cell
	epoch uint64 // at which cells were made: of another one they are shared
}

const slabCells = 256

func (s *slab) get(r ref) *crdt.Cell { return s.chunks[r/slabCells].cells[r%slabCells] }

// put gives c a number. A number that is new is in no snapshot, so that nothing need
// be copied.
func (s *slab) put(epoch uint64, c *crdt.Cell) (r ref) {
	if n := len(s.free); n > 0 {
		r, s.free = s.free[n-1], s.free[:n-1]
		s.set(epoch, r, c)
		return r
	}
	r = s.last
	s.last++
	if r%slabCells == 0 {
		s.chunks = append(s.chunks, slabChunk{new([slabCells]*crdt.Cell), epoch})
	}
	s.chunks[r/slabCells].cells[r%slabCells] = c
	return r
}

// set makes c the cell of a number that was given out.
func (s *slab) set(epoch uint64, r ref, c *crdt.Cell) {
	if s.epoch != epoch {
		s.epoch, s.chunks = epoch, slices.Clone(s.chunks)
	}
	chunk := &s.chunks[r/slabCells]
	if chunk.epoch != epoch {
		copied := *chunk.cells
		*chunk = slabChunk{&copied, epoch}
	}
	chunk.cells[r%slabCells] = c
}

// drop takes a number back.
func (s *slab) drop(epoch uint64, r ref) {
	s.set(epoch, r, nil)
	s.free = append(s.free, r)
}
