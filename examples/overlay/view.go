package overlay

import "github.com/meshkv/meshkv/client"

// A View is what a watch has shown of one keyspace, decoded. It performs no
// I/O. Not safe for concurrent use.
//
// While a snapshot streams in again after a gap (EventResync), the View still
// shows the former state: tearing the kernel down to build it up again would
// interrupt traffic that is fine.
type View[T any] struct {
	decode   func(client.Entry) (T, error)
	shown    map[string]T
	snapshot map[string]T // being received; nil when there is none
	bad      map[string]bool
	synced   bool
}

// NewView returns an empty View whose records are decoded by decode.
func NewView[T any](decode func(client.Entry) (T, error)) *View[T] {
	return &View[T]{decode: decode, shown: map[string]T{}, snapshot: map[string]T{}, bad: map[string]bool{}}
}

// Apply takes the next event and reports whether the shown state changed.
func (v *View[T]) Apply(ev client.Event) (changed bool) {
	into := v.snapshot
	if into == nil {
		into = v.shown
	}
	switch ev.Type {
	case client.EventPut:
		r, err := v.decode(ev.Entry)
		if err != nil {
			v.bad[ev.Entry.Key] = true
			delete(into, ev.Entry.Key)
		} else {
			delete(v.bad, ev.Entry.Key)
			into[ev.Entry.Key] = r
		}
		return v.snapshot == nil
	case client.EventDelete:
		delete(v.bad, ev.Entry.Key)
		delete(into, ev.Entry.Key)
		return v.snapshot == nil
	case client.EventResync:
		v.snapshot = map[string]T{}
		clear(v.bad)
		return false
	case client.EventSynced:
		v.synced = true
		if v.snapshot == nil {
			return false
		}
		v.shown, v.snapshot = v.snapshot, nil
		return true
	}
	return false // a heartbeat, or an event of a later version
}

// Restart expects a full snapshot: the watch was opened anew, without a
// cursor.
func (v *View[T]) Restart() {
	v.snapshot = map[string]T{}
	clear(v.bad)
}

// Synced reports whether one snapshot was complete. Until then nothing may be
// concluded from what the View does not show.
func (v *View[T]) Synced() bool { return v.synced }

// Records returns the shown records, in no order.
func (v *View[T]) Records() []T {
	records := make([]T, 0, len(v.shown))
	for _, r := range v.shown {
		records = append(records, r)
	}
	return records
}

// Ignored is the number of records that could not be decoded.
func (v *View[T]) Ignored() int { return len(v.bad) }
