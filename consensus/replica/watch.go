package replica

import (
	"context"
	"errors"
	"strings"

	"github.com/meshkv/meshkv/consensus/machine"
)

// ErrWatchClosed: the watcher was closed, or its replica was.
var ErrWatchClosed = errors.New("watch is closed")

// eventsAtOnce is how many changes a watcher looks at before it comes back.
const eventsAtOnce = 1024

// A Watcher follows the keys under a prefix. It has no queue: it is a place in the history,
// so that a slow one costs nothing and loses nothing, but for what is compacted.
// Next is called by one goroutine at a time.
type Watcher struct {
	s      *state
	prefix string
	wake   chan struct{} // of capacity 1
	closed chan struct{}

	next machine.Revision // the first that was not looked at; Next owns it

	// The first revision with a change for this watcher that it was not told of; 0: none.
	// From next up to it there is none. state.mu protects them.
	pending machine.Revision
	ended   bool
}

// Watch follows the changes under prefix of the revision from and later. That revision may
// be one that is still to come, but only the next one. It fails with machine.ErrCompacted
// and machine.ErrFutureRevision.
func (r *Replica) Watch(prefix string, from machine.Revision) (*Watcher, error) {
	s := r.state
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.machine.View().Status()
	switch {
	case from > st.Revision+1:
		return nil, machine.ErrFutureRevision
	case from < st.Compacted:
		return nil, machine.ErrCompacted
	}
	w := &Watcher{s: s, prefix: prefix, wake: make(chan struct{}, 1), closed: make(chan struct{}), next: from, pending: from}
	w.begin()
	w.signal()
	return w, nil
}

// WatchState is the state under prefix and a watcher of all that changes afterwards.
func (r *Replica) WatchState(prefix string) (*machine.View, *Watcher) {
	s := r.state
	s.mu.Lock()
	defer s.mu.Unlock()
	view := s.machine.View()
	w := &Watcher{s: s, prefix: prefix, wake: make(chan struct{}, 1), closed: make(chan struct{}), next: view.Status().Revision + 1}
	w.begin()
	return view, w
}

// begin makes w hear of changes, or nothing if the replica is closed. The caller holds state.mu.
func (w *Watcher) begin() {
	if w.s.hub.add(w); w.s.closed {
		w.endLocked()
	}
}

// noticed: a change of that revision concerns w; 0: anything may. The caller holds state.mu.
func (w *Watcher) noticed(rev machine.Revision) {
	if rev == 0 {
		w.pending = 1 // Next begins no earlier than where it is
	} else if w.pending == 0 {
		w.pending = rev
	}
}

func (w *Watcher) signal() {
	select {
	case w.wake <- struct{}{}:
	default: // it is awake
	}
}

// Next is the changes under the prefix of one revision or several, all of each, in order.
// It fails with machine.ErrCompacted if history was dropped that w had not come to,
// ErrWatchClosed, or the cause of ctx.
func (w *Watcher) Next(ctx context.Context) ([]*machine.Change, error) {
	for {
		view, from := w.work()
		if view != nil {
			changes, err := w.look(view, from)
			if len(changes) > 0 || err != nil {
				return changes, err
			}
			continue
		}
		select {
		case <-w.wake:
		case <-w.closed:
			return nil, ErrWatchClosed
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// work is the state to look at, from which revision on; nil if there is nothing new.
func (w *Watcher) work() (*machine.View, machine.Revision) {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	if w.pending == 0 || w.ended {
		return nil, 0
	}
	from := max(w.next, w.pending)
	w.pending = 0
	return w.s.machine.View(), from
}

// look returns what concerns w of the next eventsAtOnce changes. If there are more in
// view, they stay pending.
func (w *Watcher) look(view *machine.View, from machine.Revision) (found []*machine.Change, err error) {
	changes, err := view.Events(from, eventsAtOnce)
	if err != nil {
		return nil, err
	}
	for _, c := range changes {
		if strings.HasPrefix(c.Key(), w.prefix) {
			found = append(found, c)
		}
	}
	w.next = max(from, view.Status().Revision+1)
	if n := len(changes); n >= eventsAtOnce {
		w.next = changes[n-1].Revision + 1
		w.s.mu.Lock()
		w.pending = w.next // what was noticed meanwhile is later
		w.s.mu.Unlock()
	}
	return found, nil
}

// Progress is the revision up to which everything was returned: good to resume after.
func (w *Watcher) Progress() machine.Revision { return w.next - 1 }

// Close ends the watcher. It may be called twice, and during Next.
func (w *Watcher) Close() {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	w.endLocked()
}

// endLocked is Close. The caller holds state.mu.
func (w *Watcher) endLocked() {
	if !w.ended {
		w.ended = true
		w.s.hub.remove(w)
		close(w.closed)
	}
}
