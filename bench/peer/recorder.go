package peer

import (
	"hash/maphash"
	"strings"
	"sync"
	"time"
)

// A Recorder notes when a key was first seen by one node's watch. It must cost the
// system under measurement as little as it can: what it holds has no pointers for the
// garbage collector to follow, and does not grow in bursts.
type Recorder struct {
	seed maphash.Seed

	mu    sync.Mutex         // protects the fields below
	seen  map[uint64]arrival // by the hash of the key; two of 300,000 keys are one in 400 million runs
	names [][]byte           // the keys, in chunks
	under map[string]*tally  // what was seen, by each part of a key that ends with a slash
}

// arrival is a key by its place in names, and when it came.
type arrival struct {
	chunk, from, to uint32
	at              int64
}

// tally is the keys of one prefix.
type tally struct {
	count int
	last  int64
}

const chunkBytes = 64 << 10 // no key is longer

// NewRecorder has seen nothing, and has room for so many keys. A map that grows does
// so in bursts, which the nodes of one machine would have at the same time.
func NewRecorder(keys int) *Recorder {
	r := &Recorder{seed: maphash.MakeSeed()}
	r.clear(keys)
	return r
}

func (r *Recorder) clear(keys int) {
	r.seen, r.names, r.under = make(map[uint64]arrival, keys), nil, make(map[string]*tally)
}

// See notes that key is there now. Only the first time counts.
func (r *Recorder) See(key string) {
	now := time.Now().UnixNano()
	h := maphash.String(r.seed, key)
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.seen[h]; !ok {
		r.note(h, key, now)
	}
}

// note adds a key. The harness asks again and again how many there are, which must
// cost the system under measurement nothing.
func (r *Recorder) note(h uint64, key string, at int64) {
	last := len(r.names) - 1
	if last < 0 || len(r.names[last])+len(key) > chunkBytes {
		r.names = append(r.names, make([]byte, 0, chunkBytes))
		last++
	}
	from := len(r.names[last])
	r.names[last] = append(r.names[last], key...)
	r.seen[h] = arrival{uint32(last), uint32(from), uint32(from + len(key)), at}
	for i := 0; i < len(key); i++ {
		if key[i] != '/' {
			continue
		}
		t := r.under[key[:i+1]]
		if t == nil {
			t = new(tally)
			r.under[strings.Clone(key[:i+1])] = t // not a part of what the system holds
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

// each calls f with all keys that begin with the prefix, or do not.
func (r *Recorder) each(prefix string, begin bool, f func(key string, at int64)) {
	for _, a := range r.seen {
		key := r.names[a.chunk][a.from:a.to]
		if (len(key) >= len(prefix) && string(key[:len(prefix)]) == prefix) == begin {
			f(string(key), a.at)
		}
	}
}

// Arrivals are the keys with the prefix and when they came.
func (r *Recorder) Arrivals(prefix string) map[string]int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make(map[string]int64)
	r.each(prefix, true, func(key string, at int64) { out[key] = at })
	return out
}

// Forget drops the keys with the prefix, so that later figures of memory are not
// of this recorder.
func (r *Recorder) Forget(prefix string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	kept := make(map[string]int64)
	r.each(prefix, false, func(key string, at int64) { kept[key] = at })
	r.clear(0)
	for key, at := range kept {
		r.note(maphash.String(r.seed, key), key, at)
	}
}
