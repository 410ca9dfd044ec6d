package machine

// Allocate takes the lowest block of a pool that is free and fits. The result has its
// First and Token. It fails with ErrPoolNotFound, ErrPoolExhausted, ErrLeaseNotFound
// and ErrNoSpace.
type Allocate struct {
	Pool string
	// Size is the number of integers in a row, at least 1.
	Size uint64
	// Align demands a First that it divides; 0 and 1 demand nothing.
	Align uint64
	// Exact asks for the block that begins with At and for no other.
	Exact bool
	At    uint64
	// Session frees the block when it ends; 0 keeps it until Free.
	Session LeaseID
	// Label is kept with the block, at most MaxLabel bytes.
	Label string
}

func (*Allocate) kind() kind { return kindAllocate }

func (a *Allocate) write(w writer) {
	w.fields(7, a.Size, a.Align, a.At, uint64(a.Session))
	w.Bool(a.Exact)
	w.Str(a.Pool)
	w.Str(a.Label)
}

func (a *Allocate) read(r *reader) {
	r.fields(7)
	a.Size, a.Align, a.At, a.Session = r.uint(), r.uint(), r.uint(), LeaseID(r.uint())
	a.Exact, a.Pool, a.Label = r.bool(), r.name(), r.str(MaxLabel)
	r.check(a.Size > 0)
}

func (a *Allocate) apply(m *Machine, res *Result) {
	block := &Allocation{Pool: a.Pool, First: a.At, Size: a.Size, Session: a.Session, Label: a.Label}
	ok := !(a.Exact && a.Align > 1 && a.At%a.Align != 0)
	if !a.Exact {
		block.First, ok = m.find(a)
	}
	switch {
	case m.poolOf(a.Pool) == nil:
		res.Err = ErrPoolNotFound
	case a.Session != 0 && m.lease(a.Session) == nil:
		res.Err = ErrLeaseNotFound
	case !m.fits(block.cost()):
		res.Err = ErrNoSpace
	case !ok || !m.take(block.all()):
		res.Err = ErrPoolExhausted
	default:
		m.token++
		block.Token = m.token
		m.blocks.Set(block)
		if block.Session != 0 {
			m.owned.Set(block)
		}
		m.bytes += block.cost()
		res.First, res.Token = block.First, block.Token
	}
}

// Free gives a block back, by the token of its allocation. It fails with ErrNotHeld.
type Free struct {
	Pool  string
	First uint64
	Token Token
}

func (*Free) kind() kind { return kindFree }

func (f *Free) write(w writer) {
	w.fields(3, f.First, uint64(f.Token))
	w.Str(f.Pool)
}

func (f *Free) read(r *reader) {
	r.fields(3)
	f.First, f.Token, f.Pool = r.uint(), Token(r.uint()), r.name()
}

func (f *Free) apply(m *Machine, res *Result) {
	block, _ := m.blocks.Get(&Allocation{Pool: f.Pool, First: f.First})
	if block == nil || block.Token != f.Token {
		res.Err = ErrNotHeld
		return
	}
	m.freeBlock(block)
}

func (m *Machine) freeBlock(block *Allocation) {
	m.blocks.Delete(block)
	if block.Session != 0 {
		m.owned.Delete(block)
	}
	m.give(block.all())
	m.bytes -= block.cost()
}

// freeOwned frees the blocks of a session.
func (m *Machine) freeOwned(session LeaseID) {
	var found []*Allocation
	m.owned.Ascend(&Allocation{Session: session}, func(a *Allocation) bool {
		if a.Session == session {
			found = append(found, a)
		}
		return a.Session == session
	})
	for _, block := range found {
		m.freeBlock(block)
	}
}

// Pool is the pool of a name, or nil.
func (v *View) Pool(name string) *Pool { return v.s.poolOf(name) }

// Pools yields all pools by name until yield says false.
func (v *View) Pools(yield func(*Pool) bool) { v.s.pools.Scan(yield) }

// Allocations yields the blocks of a pool that begin at or after first, ascending,
// until yield says false.
func (v *View) Allocations(pool string, first uint64, yield func(*Allocation) bool) {
	v.s.blocks.Ascend(&Allocation{Pool: pool, First: first}, func(a *Allocation) bool { return a.Pool == pool && yield(a) })
}
