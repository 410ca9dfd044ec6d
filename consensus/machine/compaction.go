package machine

// Compact drops the history before Revision: what can be read and watched afterwards
// begins with it. It fails with ErrCompacted if that is done already and with
// ErrFutureRevision.
type Compact struct {
	Revision Revision
}

func (*Compact) kind() kind       { return kindCompact }
func (c *Compact) write(w writer) { w.fields(1, uint64(c.Revision)) }

func (c *Compact) read(r *reader) {
	r.fields(1)
	c.Revision = Revision(r.uint())
}

func (c *Compact) apply(m *Machine, res *Result) {
	if c.Revision <= m.compacted {
		res.Err = ErrCompacted
		return
	}
	if c.Revision > m.revision {
		res.Err = ErrFutureRevision
		return
	}
	m.compacted = c.Revision
	for {
		oldest, ok := m.log.Min()
		if !ok || oldest.Revision >= c.Revision {
			return
		}
		m.log.PopMin()
		m.bytes -= oldest.historic()
		m.history -= oldest.historic()
		if oldest.Prev != nil {
			m.past.Delete(oldest)
		}
	}
}

// SetQuota bounds live data and history, in bytes. A keyspace that holds more refuses
// growth until deletes and compaction have made room. Results that are kept for
// requests have bounds of their own and do not count.
type SetQuota struct {
	Bytes uint64
}

func (*SetQuota) kind() kind       { return kindSetQuota }
func (q *SetQuota) write(w writer) { w.fields(1, q.Bytes) }

func (q *SetQuota) read(r *reader) {
	r.fields(1)
	q.Bytes = r.uint()
}

func (q *SetQuota) apply(m *Machine, _ *Result) { m.quota = q.Bytes }

// fits reports whether the quota has room for growth more bytes.
func (s *state) fits(growth uint64) bool {
	return s.bytes <= s.quota && growth <= s.quota-s.bytes
}
