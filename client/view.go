package client

import (
	"maps"
	"slices"
	"time"
)

// viewPhase is what the node's events are part of.
type viewPhase uint8

const (
	phaseLive     viewPhase = iota // changes after cursor
	phaseSnapshot                  // a snapshot that is shown as it comes
	phaseRebuild                   // a snapshot that is compared with what was shown
)

// A view turns the events of a node, over any number of connections, into the
// events of one watch without gaps. It holds the entries that it has shown, so
// that a snapshot after missed changes becomes the puts and deletes that were
// missed. A watch that began in the middle (from a cursor, or with updates only)
// has not shown everything; its first missed changes are a resync. Pure; not
// safe for concurrent use.
type view struct {
	phase  viewPhase
	cursor Cursor           // where to resume; empty unless live
	shown  map[string]Entry // what the reader has been told is there
	tracks bool             // shown is all that the reader knows
	seen   map[string]struct{}
	synced bool // the reader has been told
	first  WatchOptions
	opened bool
	// group is the beginning of a transaction whose end has not come. It is not shown
	// before, for the watch may break off in the middle and bring all of it again.
	group []Event
}

func newView(o WatchOptions) *view {
	v := &view{shown: make(map[string]Entry), first: o, cursor: o.From}
	if o.From == "" && !o.UpdatesOnly {
		v.phase, v.tracks = phaseSnapshot, !o.untracked
	}
	return v
}

// reopen returns the options of the next watch at the node and, if changes were
// missed that cannot be named, the resync to show.
func (v *view) reopen(out []Event) (WatchOptions, []Event) {
	v.group = nil
	if !v.opened {
		return v.first, out
	}
	if v.cursor != "" {
		return WatchOptions{From: v.cursor, Exact: v.first.Exact}, out
	}
	return WatchOptions{}, v.missed(out)
}

// accepted notes that the node has opened the watch: from now on changes may be
// missed.
func (v *view) accepted() { v.opened = true }

// missed prepares for a snapshot after changes that were missed.
func (v *view) missed(out []Event) []Event {
	v.cursor = ""
	if v.tracks {
		v.phase, v.seen = phaseRebuild, make(map[string]struct{})
		return out
	}
	v.phase, v.tracks, v.synced = phaseSnapshot, !v.first.untracked, false
	return append(out, Event{Type: EventResync})
}

// step appends to out what the reader is to see of one event of the node, and of those
// before it that belong to the same transaction.
func (v *view) step(ev Event, out []Event) []Event {
	switch {
	case ev.Type == EventHeartbeat:
		return out
	case ev.More:
		v.group = append(v.group, ev)
		return out
	case len(v.group) == 0:
		return v.stepOne(ev, out)
	}
	group, begin := v.group, len(out)
	v.group = nil
	if ev.Type == EventResync {
		return v.stepOne(ev, out) // the rest of the transaction was missed
	}
	for _, e := range group {
		out = v.stepOne(e, out)
	}
	out = v.stepOne(ev, out)
	if n := len(out); n > begin { // those that tell nothing new are left out, the last one may be
		out[n-1].More, out[n-1].Cursor = false, ev.Cursor
	}
	return out
}

func (v *view) stepOne(ev Event, out []Event) []Event {
	switch ev.Type {
	case EventResync:
		return v.missed(out)
	case EventSynced:
		return v.complete(ev, out)
	case EventPut, EventDelete:
		if v.phase == phaseLive {
			v.cursor = ev.Cursor
		} else {
			ev.Cursor = "" // whoever resumed there would miss the rest
		}
		if !v.tracks {
			return append(out, ev)
		}
		if ev.Type == EventPut {
			return v.put(ev, out)
		}
		return v.remove(ev, out)
	}
	return out
}

func (v *view) put(ev Event, out []Event) []Event {
	key := ev.Entry.Key
	if v.phase == phaseRebuild {
		v.seen[key] = struct{}{}
	}
	if before, ok := v.shown[key]; ok {
		if before.Version == ev.Entry.Version {
			return out
		}
		ev.Prev = &before
	} else {
		ev.Prev = nil
	}
	v.shown[key] = ev.Entry
	return append(out, ev)
}

func (v *view) remove(ev Event, out []Event) []Event {
	key := ev.Entry.Key
	before, ok := v.shown[key]
	if !ok {
		return out
	}
	ev.Prev = &before
	delete(v.shown, key)
	return append(out, ev)
}

// complete ends a snapshot. Only the last event that it causes carries the
// cursor: whoever resumed after an earlier one would miss the others.
func (v *view) complete(ev Event, out []Event) []Event {
	if v.phase == phaseRebuild {
		for _, key := range slices.Sorted(maps.Keys(v.shown)) {
			if _, ok := v.seen[key]; ok {
				continue
			}
			before := v.shown[key]
			delete(v.shown, key)
			out = append(out, Event{Type: EventDelete, Entry: Entry{Key: key}, Prev: &before, Reason: missedReason(&before)})
		}
		if n := len(out); v.synced && n > 0 && out[n-1].Type == EventDelete && out[n-1].Cursor == "" {
			out[n-1].Cursor = ev.Cursor
		}
	}
	v.phase, v.seen, v.cursor = phaseLive, nil, ev.Cursor
	if v.synced {
		return out
	}
	v.synced = true
	return append(out, ev)
}

// missedReason is why an entry went that nobody saw go. An ephemeral one may
// have been deleted or have lost its owner: that is not known.
func missedReason(e *Entry) Reason {
	switch {
	case !e.Expires.IsZero() && !e.Expires.After(time.Now()):
		return ReasonExpired
	case e.Ephemeral:
		return ""
	}
	return ReasonDeleted
}
