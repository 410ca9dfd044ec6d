package main

import (
	"fmt"
	"slices"
	"sync"
)

// A mark is what is known of one key, each of which is put once and deleted at most
// once, by the node that put it and after that was acknowledged.
type mark uint8

const (
	maybe   mark = iota // a put or a delete that may or may not have been made
	present             // an acknowledged put
	absent              // an acknowledged delete
)

// A history is what the clients were told. Safe for concurrent use.
type history struct {
	mu    sync.Mutex // protects keys
	keys  map[string]mark
	acked int // writes
}

func newHistory() *history { return &history{keys: make(map[string]mark)} }

// note records what became of a write.
func (h *history) note(key string, acknowledged bool, m mark) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !acknowledged {
		h.keys[key] = maybe
		return
	}
	h.acked++
	h.keys[key] = m
}

// acknowledged is the number of acknowledged writes.
func (h *history) acknowledged() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.acked
}

// judge compares what was acknowledged with what a node shows: every put is there,
// unless a delete of it may have been made, and no acknowledged delete was lost.
// Values are their keys. Anomalies are ascending by key.
func (h *history) judge(shown map[string]string) (anomalies []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for key, m := range h.keys {
		value, found := shown[key]
		switch {
		case m == present && !found:
			anomalies = append(anomalies, fmt.Sprintf("%s: acknowledged and lost", key))
		case m == absent && found:
			anomalies = append(anomalies, fmt.Sprintf("%s: its delete was acknowledged and lost", key))
		case found && value != key:
			anomalies = append(anomalies, fmt.Sprintf("%s: shows %q", key, value))
		}
	}
	for key := range shown {
		if _, known := h.keys[key]; !known {
			anomalies = append(anomalies, fmt.Sprintf("%s: nobody wrote it", key))
		}
	}
	slices.Sort(anomalies)
	return anomalies
}
