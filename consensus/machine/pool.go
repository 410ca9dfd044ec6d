package machine

import (
	"cmp"
	"math"
)

// A Pool is the integers from First to Last, out of which blocks are allocated. They
// are identifiers, or addresses counted from a base that the caller knows: IPv4 ones
// as they are, IPv6 ones from the beginning of their network. It must not be modified.
type Pool struct {
	Name        string
	First, Last uint64
}

func (p Pool) all() gap { return gap{p.Name, p.First, p.Last} }

// beyond is what p has and q has not, below and above it.
func (p Pool) beyond(q Pool) (parts []gap) {
	if q.First > p.Last || q.Last < p.First {
		return []gap{p.all()}
	}
	if p.First < q.First {
		parts = append(parts, gap{p.Name, p.First, q.First - 1})
	}
	if p.Last > q.Last {
		parts = append(parts, gap{p.Name, q.Last + 1, p.Last})
	}
	return parts
}

// An Allocation is a block of a pool that belongs to somebody. It must not be modified.
type Allocation struct {
	Pool        string
	First, Size uint64
	// Session ends the allocation with it. 0: it stays until it is freed.
	Session LeaseID
	// Token frees it.
	Token Token
	// Label is the caller's, at most MaxLabel bytes.
	Label string
}

// all is a's integers; they are none if they would go beyond the greatest number.
func (a *Allocation) all() gap { return gap{a.Pool, a.First, a.First + (a.Size - 1)} }

func (a *Allocation) cost() uint64 { return allocationCost + uint64(len(a.Pool)+len(a.Label)) }

func (a *Allocation) less(b *Allocation) bool {
	return cmp.Or(cmp.Compare(a.Pool, b.Pool), cmp.Compare(a.First, b.First)) < 0
}

func (a *Allocation) lessBySession(b *Allocation) bool {
	return a.Session < b.Session || a.Session == b.Session && a.less(b)
}

// A gap is integers of a pool in a row. In the tree of those that are free each is as
// long as can be.
type gap struct {
	pool        string
	first, last uint64
}

func (g gap) less(h gap) bool {
	return cmp.Or(cmp.Compare(g.pool, h.pool), cmp.Compare(g.first, h.first)) < 0
}

// poolOf is the pool of a name, or nil.
func (s *state) poolOf(name string) *Pool {
	p, _ := s.pools.Get(&Pool{Name: name})
	return p
}

// gapAround is the gap that holds all of g.
func (s *state) gapAround(g gap) (found gap, ok bool) {
	s.free.Descend(g, func(f gap) bool {
		found, ok = f, f.pool == g.pool && f.last >= g.last && g.first <= g.last
		return false
	})
	return found, ok
}

// take makes the integers of g no longer free. It reports whether they all were.
func (s *state) take(g gap) bool {
	had, ok := s.gapAround(g)
	if !ok {
		return false
	}
	s.free.Delete(had)
	if had.first < g.first {
		s.free.Set(gap{g.pool, had.first, g.first - 1})
	}
	if had.last > g.last {
		s.free.Set(gap{g.pool, g.last + 1, had.last})
	}
	return true
}

// give makes the integers of g free. None of them is.
func (s *state) give(g gap) {
	if g.first > 0 {
		if before, ok := s.gapAround(gap{g.pool, g.first - 1, g.first - 1}); ok {
			s.free.Delete(before)
			g.first = before.first
		}
	}
	if g.last < math.MaxUint64 {
		if after, ok := s.free.Get(gap{pool: g.pool, first: g.last + 1}); ok {
			s.free.Delete(after)
			g.last = after.last
		}
	}
	s.free.Set(g)
}

// find is where the lowest free block begins that has the size and alignment of a.
func (s *state) find(a *Allocate) (first uint64, ok bool) {
	align := max(a.Align, 1)
	s.free.Ascend(gap{pool: a.Pool}, func(g gap) bool {
		if g.pool != a.Pool {
			return false
		}
		first = g.first
		if over := first % align; over > 0 {
			if align-over > g.last-first {
				return true
			}
			first += align - over
		}
		ok = g.last-first >= a.Size-1
		return !ok
	})
	return first, ok
}

// DefinePool makes a pool, or changes its bounds. It fails with ErrPoolInUse if a block
// would be left outside, and with ErrNoSpace.
type DefinePool struct {
	Pool Pool
}

func (*DefinePool) kind() kind { return kindDefinePool }

func (d *DefinePool) write(w writer) {
	w.fields(3, d.Pool.First, d.Pool.Last)
	w.Str(d.Pool.Name)
}

func (d *DefinePool) read(r *reader) {
	r.fields(3)
	d.Pool.First, d.Pool.Last, d.Pool.Name = r.uint(), r.uint(), r.name()
	r.check(d.Pool.First <= d.Pool.Last)
}

func (d *DefinePool) apply(m *Machine, res *Result) {
	p := d.Pool
	had := m.poolOf(p.Name)
	if had == nil && !m.fits(poolCost) {
		res.Err = ErrNoSpace
		return
	}
	if had == nil {
		m.bytes += poolCost
		m.free.Set(p.all())
		m.pools.Set(&p)
		return
	}
	for _, cut := range had.beyond(p) {
		if _, ok := m.gapAround(cut); !ok {
			res.Err = ErrPoolInUse
			return
		}
	}
	for _, cut := range had.beyond(p) {
		m.take(cut)
	}
	for _, more := range p.beyond(*had) {
		m.give(more)
	}
	m.pools.Set(&p)
}

// RemovePool removes a pool of which nothing is allocated. It fails with
// ErrPoolNotFound and ErrPoolInUse.
type RemovePool struct {
	Name string
}

func (*RemovePool) kind() kind { return kindRemovePool }

func (rp *RemovePool) write(w writer) {
	w.fields(1)
	w.Str(rp.Name)
}

func (rp *RemovePool) read(r *reader) {
	r.fields(1)
	rp.Name = r.name()
}

func (rp *RemovePool) apply(m *Machine, res *Result) {
	p := m.poolOf(rp.Name)
	switch {
	case p == nil:
		res.Err = ErrPoolNotFound
	case !m.take(p.all()):
		res.Err = ErrPoolInUse
	default:
		m.pools.Delete(p)
		m.bytes -= poolCost
	}
}
