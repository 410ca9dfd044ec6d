package replica

import "github.com/meshkv/meshkv/consensus/machine"

// A hub wakes those who wait for something in the machine: watchers of keys, and callers
// who wait for a lock. It holds no events: whoever is woken reads the machine. state.mu
// protects it.
type hub struct {
	prefixes map[string]map[*Watcher]struct{}
	lengths  map[int]int // how many of prefixes have that length
	locks    map[lockKey]map[chan struct{}]struct{}
	woken    map[*Watcher]struct{} // by the commands since the last flush
	changed  map[lockKey]struct{}  // likewise
}

// A lockKey is one claim to a lock, or with the zero claim all that happens to the lock.
type lockKey struct {
	name  string
	claim machine.ClaimID
}

func newHub() hub {
	return hub{
		prefixes: make(map[string]map[*Watcher]struct{}), lengths: make(map[int]int),
		locks: make(map[lockKey]map[chan struct{}]struct{}), woken: make(map[*Watcher]struct{}), changed: make(map[lockKey]struct{}),
	}
}

func (h *hub) add(w *Watcher) {
	of := h.prefixes[w.prefix]
	if of == nil {
		of = make(map[*Watcher]struct{})
		h.prefixes[w.prefix] = of
		h.lengths[len(w.prefix)]++
	}
	of[w] = struct{}{}
}

func (h *hub) remove(w *Watcher) {
	of := h.prefixes[w.prefix]
	if _, ok := of[w]; !ok {
		return
	}
	delete(of, w)
	delete(h.woken, w)
	if len(of) > 0 {
		return
	}
	delete(h.prefixes, w.prefix)
	if h.lengths[len(w.prefix)]--; h.lengths[len(w.prefix)] == 0 {
		delete(h.lengths, len(w.prefix))
	}
}

// note takes what a command did. It costs a lookup for each change and length of a
// prefix that is watched, however many watch.
func (h *hub) note(res *machine.Result) {
	for _, c := range res.Changes {
		key := c.Key()
		for n := range h.lengths {
			if n > len(key) {
				continue
			}
			for w := range h.prefixes[key[:n]] {
				w.noticed(c.Revision)
				h.woken[w] = struct{}{}
			}
		}
	}
	for i := range res.Locks {
		ev := &res.Locks[i]
		for _, key := range [...]lockKey{{name: ev.Name}, {ev.Name, ev.Claim}} {
			if len(h.locks[key]) > 0 {
				h.changed[key] = struct{}{}
			}
		}
	}
}

// flush wakes those whom note has found.
func (h *hub) flush() {
	for w := range h.woken {
		w.signal()
		delete(h.woken, w)
	}
	for key := range h.changed {
		h.wakeLock(key)
		delete(h.changed, key)
	}
}

func (h *hub) wakeLock(key lockKey) {
	for c := range h.locks[key] {
		close(c)
	}
	delete(h.locks, key)
}

// restored wakes all: anything may have changed.
func (h *hub) restored() {
	for _, of := range h.prefixes {
		for w := range of {
			w.noticed(0)
			w.signal()
		}
	}
	for key := range h.locks {
		h.wakeLock(key)
	}
}

// lockChange is closed when something has happened to key; forget it otherwise.
func (h *hub) lockChange(key lockKey) chan struct{} {
	c := make(chan struct{})
	of := h.locks[key]
	if of == nil {
		of = make(map[chan struct{}]struct{})
		h.locks[key] = of
	}
	of[c] = struct{}{}
	return c
}

func (h *hub) forget(key lockKey, c chan struct{}) {
	delete(h.locks[key], c)
	if len(h.locks[key]) == 0 {
		delete(h.locks, key)
	}
}

// end wakes all, for the last time.
func (h *hub) end() {
	for _, of := range h.prefixes {
		for w := range of {
			w.endLocked()
		}
	}
	for key := range h.locks {
		h.wakeLock(key)
	}
}
