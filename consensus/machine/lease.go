package machine

import "slices"

// A Lease is what keys, claims to locks and allocations can be bound to; they end with
// it. A client's session is a lease. How long it has to live is known to the leader,
// who hears the keep-alives and proposes Expire and Checkpoint. It must not be modified.
type Lease struct {
	ID  LeaseID
	TTL uint64 // milliseconds, MinTTL to MaxTTL
	// Left is what a leader that takes over gives the lease to live, in milliseconds up to
	// TTL. 0: its TTL.
	Left uint64
}

// An attachment binds a live key to a lease.
type attachment struct {
	lease LeaseID
	key   string
}

func (a attachment) less(b attachment) bool {
	return a.lease < b.lease || a.lease == b.lease && a.key < b.key
}

// lease is the lease with this id, or nil.
func (s *state) lease(id LeaseID) *Lease {
	l, _ := s.leases.Get(&Lease{ID: id})
	return l
}

// Lease is the lease with this id, or nil.
func (v *View) Lease(id LeaseID) *Lease { return v.s.lease(id) }

// Leases yields all leases by ascending id until yield says false.
func (v *View) Leases(yield func(*Lease) bool) { v.s.leases.Scan(yield) }

// Attached are the keys that end with a lease, ascending.
func (v *View) Attached(id LeaseID) []string { return v.s.attachedTo(id) }

func (s *state) attachedTo(id LeaseID) (keys []string) {
	s.attached.Ascend(attachment{lease: id}, func(a attachment) bool {
		if a.lease == id {
			keys = append(keys, a.key)
		}
		return a.lease == id
	})
	return keys
}

// Grant makes a lease. It fails with ErrLeaseExists and ErrNoSpace.
type Grant struct {
	// ID is the lease's. 0 takes the index of the command, above the epoch, or the next id that is free.
	ID LeaseID
	// TTL is in milliseconds, MinTTL to MaxTTL.
	TTL uint64
}

func (*Grant) kind() kind       { return kindGrant }
func (g *Grant) write(w writer) { w.fields(2, uint64(g.ID), g.TTL) }

func (g *Grant) read(r *reader) {
	r.fields(2)
	g.ID, g.TTL = LeaseID(r.upTo(maxLeaseID)), r.upTo(MaxTTL)
	r.check(g.TTL >= MinTTL)
}

// leasesPerEpoch is more commands than are applied in an epoch.
const leasesPerEpoch = 1 << 40

// maxLeaseID keeps ids within what clients of etcd can hold: positive int64.
const maxLeaseID = 1<<63 - 1

func (g *Grant) apply(m *Machine, res *Result) {
	id := g.ID
	if id == 0 {
		// Ids that were lost with a majority, or are of a former keyspace of the name, are not given again.
		epoch := uint64(m.revision) / RevisionsPerEpoch
		for id = LeaseID((m.applied + epoch*leasesPerEpoch) & maxLeaseID); id == 0 || m.lease(id) != nil; id = (id + 1) & maxLeaseID {
			continue // as many times as there are leases in a row
		}
	}
	switch {
	case m.lease(id) != nil:
		res.Err = ErrLeaseExists
	case !m.fits(leaseCost):
		res.Err = ErrNoSpace
	default:
		m.leases.Set(&Lease{ID: id, TTL: g.TTL})
		m.bytes += leaseCost
		res.Lease = id
	}
}

// Revoke ends a lease at the wish of its client: its keys are deleted in one revision,
// its claims end and its allocations are freed. Lock delays do not apply. It fails with
// ErrLeaseNotFound.
type Revoke struct {
	ID LeaseID
}

func (*Revoke) kind() kind        { return kindRevoke }
func (rv *Revoke) write(w writer) { w.fields(1, uint64(rv.ID)) }

func (rv *Revoke) read(r *reader) {
	r.fields(1)
	rv.ID = LeaseID(r.uint())
}

func (rv *Revoke) apply(m *Machine, res *Result) {
	if m.lease(rv.ID) == nil {
		res.Err = ErrLeaseNotFound
		return
	}
	m.endLeases([]LeaseID{rv.ID}, false, res)
}

// Expire ends leases whose clients were not heard of for their TTL, 1 to MaxExpired of
// them in one revision, as Revoke does. A lock with a delay is not given to the next one
// before EndDelay. Leases that have ended already are passed over.
type Expire struct {
	IDs []LeaseID
}

func (*Expire) kind() kind { return kindExpire }

func (x *Expire) write(w writer) {
	w.ArrayLen(len(x.IDs))
	for _, id := range x.IDs {
		w.Uint(uint64(id))
	}
}

func (x *Expire) read(r *reader) {
	n := r.array(MaxExpired)
	r.check(n > 0)
	for range n {
		x.IDs = append(x.IDs, LeaseID(r.uint()))
	}
}

func (x *Expire) apply(m *Machine, res *Result) {
	ids := slices.Clone(x.IDs)
	slices.Sort(ids)
	ids = slices.DeleteFunc(slices.Compact(ids), func(id LeaseID) bool { return m.lease(id) == nil })
	m.endLeases(ids, true, res)
}

// Checkpoint sets what is left of leases, 1 to MaxExpired of them, for the next leader:
// it would otherwise give one that is silent its TTL again. Leases that have ended are
// passed over; of one that is named twice the last counts.
type Checkpoint struct {
	Leases []Left
}

// Left is what is left of a lease, in milliseconds: at most its TTL, which stands for
// all that is above. 0: it is heard of, and the next leader gives it its TTL.
type Left struct {
	ID   LeaseID
	Left uint64
}

func (*Checkpoint) kind() kind { return kindCheckpoint }

func (c *Checkpoint) write(w writer) {
	w.ArrayLen(len(c.Leases))
	for _, l := range c.Leases {
		w.fields(2, uint64(l.ID), l.Left)
	}
}

func (c *Checkpoint) read(r *reader) {
	n := r.array(MaxExpired)
	r.check(n > 0)
	for range n {
		r.fields(2)
		c.Leases = append(c.Leases, Left{ID: LeaseID(r.uint()), Left: r.upTo(MaxTTL)})
	}
}

func (c *Checkpoint) apply(m *Machine, _ *Result) {
	for _, set := range c.Leases {
		if l := m.lease(set.ID); l != nil {
			m.leases.Set(&Lease{ID: l.ID, TTL: l.TTL, Left: min(set.Left, l.TTL)})
		}
	}
}

// endLeases ends leases that exist, with all that is bound to them.
func (m *Machine) endLeases(ids []LeaseID, expired bool, res *Result) {
	b := batch{m: m}
	for _, id := range ids {
		for _, key := range m.attachedTo(id) {
			e, _ := m.live.Get(&Entry{Key: key})
			b.remove(e)
		}
		m.freeOwned(id)
		m.leases.Delete(&Lease{ID: id})
		m.bytes -= leaseCost
	}
	res.Changes = b.commit()
	m.endClaims(ids, expired, res)
}
