package machine

// A View is the state at one moment. It does not change, and any number of goroutines
// may read it while the Machine goes on.
type View struct {
	s state
}

// A Status is what a leader decides by.
type Status struct {
	Applied   uint64 // index of the last command
	Revision  Revision
	Compacted Revision // the oldest that can be read
	Seq       Seq
	Token     Token  // the last that was given
	Bytes     uint64 // live data and history
	History   uint64 // of these, the history
	Quota     uint64
	Keys      int
	Changes   int // in the history
}

// Status describes the state.
func (v *View) Status() Status {
	s := &v.s
	return Status{s.applied, s.revision, s.compacted, s.seq, s.token, s.bytes, s.history, s.quota, s.live.Len(), s.log.Len()}
}

// readable is the revision to read at when rev is asked for.
func (s *state) readable(rev Revision) (Revision, error) {
	switch {
	case rev == 0:
		return s.revision, nil
	case rev > s.revision:
		return 0, ErrFutureRevision
	case rev < s.compacted:
		return 0, ErrCompacted
	}
	return rev, nil
}

// Get is the newest version of key, or nil.
func (v *View) Get(key string) *Entry {
	e, _ := v.s.live.Get(&Entry{Key: key})
	return e
}

// Range reads as op says. Only the caller bounds it. It fails with ErrCompacted or
// ErrFutureRevision.
func (v *View) Range(op *Get) (OpResult, error) {
	var res OpResult
	rev, err := v.s.readable(op.Revision)
	if err != nil {
		return res, err
	}
	v.s.scan(op.Span, rev, func(e *Entry) bool { return op.take(e, &res) })
	return res, nil
}

// take puts e into res as op says and reports whether it wants more.
func (op *Get) take(e *Entry, res *OpResult) bool {
	if op.Count || op.NoEntries {
		res.Count++
	}
	if op.NoEntries {
		return true
	}
	if op.Limit > 0 && uint64(len(res.Entries)) == op.Limit {
		res.More = true
		return op.Count
	}
	if op.KeysOnly {
		bare := *e
		bare.Value = nil
		e = &bare
	}
	res.Entries = append(res.Entries, e)
	return true
}

// Events are the changes of whole revisions from the given one on, up to the revision
// with which there are at least limit. Those of one revision are in the order in which
// they were made. A revision that is still to come has none. It fails with ErrCompacted.
func (v *View) Events(from Revision, limit int) ([]*Change, error) {
	if from < v.s.compacted {
		return nil, ErrCompacted
	}
	var changes []*Change
	v.s.log.Ascend(&Change{Revision: from}, func(c *Change) bool {
		if n := len(changes); n >= max(limit, 1) && c.Revision != changes[n-1].Revision {
			return false
		}
		changes = append(changes, c)
		return true
	})
	return changes, nil
}

// Newest is the revision with which the newest history begins that has no more than the given
// changes and bytes, in whole revisions, but at least the newest least changes and the newest
// revision. It costs a look at each of these changes.
func (v *View) Newest(changes int, bytes uint64, least int) Revision {
	first, newer := v.s.compacted, 0 // newer: changes of revisions after the one that is looked at
	n, size := 0, uint64(0)
	at := v.s.revision
	v.s.log.Reverse(func(c *Change) bool {
		if c.Revision != at {
			at, newer = c.Revision, n
		}
		n++
		size += c.historic()
		if newer >= max(least, 1) && (n > changes || size > bytes) {
			first = c.Revision + 1
			return false
		}
		return true
	})
	return first
}
