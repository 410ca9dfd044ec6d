package client

import (
	"context"
	"fmt"
	"strings"
)

// An EventSet is what a watch is to report of changes. The zero one is all of it.
type EventSet uint8

// What changes are: a new state of a key, or one of the reasons why it went. The reason of
// a delete may not be known, where a snapshot showed that something was missed: such a one
// is reported by those that want deletions or failures of owners.
const (
	OnPut EventSet = 1 << iota
	OnDeleted
	OnExpired
	OnOwnerFailed
)

// eventSetNames are the names of the sets of one, by bit.
var eventSetNames = [...]string{"put", string(ReasonDeleted), string(ReasonExpired), string(ReasonOwnerFailed)}

// ParseEventSet reads names with commas between them: put, deleted, expired, owner-failed.
// The empty text is the zero set. ErrBadRequest otherwise.
func ParseEventSet(s string) (EventSet, error) {
	var set EventSet
	if s == "" {
		return 0, nil
	}
next:
	for name := range strings.SplitSeq(s, ",") {
		for i, known := range eventSetNames {
			if name == known {
				set |= 1 << i
				continue next
			}
		}
		return 0, fmt.Errorf("%w: %q is no kind of event: give some of %s", ErrBadRequest, name, strings.Join(eventSetNames[:], ","))
	}
	return set, nil
}

// kind is what ev is, or may be.
func kind(ev *Event) EventSet {
	if ev.Type == EventPut {
		return OnPut
	}
	switch ev.Reason {
	case ReasonDeleted:
		return OnDeleted
	case ReasonExpired:
		return OnExpired
	case ReasonOwnerFailed:
		return OnOwnerFailed
	}
	return OnDeleted | OnOwnerFailed
}

// Filter leaves out of w what o does not want: for those who implement Keyspace. It gives
// back w if o wants everything.
func Filter(w Watch, o *WatchOptions) Watch {
	if o == nil || o.Only == 0 && !o.NotMine {
		return w
	}
	return &filteredWatch{Watch: w, only: o.Only, notMine: o.NotMine}
}

// errNotMineStrong refuses NotMine where nobody knows through which node a change came.
var errNotMineStrong = fmt.Errorf("%w: a watch without the node's own changes; compare the origin of the entries", ErrNeedsEventual)

// A filteredWatch holds one event of a transaction back, until it is known whether another one of
// it is to be shown: the last that is carries its cursor.
type filteredWatch struct {
	Watch
	only    EventSet
	notMine bool
	held    *Event // of a transaction that goes on
	last    *Event // to be returned next
}

func (f *filteredWatch) wants(ev *Event) bool {
	return (f.only == 0 || f.only&kind(ev) != 0) && !(f.notMine && ev.Mine)
}

// Next implements Watch.
func (f *filteredWatch) Next(ctx context.Context) (Event, error) {
	for {
		if last := f.last; last != nil {
			f.last = nil
			return *last, nil
		}
		ev, err := f.Watch.Next(ctx)
		if err != nil {
			return Event{}, err
		}
		if ev.Type != EventPut && ev.Type != EventDelete {
			if ev.Type == EventResync {
				f.held = nil // the rest of the transaction was missed
			}
			return ev, nil
		}
		if v := ev.Entry.Version; f.notMine && v.Inc == 0 && !v.IsZero() {
			return Event{}, errNotMineStrong
		}
		wanted, held := f.wants(&ev), f.held
		switch {
		case ev.More && wanted:
			if f.held = &ev; held != nil {
				return *held, nil
			}
		case ev.More:
		case held == nil && wanted:
			return ev, nil
		case held == nil:
		case wanted:
			f.held, f.last = nil, &ev
			return *held, nil
		default:
			f.held = nil
			held.More, held.Cursor = false, ev.Cursor
			return *held, nil
		}
	}
}
