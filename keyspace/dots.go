package keyspace

import (
	"math/bits"
	"slices"

	"github.com/meshkv/meshkv/crdt"
)

const (
	pageDots  = 512 // sequence numbers in one page
	minPlaces = 16  // of a page, below which empty ones do not matter
)

// A dotIndex finds live cells by dot. An incarnation issues its dots in order, so
// they are kept in pages by sequence number: the newest page is in the cache,
// where a hash map would touch a random place for every new dot. A page has room
// for about twice the cells that live at most, so that old pages, of which few cells are
// left, cost little. Not safe for concurrent use.
type dotIndex struct {
	incs map[crdt.Inc]map[uint64]*dotPage // by seq / pageDots
	// The page used last for adding: as a rule the next dot is in it, too.
	lastInc  crdt.Inc
	lastNum  uint64
	lastPage *dotPage
}

// A dotPage has a place for each dot in mask, in their order. A cell that goes
// leaves its place empty, until half of them are.
type dotPage struct {
	mask  [pageDots / 64]uint64
	cells []*crdt.Cell // nil: removed
	live  int
}

func newDotIndex() *dotIndex { return &dotIndex{incs: make(map[crdt.Inc]map[uint64]*dotPage)} }

func (x *dotIndex) page(d crdt.Dot) *dotPage {
	num := d.Seq / pageDots
	if x.lastPage != nil && x.lastInc == d.Inc && x.lastNum == num {
		return x.lastPage
	}
	return x.incs[d.Inc][num]
}

// place is where the dot of seq is, or where it would be put.
func (p *dotPage) place(seq uint64) (i int, has bool) {
	bit := seq % pageDots
	word, rest := bit/64, bit%64
	for _, w := range p.mask[:word] {
		i += bits.OnesCount64(w)
	}
	w := p.mask[word]
	return i + bits.OnesCount64(w&(1<<rest-1)), w>>rest&1 != 0
}

// get is the live cell with that dot, or nil.
func (x *dotIndex) get(d crdt.Dot) *crdt.Cell {
	p := x.page(d)
	if p == nil {
		return nil
	}
	if i, has := p.place(d.Seq); has {
		return p.cells[i]
	}
	return nil
}

// add makes c findable; its dot must not be.
func (x *dotIndex) add(c *crdt.Cell) {
	p := x.page(c.Dot)
	if p == nil {
		pages := x.incs[c.Dot.Inc]
		if pages == nil {
			pages = make(map[uint64]*dotPage)
			x.incs[c.Dot.Inc] = pages
		}
		p = &dotPage{}
		pages[c.Dot.Seq/pageDots] = p
	}
	x.lastInc, x.lastNum, x.lastPage = c.Dot.Inc, c.Dot.Seq/pageDots, p
	p.live++
	i, has := p.place(c.Dot.Seq)
	if has {
		p.cells[i] = c
		return
	}
	p.set(c.Dot.Seq)
	p.cells = slices.Insert(p.cells, i, c)
}

func (p *dotPage) set(seq uint64) {
	bit := seq % pageDots
	p.mask[bit/64] |= 1 << (bit % 64)
}

// remove makes c unfindable; it must be findable.
func (x *dotIndex) remove(c *crdt.Cell) {
	p := x.page(c.Dot)
	p.live--
	i, _ := p.place(c.Dot.Seq)
	p.cells[i] = nil
	switch {
	case p.live == 0:
		x.drop(c.Dot)
	case len(p.cells) >= minPlaces && 2*p.live < len(p.cells):
		p.compact()
	}
}

// compact gives up the empty places.
func (p *dotPage) compact() {
	cells := make([]*crdt.Cell, 0, p.live)
	p.mask = [pageDots / 64]uint64{}
	for _, c := range p.cells {
		if c != nil {
			cells = append(cells, c)
			p.set(c.Dot.Seq)
		}
	}
	p.cells = cells
}

func (x *dotIndex) drop(d crdt.Dot) {
	num := d.Seq / pageDots
	if x.lastInc == d.Inc && x.lastNum == num {
		x.lastPage = nil
	}
	pages := x.incs[d.Inc]
	delete(pages, num)
	if len(pages) == 0 {
		delete(x.incs, d.Inc)
	}
}
