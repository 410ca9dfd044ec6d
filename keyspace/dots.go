package keyspace

import (
	"slices"

	"github.com/meshkv/meshkv/crdt"
)

const (
	pageDots   = 512           // sequence numbers in one page
	sparsePage = pageDots / 16 // a page with fewer live cells is kept as a list
)

// A dotIndex finds live cells by dot. An incarnation issues its dots in order, so
// they are kept in pages by sequence number: the newest page is in the cache,
// where a hash map would touch a random place for every new dot. A page that has
// become almost empty is kept as a list, so that old dots cost what a map's do.
// Not safe for concurrent use.
type dotIndex struct {
	incs map[crdt.Inc]map[uint64]*dotPage // by seq / pageDots
	// The page used last for adding: as a rule the next dot is in it, too.
	lastInc  crdt.Inc
	lastNum  uint64
	lastPage *dotPage
}

// A dotPage holds the live cells of pageDots dots: all of them by place, or the
// few that are left as a list in no order.
type dotPage struct {
	dense  *[pageDots]*crdt.Cell // nil: see sparse
	sparse []*crdt.Cell
	live   int
}

func newDotIndex() *dotIndex { return &dotIndex{incs: make(map[crdt.Inc]map[uint64]*dotPage)} }

func (x *dotIndex) page(d crdt.Dot) *dotPage {
	num := d.Seq / pageDots
	if x.lastPage != nil && x.lastInc == d.Inc && x.lastNum == num {
		return x.lastPage
	}
	return x.incs[d.Inc][num]
}

// get is the live cell with that dot, or nil.
func (x *dotIndex) get(d crdt.Dot) *crdt.Cell {
	p := x.page(d)
	if p == nil {
		return nil
	}
	if p.dense != nil {
		return p.dense[d.Seq%pageDots]
	}
	if i := p.indexOf(d); i >= 0 {
		return p.sparse[i]
	}
	return nil
}

func (p *dotPage) indexOf(d crdt.Dot) int {
	return slices.IndexFunc(p.sparse, func(c *crdt.Cell) bool { return c.Dot == d })
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
	if p.dense == nil && len(p.sparse) < sparsePage {
		p.sparse = append(p.sparse, c)
		return
	}
	if p.dense == nil {
		p.dense = new([pageDots]*crdt.Cell)
		for _, o := range p.sparse {
			p.dense[o.Dot.Seq%pageDots] = o
		}
		p.sparse = nil
	}
	p.dense[c.Dot.Seq%pageDots] = c
}

// remove makes c unfindable; it must be findable.
func (x *dotIndex) remove(c *crdt.Cell) {
	p := x.page(c.Dot)
	p.live--
	switch {
	case p.live == 0:
		x.drop(c.Dot)
	case p.dense == nil:
		i := p.indexOf(c.Dot)
		last := len(p.sparse) - 1
		p.sparse[i], p.sparse[last] = p.sparse[last], nil
		p.sparse = p.sparse[:last]
	default:
		p.dense[c.Dot.Seq%pageDots] = nil
		if p.live < sparsePage/2 && p != x.lastPage {
			p.sparse = make([]*crdt.Cell, 0, p.live)
			for _, o := range p.dense {
				if o != nil {
					p.sparse = append(p.sparse, o)
				}
			}
			p.dense = nil
		}
	}
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
