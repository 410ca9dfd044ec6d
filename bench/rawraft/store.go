package main

import (
	"encoding/gob"
	"fmt"
	"io"
	"maps"
	"sync"

	"github.com/hashicorp/raft"
)

// A store is the state machine: the last value of each key. A command is the length
// of the key (1 byte), the key and the value.
type store struct {
	mu     sync.RWMutex
	values map[string][]byte // guarded by mu; the slices are never changed
}

func command(key, value []byte) []byte {
	b := make([]byte, 0, 1+len(key)+len(value))
	return append(append(append(b, byte(len(key))), key...), value...)
}

// Apply implements raft.FSM.
func (s *store) Apply(l *raft.Log) any {
	n := 1 + int(l.Data[0])
	s.mu.Lock()
	defer s.mu.Unlock()
	s.values[string(l.Data[1:n])] = l.Data[n:]
	return nil
}

func (s *store) get(key []byte) ([]byte, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	v, ok := s.values[string(key)]
	return v, ok
}

// Snapshot implements raft.FSM.
func (s *store) Snapshot() (raft.FSMSnapshot, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return snapshot(maps.Clone(s.values)), nil
}

// Restore implements raft.FSM.
func (s *store) Restore(r io.ReadCloser) error {
	defer r.Close()
	var values map[string][]byte
	if err := gob.NewDecoder(r).Decode(&values); err != nil {
		return fmt.Errorf("read snapshot: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.values = values
	return nil
}

type snapshot map[string][]byte

// Persist implements raft.FSMSnapshot.
func (s snapshot) Persist(sink raft.SnapshotSink) error {
	if err := gob.NewEncoder(sink).Encode(map[string][]byte(s)); err != nil {
		sink.Cancel()
		return err
	}
	return sink.Close()
}

// Release implements raft.FSMSnapshot.
func (snapshot) Release() {}
