package peer

import (
	"strings"
	"sync"
	"time"
)

// A Recorder notes when a key was first seen by one node's watch.
type Recorder struct {
	mu    sync.Mutex // protects the fields below
	seen  map[string]int64
	under map[string]*tally // what was seen, by each part of a key that ends with a slash
}

// tally is the keys of one prefix.
type tally struct {
	count int
	last  int64
}

// NewRecorder has seen nothing, and has room for so many keys. A map that grows does
// so in bursts, which the nodes of one machine would have at the same time.
func NewRecorder(keys int) *Recorder {
	return &Recorder{seen: make(map[string]int64, keys), under: make(map[string]*tally)}
}

// See notes that key is there now. Only the first time counts.
func (r *Recorder) See(key string) {
	now := time.Now().UnixNano()
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.seen[key]; !ok {
		r.note(key, now)
	}
}

// note adds a key. The harness asks again and again how many there are, which must
// cost the system under measurement nothing.
func (r *Recorder) note(key string, at int64) {
	r.seen[key] = at
	for i := 0; i < len(key); i++ {
		if key[i] != '/' {
			continue
		}
		t := r.under[key[:i+1]]
		if t == nil {
			t = new(tally)
			r.under[key[:i+1]] = t
		}
		t.count++
		t.last = max(t.last, at)
	}
}

// Count is the number of keys with the prefix, which ends with a slash, and when the
// last of them came.
func (r *Recorder) Count(prefix string) (n int, last int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if t := r.under[prefix]; t != nil {
		return t.count, t.last
	}
	return 0, 0
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
	old := r.seen
	r.seen, r.under = make(map[string]int64), make(map[string]*tally)
	for key, at := range old {
		if !strings.HasPrefix(key, prefix) {
			r.note(key, at)
		}
	}
}
