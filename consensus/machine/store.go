package machine

import "slices"

// A batch is the changes of one command while it runs. They show in live and past at
// once, so that the command reads what it wrote; the rest follows at commit.
type batch struct {
	m       *Machine
	changes []*Change
	growth  uint64 // of puts, as the quota counts
}

// put makes value the newest version of key. Lease must exist.
func (b *batch) put(key string, value []byte, lease LeaseID) (prev *Entry) {
	e := &Entry{Key: key, Value: value, Create: b.m.revision + 1, Mod: b.m.revision + 1, Version: 1, Lease: lease}
	if prev, _ = b.m.live.Set(e); prev != nil { // nobody else has seen e yet
		e.Create, e.Version = prev.Create, prev.Version+1
	}
	b.add(&Change{Prev: prev, Next: e, Revision: e.Mod})
	b.growth += e.cost() + changeCost
	return prev
}

// remove deletes e, which is live.
func (b *batch) remove(e *Entry) {
	b.m.live.Delete(e)
	b.add(&Change{Prev: e, Revision: b.m.revision + 1})
}

// add numbers and dates a change at once: the command may read what it put.
func (b *batch) add(c *Change) {
	c.Seq, c.Modified = b.m.seq+Seq(len(b.changes))+1, b.m.hlc.Next(b.m.wall)
	if c.Next != nil {
		c.Next.Seq, c.Next.Modified = c.Seq, c.Modified
	}
	if c.Prev != nil {
		b.m.past.Set(c)
	}
	b.changes = append(b.changes, c)
}

// undo takes all changes back.
func (b *batch) undo() {
	for _, c := range slices.Backward(b.changes) {
		if c.Prev != nil {
			b.m.past.Delete(c)
			b.m.live.Set(c.Prev)
		} else {
			b.m.live.Delete(c.Next)
		}
	}
	b.changes = nil
}

// commit makes the changes one revision and returns them.
func (b *batch) commit() []*Change {
	m := b.m
	if len(b.changes) == 0 {
		return nil
	}
	m.revision++
	m.hlc = m.hlc.Next(m.wall)
	m.seq += Seq(len(b.changes))
	for _, c := range b.changes {
		m.log.Set(c)
		m.bytes += c.cost()
		m.history += c.historic()
		if c.Prev != nil && c.Prev.Lease != 0 {
			m.attached.Delete(attachment{c.Prev.Lease, c.Prev.Key})
		}
		if c.Next != nil && c.Next.Lease != 0 {
			m.attached.Set(attachment{c.Next.Lease, c.Next.Key})
		}
	}
	return b.changes
}

// cost is what c adds to the quota's count. Its previous entry counts until the
// change is compacted away.
func (c *Change) cost() uint64 {
	if c.Next == nil {
		return changeCost
	}
	return changeCost + c.Next.cost()
}

// historic is what compacting c away gives back.
func (c *Change) historic() uint64 {
	if c.Prev == nil {
		return changeCost
	}
	return changeCost + c.Prev.cost()
}

// at is the version of key at revision rev, or nil. rev must be within the history.
func (s *state) at(key string, rev Revision) *Entry {
	if e, ok := s.live.Get(&Entry{Key: key}); ok && e.Mod <= rev {
		return e
	}
	var found *Entry
	s.past.Descend(&Change{Prev: &Entry{Key: key, Mod: rev}}, func(c *Change) bool {
		if c.Prev.Key == key && c.Revision > rev {
			found = c.Prev
		}
		return false
	})
	return found
}

// scan yields the entries of sp at rev by ascending key until yield says false. rev
// must be within the history, or above the revision for what a command has written.
func (s *state) scan(sp Span, rev Revision, yield func(*Entry) bool) {
	if sp.one() {
		if e := s.at(sp.Key, rev); e != nil {
			yield(e)
		}
		return
	}
	if rev > s.revision {
		s.live.Ascend(&Entry{Key: sp.Key}, func(e *Entry) bool { return sp.before(e.Key) && yield(e) })
		return
	}
	// A key has its version at rev in one of the two trees.
	old := s.past.Iter()
	defer old.Release()
	more := old.Seek(&Change{Prev: &Entry{Key: sp.Key}})
	visible := func() *Entry { // the next one of old, which stays there
		for ; more && sp.before(old.Item().Prev.Key); more = old.Next() {
			if c := old.Item(); c.Prev.Mod <= rev && rev < c.Revision {
				return c.Prev
			}
		}
		more = false
		return nil
	}
	stopped := false
	s.live.Ascend(&Entry{Key: sp.Key}, func(e *Entry) bool {
		if !sp.before(e.Key) {
			return false
		}
		if e.Mod > rev {
			return true
		}
		for p := visible(); p != nil && p.Key < e.Key; p = visible() {
			more = old.Next()
			if !yield(p) {
				stopped = true
				return false
			}
		}
		stopped = !yield(e)
		return !stopped
	})
	for p := visible(); p != nil && !stopped; p = visible() {
		more = old.Next()
		if !yield(p) {
			return
		}
	}
}
