package machine

import "cmp"

// A Mode is how a lock is claimed.
type Mode uint64

// The modes. Exclusive and Shared ones exclude each other as in a read-write lock;
// places make a semaphore. A lock is one or the other while anybody claims it.
const (
	Exclusive Mode = iota + 1
	Shared
	Place
)

// A ClaimID names a claim to a lock: a session may make several, told apart by a number
// of its choice. The same claim made again is answered with what it has come to, so that
// a client may repeat it.
type ClaimID struct {
	Session LeaseID
	Request uint64
}

// A claim is a session's wish for a lock, granted or not. It is never modified.
type claim struct {
	name string
	id   ClaimID
	mode Mode
	// places of the semaphore, 0 for other modes.
	places uint64
	// delay after an expiry, in milliseconds.
	delay uint64
	value []byte
	order uint64 // index of the command; what came first is lower
	token Token  // 0 while it waits
	// delayed: its session has expired, and it keeps others out until EndDelay.
	delayed bool
}

func (c *claim) less(d *claim) bool {
	if o := cmp.Or(cmp.Compare(c.id.Session, d.id.Session), cmp.Compare(c.name, d.name)); o != 0 {
		return o < 0
	}
	return c.id.Request < d.id.Request
}

func (c *claim) cost() uint64 { return claimCost + uint64(len(c.name)) + uint64(len(c.value)) }

// A lock sums up the claims of one name; without any there is no lock.
type lock struct {
	name            string
	places          uint64 // 0: read-write
	exclusive       bool   // held in that mode
	holders, queued uint64
}

// admits reports whether a claim may be granted beside those that hold l.
func (l *lock) admits(mode Mode) bool {
	switch mode {
	case Exclusive:
		return l.holders == 0
	case Shared:
		return !l.exclusive
	}
	return l.holders < l.places
}

// A LockEvent is an effect: something happened to a claim.
type LockEvent struct {
	Kind  LockEventKind
	Name  string
	Claim ClaimID
	Token Token
	Value []byte // of Granted and Proclaimed; not to be modified
	Delay uint64 // of Delayed: milliseconds until the leader is to propose EndDelay
}

// A LockEventKind says what happened.
type LockEventKind uint8

// What happens to claims. Lost and Delayed end one that was held, by release or with
// its session; Failed ends one that waited, which is never granted then.
const (
	Granted LockEventKind = iota + 1
	Lost
	Delayed
	DelayEnded
	Failed
	Proclaimed
)

func (c *claim) event(kind LockEventKind) LockEvent {
	ev := LockEvent{Kind: kind, Name: c.name, Claim: c.id, Token: c.token}
	switch kind {
	case Granted, Proclaimed:
		ev.Value = c.value
	case Delayed:
		ev.Delay = c.delay
	}
	return ev
}

// lockOf is the lock of a name, or nil.
func (s *state) lockOf(name string) *lock {
	l, _ := s.locks.Get(&lock{name: name})
	return l
}

// claimOf is the claim of a name and an id, or nil.
func (s *state) claimOf(name string, id ClaimID) *claim {
	c, _ := s.claims.Get(&claim{name: name, id: id})
	return c
}

// holder is the claim that holds a lock under a token, or nil. A delayed one does not.
func (s *state) holder(name string, token Token) *claim {
	c, _ := s.held.Get(&claim{name: name, token: token})
	if c == nil || c.delayed {
		return nil
	}
	return c
}

// holders yields the claims that hold a lock, or keep it by a delay, by ascending token.
func (s *state) holders(name string, yield func(*claim) bool) {
	s.held.Ascend(&claim{name: name}, func(c *claim) bool { return c.name == name && yield(c) })
}

// waiting yields the claims that wait for a lock, first come first.
func (s *state) waiting(name string, yield func(*claim) bool) {
	s.queued.Ascend(&claim{name: name}, func(c *claim) bool { return c.name == name && yield(c) })
}

func (s *state) tokenHolds(c *Compare) bool {
	var highest, equal uint64
	s.holders(c.Span.Key, func(h *claim) bool {
		if !h.delayed {
			if highest = uint64(h.token); highest == c.Number {
				equal = highest
			}
		}
		return true
	})
	if c.Relation <= NotEqual && equal != 0 {
		highest = equal
	}
	return c.Relation.holds(cmp.Compare(highest, c.Number))
}

// enqueue puts a new claim at the end of its lock's queue. The lock fits it.
func (m *Machine) enqueue(c *claim) {
	l := lock{name: c.name, places: c.places}
	if had := m.lockOf(c.name); had != nil {
		l = *had
	}
	l.queued++
	m.locks.Set(&l)
	m.queued.Set(c)
	m.claims.Set(c)
	m.bytes += c.cost()
}

// wake grants a lock to those at the head of its queue that it admits: one, or all
// readers up to the next writer, or one for each place that is free.
func (m *Machine) wake(name string, res *Result) {
	l := m.lockOf(name)
	for l != nil && l.queued > 0 {
		var first *claim
		m.waiting(name, func(c *claim) bool {
			first = c
			return false
		})
		if !l.admits(first.mode) {
			return
		}
		m.token++
		granted := *first
		granted.token = m.token
		m.queued.Delete(first)
		m.held.Set(&granted)
		m.claims.Set(&granted)
		next := *l
		next.queued--
		next.holders++
		next.exclusive = granted.mode == Exclusive
		m.locks.Set(&next)
		l = &next
		res.Locks = append(res.Locks, granted.event(Granted))
	}
}

// drop takes a claim out. Whoever can be woken by that must be woken afterwards.
func (m *Machine) drop(c *claim) {
	l := *m.lockOf(c.name)
	if c.token == 0 {
		m.queued.Delete(c)
		l.queued--
	} else {
		m.held.Delete(c)
		l.holders--
		l.exclusive = false // it had one holder, or only others
	}
	if !c.delayed {
		m.claims.Delete(c)
	}
	m.bytes -= c.cost()
	if l.holders+l.queued == 0 {
		m.locks.Delete(&l)
		return
	}
	m.locks.Set(&l)
}

// endClaims ends the claims of sessions that have ended. First those that wait, so that
// nothing is granted to a session that is gone; then those that hold; and only then the
// next ones are woken.
func (m *Machine) endClaims(ids []LeaseID, expired bool, res *Result) {
	var waited, held []*claim
	for _, id := range ids {
		m.claims.Ascend(&claim{id: ClaimID{Session: id}}, func(c *claim) bool {
			switch {
			case c.id.Session != id:
				return false
			case c.token == 0:
				waited = append(waited, c)
			default:
				held = append(held, c)
			}
			return true
		})
	}
	for _, c := range waited {
		m.drop(c)
		res.Locks = append(res.Locks, c.event(Failed))
	}
	for _, c := range held {
		if expired && c.delay > 0 {
			kept := *c
			kept.delayed = true
			m.held.Set(&kept)
			m.claims.Delete(c)
			res.Locks = append(res.Locks, c.event(Delayed))
			continue
		}
		m.drop(c)
		res.Locks = append(res.Locks, c.event(Lost))
	}
	for _, c := range append(waited, held...) {
		m.wake(c.name, res)
	}
}
