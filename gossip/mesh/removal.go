package mesh

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
)

// A removal says that an operator gave up a process that had failed.
type removal struct {
	name string
	inc  uint64
}

func appendRemoval(b []byte, r removal) []byte {
	b = binary.BigEndian.AppendUint64(b, r.inc)
	return append(b, r.name...)
}

// parseRemoval reads a payload of more than 8 bytes.
func parseRemoval(b []byte) removal {
	return removal{inc: binary.BigEndian.Uint64(b), name: string(b[8:])}
}

// ForceLeave removes a member that failed: it counts as left everywhere, from now on, is not dialed any more,
// and is forgotten after ReapAfter. If that very process comes back, it is a member again. A member that left or was
// forgotten is no error.
//
// The errors: ErrAlive for a member that is not failed here, and for this node itself; ErrUnknownMember;
// ErrNotRunning. If ctx ends first, the removal goes on.
//
// Serf's notice travels by gossip, and its queue may lose it: the peers are told over the links as well, and tell
// theirs.
func (m *Mesh) ForceLeave(ctx context.Context, name string) error {
	m.mu.Lock()
	s := m.serf
	if s == nil {
		m.mu.Unlock()
		return ErrNotRunning
	}
	r, err := m.roster.forceLeave(name)
	if err != nil || r == (removal{}) { // it is gone already
		m.mu.Unlock()
		if err != nil {
			err = fmt.Errorf("remove %s: %w", name, err)
		}
		return err
	}
	m.removing.Add(1) // Run has not ended: it takes serf away first
	m.mu.Unlock()
	m.count.removals.Add(1)
	m.poke()
	m.passOn(r, "")
	done := make(chan struct{})
	go func() {
		defer m.removing.Done()
		defer close(done)
		if err := s.RemoveFailedNode(name); err != nil { // the links have told it
			m.cfg.Logger.Debug("removal not broadcast", "peer", name, "err", err)
		}
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// removed takes a removal that a peer told, and passes it on if it was news.
func (m *Mesh) removed(r removal, from string) {
	m.mu.Lock()
	news := m.roster.removed(r)
	m.mu.Unlock()
	if news {
		m.cfg.Logger.Debug("member removed by an operator", "peer", r.name, "from", from)
		m.poke()
		m.passOn(r, from)
	}
}

// passOn tells all peers but one.
func (m *Mesh) passOn(r removal, except string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name, l := range m.byName {
		if name != except && name != r.name {
			l.spread(r)
		}
	}
}

// forceLeave decides whether name may be removed, and does so. A removal that is zero is not to be spread.
func (r *roster) forceLeave(name string) (removal, error) {
	if name == r.self.name {
		return removal{}, fmt.Errorf("%w: it is this node itself, which can leave", ErrAlive)
	}
	rec := r.records[name]
	if rec == nil || rec.member.Status == StatusUnknown || rec.member.Status == StatusReaped {
		if n := len(r.former); n > 0 {
			r.former = slices.DeleteFunc(r.former, func(f former) bool { return f.name == name })
			if len(r.former) < n {
				return removal{}, nil // it was forgotten and is now not even dialed
			}
		}
		return removal{}, ErrUnknownMember
	}
	switch v := r.view(rec); v.Status {
	case StatusLeft:
		return removal{}, nil
	case StatusFailed:
		rec.removed = v.Inc
		rec.gone = true
		r.show(rec)
		return removal{name: name, inc: v.Inc}, nil
	default:
		return removal{}, fmt.Errorf("%w: %s at %s", ErrAlive, v.Status, v.Addr)
	}
}

// removed takes a removal that was told and reports whether it was news about a member. It counts as soon as
// membership has found that process to have failed: what this node knows to be alive cannot be talked away.
func (r *roster) removed(told removal) bool {
	rec := r.records[told.name]
	if rec == nil || rec.gone && rec.removed >= told.inc || told.inc < rec.member.Inc {
		return false
	}
	rec.removed, rec.gone = told.inc, true
	r.show(rec)
	return true
}
