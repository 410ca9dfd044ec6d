package machine

// Acquire claims a lock for a session. The result has the token if it is held now, or
// token 0 if the claim waits: then its grant, or its failure with the session, is a
// LockEvent of a later command. It fails with ErrLeaseNotFound, ErrLocked (only with
// Try), ErrLockKind, ErrTooManyWaiters and ErrNoSpace.
//
// An election is an exclusive lock with a value: to campaign is to claim it, to resign
// to release it, and its term is the token.
type Acquire struct {
	Name  string
	Claim ClaimID
	Mode  Mode
	// Places is the size of the semaphore, at least 1, and 0 for other modes.
	Places uint64
	// Try refuses the claim with ErrLocked rather than letting it wait.
	Try bool
	// Delay keeps others out after the session expired, in milliseconds up to MaxTTL.
	// Fencing protects without one.
	Delay uint64
	// Value is what others read of the holder.
	Value []byte
}

func (*Acquire) kind() kind { return kindAcquire }

func (a *Acquire) write(w writer) {
	w.fields(8, uint64(a.Claim.Session), a.Claim.Request, uint64(a.Mode), a.Places, a.Delay)
	w.Bool(a.Try)
	w.Str(a.Name)
	w.Bin(a.Value)
}

func (a *Acquire) read(r *reader) {
	r.fields(8)
	a.Claim = ClaimID{LeaseID(r.uint()), r.uint()}
	a.Mode, a.Places, a.Delay = Mode(r.uint()), r.uint(), r.upTo(MaxTTL)
	a.Try, a.Name, a.Value = r.bool(), r.name(), r.bin(MaxValue)
	r.check(a.Mode >= Exclusive && a.Mode <= Place && (a.Mode == Place) == (a.Places > 0))
}

func (a *Acquire) apply(m *Machine, res *Result) {
	if m.lease(a.Claim.Session) == nil {
		res.Err = ErrLeaseNotFound
		return
	}
	if c := m.claimOf(a.Name, a.Claim); c != nil {
		if c.mode != a.Mode || c.places != a.Places {
			res.Err = ErrLockKind
			return
		}
		res.Token = c.token
		return
	}
	c := &claim{
		name: a.Name, id: a.Claim, mode: a.Mode, places: a.Places, delay: a.Delay, value: a.Value, order: m.applied,
	}
	if l := m.lockOf(a.Name); l != nil {
		switch {
		case l.places != a.Places:
			res.Err = ErrLockKind
		case a.Try && (l.queued > 0 || !l.admits(a.Mode)):
			res.Err = ErrLocked
		case l.queued >= MaxWaiters:
			res.Err = ErrTooManyWaiters
		}
	}
	if res.Err == nil && !m.fits(c.cost()) {
		res.Err = ErrNoSpace
	}
	if res.Err != nil {
		return
	}
	m.enqueue(c)
	m.wake(a.Name, res)
	res.Token = m.claimOf(a.Name, a.Claim).token
}

// Release gives up a lock that is held under a token, and wakes the next. It fails with
// ErrNotHeld.
type Release struct {
	Name  string
	Token Token
}

func (*Release) kind() kind { return kindRelease }

func (rl *Release) write(w writer) {
	w.fields(2, uint64(rl.Token))
	w.Str(rl.Name)
}

func (rl *Release) read(r *reader) {
	r.fields(2)
	rl.Token, rl.Name = Token(r.uint()), r.name()
}

func (rl *Release) apply(m *Machine, res *Result) {
	c := m.holder(rl.Name, rl.Token)
	if c == nil {
		res.Err = ErrNotHeld
		return
	}
	m.release(c, res)
}

func (m *Machine) release(c *claim, res *Result) {
	m.drop(c)
	kind := Lost
	if c.token == 0 {
		kind = Failed
	}
	res.Locks = append(res.Locks, c.event(kind))
	m.wake(c.name, res)
}

// Abort takes a claim back, whether it waits or has been granted meanwhile: whoever
// gives up waiting cannot know. The result has the token that it held. It fails with
// ErrNotHeld.
type Abort struct {
	Name  string
	Claim ClaimID
}

func (*Abort) kind() kind { return kindAbort }

func (a *Abort) write(w writer) {
	w.fields(3, uint64(a.Claim.Session), a.Claim.Request)
	w.Str(a.Name)
}

