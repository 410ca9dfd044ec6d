package peer

import (
	"strings"
	"sync"
	"time"
)

// A Recorder notes when a key was first seen by one node's watch.
type Recorder struct {
	mu   sync.Mutex // protects the fields below
	seen map[string]int64
	last int64
}

// NewRecorder has seen nothing.
func NewRecorder() *Recorder { return &Recorder{seen: make(map[string]int64)} }

// See notes that key is there now. Only the first time counts.
func (r *Recorder) See(key string) {
	now := time.Now().UnixNano()
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.seen[key]; !ok {
		r.seen[key] = now
		r.last = now
	}
}

// Count is the number of keys with the prefix, and when the last of them came.
func (r *Recorder) Count(prefix string) (n int, last int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for key, at := range r.seen {
		if strings.HasPrefix(key, prefix) {
			n++
			last = max(last, at)
		}
	}
	return n, last
}

// Arrivals are the keys with the prefix and when they came.
func (r *Recorder) Arrivals(prefix string) map[string]int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make(map[string]int64)
	for key, at := range r.seen {
		if strings.HasPrefix(key, prefix) {
			out[key] = at
		}
	}
	return out
}

// Forget drops the keys with the prefix, so that later figures of memory are not
// of this recorder.
func (r *Recorder) Forget(prefix string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	kept := make(map[string]int64)
	for key, at := range r.seen {
		if !strings.HasPrefix(key, prefix) {
			kept[key] = at
		}
	}
	r.seen = kept
}
