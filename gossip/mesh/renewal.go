package mesh

import "fmt"

// identity is how this process introduces itself now.
func (m *Mesh) identity() hello {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.roster.self
}

// SetInc makes inc, which must be greater than the present one, the incarnation of this process. The links end and
// are made again under the new one, since an incarnation is said once, at the beginning of a link; to the others
// it is as if the process had started anew, in no time. Membership tells it by gossip besides, to those without a
// link.
func (m *Mesh) SetInc(inc uint64) error {
	m.mu.Lock()
	if inc <= m.roster.self.inc {
		m.mu.Unlock()
		return fmt.Errorf("%w: incarnation %016x is not later than %016x", ErrConfig, inc, m.roster.self.inc)
	}
	me := m.me
	me.Inc = inc
	meta, err := encodeTags(tagsOf(me, m.cfg.Cluster))
	if err != nil {
		m.mu.Unlock()
		return err
	}
	m.me, m.roster.self.inc = me, inc
	m.meta.Store(&meta)
	old := make([]*Link, 0, len(m.byName))
	for _, l := range m.byName {
		l.end(ErrLinkClosed) // in the same step, so that none of the former one is left when another is made
		old = append(old, l)
	}
	m.tellMembership()
	m.mu.Unlock()
	for _, l := range old {
		l.Close()
	}
	return nil
}

// tellMembership spreads the tags that SetInc made, if membership runs. mu is held.
func (m *Mesh) tellMembership() {
	s := m.serf
	if s == nil || m.meta.Load() == nil {
		return
	}
	m.removing.Add(1)
	go func() { // it waits for the broadcast, and takes memberlist's locks, under which our delegate is called
		defer m.removing.Done()
		if err := s.Memberlist().UpdateNode(broadcastTimeout); err != nil {
			m.cfg.Logger.Debug("incarnation not broadcast yet", "err", err) // push/pull brings it
		}
	}()
}
