//go:build linux

package main

import (
	"fmt"
	"maps"
	"slices"
	"sync"
)

// An outcome is how an operation ended for its client.
type outcome int

const (
	ok      outcome = iota // applied
	failed                 // definitely not applied
	unknown                // either
)

// A final is the state in which one side of the partition left a key.
type final struct {
	kind  finalKind
	value string // of a put
}

type finalKind int

const (
	kept    finalKind = iota // the side did nothing: it still has what was there before the partition
	put                      // the side's last operation was a put
	deleted                  // the side's last operation was a delete
)

// A keyHistory is what the clients did to one key. Before the partition every
// node had seen base; in the partition each side worked in one causal chain
// (each operation at a node that had seen the one before), not seeing the
// other side.
type keyHistory struct {
	base    string          // "" if there was none
	sides   [2][]final      // the possible states; none: kept
	written map[string]bool // every value that was ever tried
	sees    [2]bool         // the side may have seen what the other did
}

func (k *keyHistory) possible(side int) []final {
	if len(k.sides[side]) == 0 {
		return []final{{kind: kept}}
	}
	return k.sides[side]
}

// apply notes one operation of a side and how it ended.
func (k *keyHistory) apply(side int, f final, o outcome) {
	if f.kind == put {
		k.written[f.value] = true
	}
	switch o {
	case ok:
		k.sides[side] = []final{f}
	case unknown:
		k.sides[side] = append(k.possible(side), f)
	}
}

// allowed returns the values that every node may show once both sides have
// met, and whether the key may be absent. A put or delete replaces what its
// side had seen and nothing else, so a side's last put survives whatever the
// other side did, unless that has seen and deleted it, and base survives if
// neither side touched the key. (A put that saw the other's replaces it, and
// is a value itself.)
func (k *keyHistory) allowed() (values map[string]bool, absent bool) {
	values = map[string]bool{}
	for _, a := range k.possible(0) {
		for _, b := range k.possible(1) {
			survivors := 0
			for side, f := range []final{a, b} {
				if f.kind != put {
					continue
				}
				values[f.value] = true
				other := [2]final{b, a}[side]
				if other.kind != deleted || !k.sees[1-side] {
					survivors++
				}
			}
			if a.kind == kept && b.kind == kept && k.base != "" {
				values[k.base] = true
				survivors++
			}
			if survivors == 0 {
				absent = true
			}
		}
	}
	return values, absent
}

// A history is everything that the clients did. Safe for concurrent use.
type history struct {
	mu   sync.Mutex // protects the fields below
	keys map[string]*keyHistory
	sees [2]bool // of keys: a side may see what the other does
}

func newHistory() *history { return &history{keys: map[string]*keyHistory{}} }

func (h *history) key(key string) *keyHistory {
	k := h.keys[key]
	if k == nil {
		k = &keyHistory{written: map[string]bool{}, sees: h.sees}
		h.keys[key] = k
	}
	return k
}

// before notes a key that every node has seen before the partition.
func (h *history) before(key, value string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	k := h.key(key)
	k.base = value
	k.written[value] = true
}

// apply notes one operation in the partition.
func (h *history) apply(side int, key string, f final, o outcome) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.key(key).apply(side, f, o)
}

// A mix counts the keys by what the sides did, so that a run shows what it has
// tried.
type mix struct {
	Untouched  int // by both sides
	OneSided   int // touched by one side only
	Removed    int // of these: there before, and gone in the end
	BothPut    int // two values survive
	PutDeleted int // put on one side and deleted on the other: the put survives
	BothGone   int // deleted on both
	Uncertain  int // with an unknown outcome
}

func (h *history) mix() mix {
	h.mu.Lock()
	defer h.mu.Unlock()
	var m mix
	for _, k := range h.keys {
		a, b := k.possible(0), k.possible(1)
		if len(a) > 1 || len(b) > 1 {
			m.Uncertain++
			continue
		}
		x, y := min(a[0].kind, b[0].kind), max(a[0].kind, b[0].kind)
		switch {
		case y == kept:
			m.Untouched++
		case x == kept:
			m.OneSided++
			if y == deleted && k.base != "" {
				m.Removed++
			}
		case x == put && y == put:
			m.BothPut++
		case x == put:
			m.PutDeleted++
		default:
			m.BothGone++
		}
	}
	return m
}

// An anomaly is one key that no node may show like this.
type anomaly struct {
	Kind string // "lost", "resurrected" or "invented"
	Key  string
	Got  string
	Why  string
}

func (a anomaly) String() string {
	return fmt.Sprintf("%s: key %s shows %q, %s", a.Kind, a.Key, a.Got, a.Why)
}

// check compares the keys that a node shows in the end with the history.
func (h *history) check(shown map[string]string) []anomaly {
	h.mu.Lock()
	defer h.mu.Unlock()
	var found []anomaly
	for _, key := range slices.Sorted(maps.Keys(h.keys)) {
		k := h.keys[key]
		values, absent := k.allowed()
		got, present := shown[key]
		why := fmt.Sprintf("allowed are %q, absent: %v", slices.Sorted(maps.Keys(values)), absent)
		switch {
		case present && values[got], !present && absent:
		case !present:
			found = append(found, anomaly{"lost", key, "", why})
		case k.written[got]:
			// A value that was replaced or deleted is back, or (the same
			// thing seen from the other side) its successor is lost.
			found = append(found, anomaly{"resurrected", key, got, why})
		default:
			found = append(found, anomaly{"invented", key, got, why})
		}
	}
	for _, key := range slices.Sorted(maps.Keys(shown)) {
		if h.keys[key] == nil {
			found = append(found, anomaly{"invented", key, shown[key], "nobody wrote that key"})
		}
	}
	return found
}
