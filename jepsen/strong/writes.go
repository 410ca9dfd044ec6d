package main

import (
	"fmt"
	"slices"
	"sync"
)

// A change is what one revision did to one key; an empty value is a deletion.
type change struct {
	revision   uint64
	key, value string
}

// A writes is what was written by all clients, for watches to be compared with. Safe for
// concurrent use.
type writes struct {
	mu    sync.Mutex // protects the fields below
	tries map[[2]string]bool
	done  []change
}

func newWrites() *writes { return &writes{tries: make(map[[2]string]bool)} }

// tried notes a write before it is made.
func (w *writes) tried(key, value string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tries[[2]string{key, value}] = true
}

// applied notes a write that was acknowledged.
func (w *writes) applied(c ...change) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.done = append(w.done, c...)
}

// maxShown bounds the problems of one kind that are told.
const maxShown = 5

// problems compares what one watch showed, in its order, with the writes: revisions rise,
// transactions are whole, nothing is shown twice, nothing that nobody wrote, and
// everything that was acknowledged.
func (w *writes) problems(watch string, shown []shownChange) (found []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	add := func(format string, args ...any) {
		if len(found) < maxShown {
			found = append(found, watch+": "+fmt.Sprintf(format, args...))
		}
	}
	have := make(map[change]bool)
	var last shownChange
	last.ends = true
	for _, s := range shown {
		switch {
		case last.ends && s.revision <= last.revision:
			add("revision %d after %d", s.revision, last.revision)
		case !last.ends && s.revision != last.revision:
			add("revision %d in the middle of the transaction of %d", s.revision, last.revision)
		}
		if have[s.change] {
			add("%v twice", s.change)
		}
		if !w.tries[[2]string{s.key, s.value}] {
			add("%v, which nobody wrote", s.change)
		}
		have[s.change] = true
		last = s
	}
	for _, c := range w.done {
		if !have[c] {
			add("%v was acknowledged and is not shown", c)
		}
	}
	return found
}

// A shownChange is a change as a watch showed it.
type shownChange struct {
	change
	ends bool // its transaction
}

// state is what is left after all changes, by key.
func state(shown []shownChange) map[string]string {
	keys := make(map[string]string)
	for _, s := range shown {
		if s.value == "" {
			delete(keys, s.key)
		} else {
			keys[s.key] = s.value
		}
	}
	return keys
}

// firstDifference describes where two watches part, or is empty.
func firstDifference(a, b []shownChange) string {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return fmt.Sprintf("event %d is %v and %v", i, a[i], b[i])
		}
	}
	if !slices.Equal(a, b) {
		return fmt.Sprintf("%d and %d events", len(a), len(b))
	}
	return ""
}