func (a *Abort) read(r *reader) {
	r.fields(3)
	a.Claim, a.Name = ClaimID{LeaseID(r.uint()), r.uint()}, r.name()
}

func (a *Abort) apply(m *Machine, res *Result) {
	c := m.claimOf(a.Name, a.Claim)
	if c == nil {
		res.Err = ErrNotHeld
		return
	}
	res.Token = c.token
	m.release(c, res)
}

// EndDelay ends the delay of a lock whose holder's session had expired, and wakes the
// next. It fails with ErrNotHeld.
type EndDelay struct {
	Name  string
	Token Token // of the Delayed event
}

func (*EndDelay) kind() kind { return kindEndDelay }

func (e *EndDelay) write(w writer) {
	w.fields(2, uint64(e.Token))
	w.Str(e.Name)
}

func (e *EndDelay) read(r *reader) {
	r.fields(2)
	e.Token, e.Name = Token(r.uint()), r.name()
}

func (e *EndDelay) apply(m *Machine, res *Result) {
	c, _ := m.held.Get(&claim{name: e.Name, token: e.Token})
	if c == nil || !c.delayed {
		res.Err = ErrNotHeld
		return
	}
	m.drop(c)
	res.Locks = append(res.Locks, c.event(DelayEnded))
	m.wake(e.Name, res)
}

// Proclaim changes the value of a holder, who must hold under the token. It fails with
// ErrNotHeld and ErrNoSpace.
type Proclaim struct {
	Name  string
	Token Token
	Value []byte
}

func (*Proclaim) kind() kind { return kindProclaim }

func (p *Proclaim) write(w writer) {
	w.fields(3, uint64(p.Token))
	w.Str(p.Name)
	w.Bin(p.Value)
}

func (p *Proclaim) read(r *reader) {
	r.fields(3)
	p.Token, p.Name, p.Value = Token(r.uint()), r.name(), r.bin(MaxValue)
}

func (p *Proclaim) apply(m *Machine, res *Result) {
	c := m.holder(p.Name, p.Token)
	if c == nil {
		res.Err = ErrNotHeld
		return
	}
	next := *c
	next.value = p.Value
	if next.cost() > c.cost() && !m.fits(next.cost()-c.cost()) {
		res.Err = ErrNoSpace
		return
	}
	m.held.Set(&next)
	m.claims.Set(&next)
	m.bytes += next.cost() - c.cost()
	res.Locks = append(res.Locks, next.event(Proclaimed))
}

// A Holder is who holds a lock, or waits for it with token 0.
type Holder struct {
	Claim ClaimID
	Token Token
	Mode  Mode
	Value []byte // not to be modified
	// Delay is not 0 if the session has expired and the lock is kept for so many
	// milliseconds: a new leader counts them from the beginning.
	Delay uint64
}

func (c *claim) holder() Holder {
	h := Holder{Claim: c.id, Token: c.token, Mode: c.mode, Value: c.value}
	if c.delayed {
		h.Delay = c.delay
	}
	return h
}

// Holders are those who hold a lock, or keep it by a delay, by ascending token.
func (v *View) Holders(name string) (all []Holder) {
	v.s.holders(name, func(c *claim) bool {
		all = append(all, c.holder())
		return true
	})
	return all
}

// Waiting are the first claims of the queue of a lock, at most limit.
func (v *View) Waiting(name string, limit int) (all []Holder) {
	v.s.waiting(name, func(c *claim) bool {
		if len(all) < limit {
			all = append(all, c.holder())
		}
		return len(all) < limit
	})
	return all
}

// Observe is who leads an election and has not lost its session; ok is false if nobody
// does.
func (v *View) Observe(name string) (leader Holder, ok bool) {
	v.s.holders(name, func(c *claim) bool {
		if ok = c.mode == Exclusive && !c.delayed; ok {
			leader = c.holder()
		}
		return false
	})
	return leader, ok
}

// Claim is what has become of a claim; ok is false if it has ended.
func (v *View) Claim(name string, id ClaimID) (h Holder, ok bool) {
	if c := v.s.claimOf(name, id); c != nil {
		return c.holder(), true
	}
	return Holder{}, false
}

// Delays yields the locks that are kept by a delay until yield says false.
func (v *View) Delays(yield func(name string, h Holder) bool) {
	v.s.held.Scan(func(c *claim) bool { return !c.delayed || yield(c.name, c.holder()) })
}
