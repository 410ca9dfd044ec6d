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

// A dotIndex finds the refs of live cells by dot. An incarnation issues its dots in order, so
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
	mask [pageDots / 64]uint64
	refs []ref // 0: removed
	live int
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

// get is the ref of the live cell with that dot, or 0.
func (x *dotIndex) get(d crdt.Dot) ref {
	p := x.page(d)
	if p == nil {
		return 0
	}
	if i, has := p.place(d.Seq); has {
		return p.refs[i]
	}
	return 0
}

// add makes r findable; its dot must not be.
func (x *dotIndex) add(d crdt.Dot, r ref) {
	p := x.page(d)
	if p == nil {
		pages := x.incs[d.Inc]
		if pages == nil {
			pages = make(map[uint64]*dotPage)
			x.incs[d.Inc] = pages
		}
		p = &dotPage{}
		pages[d.Seq/pageDots] = p
	}
	x.lastInc, x.lastNum, x.lastPage = d.Inc, d.Seq/pageDots, p
	p.live++
	i, has := p.place(d.Seq)
	if has {
		p.refs[i] = r
		return
	}
	p.set(d.Seq)
	p.refs = slices.Insert(p.refs, i, r)
}

// move makes r the ref of d, which is findable.
func (x *dotIndex) move(d crdt.Dot, r ref) {
	p := x.page(d)
	i, _ := p.place(d.Seq)
	p.refs[i] = r
}

func (p *dotPage) set(seq uint64) {
	bit := seq % pageDots
	p.mask[bit/64] |= 1 << (bit % 64)
}

// remove makes d unfindable; it must be findable.
func (x *dotIndex) remove(d crdt.Dot) {
	p := x.page(d)
	p.live--
	i, _ := p.place(d.Seq)
	p.refs[i] = 0
	switch {
	case p.live == 0:
		x.drop(d)
	case len(p.refs) >= minPlaces && 2*p.live < len(p.refs):
		p.compact()
	}
}

// compact gives up the empty places.
func (p *dotPage) compact() {
	refs := make([]ref, 0, p.live)
	old := p.mask
	p.mask = [pageDots / 64]uint64{}
	i := 0
	for word, w := range old {
		for ; w != 0; w &= w - 1 {
			if r := p.refs[i]; r != 0 {
				refs = append(refs, r)
				p.set(uint64(64*word + bits.TrailingZeros64(w)))
			}
			i++
		}
	}
	p.refs = refs
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
