package storage

import (
	"context"
	"crypto/rand"
	"maps"
	"slices"
	"sync"

	"github.com/meshkv/meshkv/crdt"
)

// memory is the Store that forgets: for Durability "memory" and for tests.
type memory struct {
	mu        sync.Mutex // protects the fields below
	nodeID    string
	hlcBound  crdt.HLC
	keyspaces map[string]*memoryKeyspace
	loaded    bool
	closed    bool
	stats     Stats
}

type memoryKeyspace struct {
	cells   map[crdt.Dot]*crdt.Cell
	clock   *crdt.Clock
	pending map[crdt.Dot]struct{}
}

// OpenMemory is an empty store in memory.
func OpenMemory() Store {
	return &memory{nodeID: newNodeID(), keyspaces: make(map[string]*memoryKeyspace)}
}

// newNodeID is 26 random characters, 130 bits.
func newNodeID() string { return rand.Text() }

// Load implements Store.
func (m *memory) Load(ctx context.Context) (State, error) {
	if err := ctx.Err(); err != nil {
		return State{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return State{}, ErrClosed
	}
	m.loaded = true
	st := State{HLCBound: m.hlcBound, NodeID: m.nodeID, Keyspaces: make(map[string]KeyspaceState, len(m.keyspaces))}
	for name, ks := range m.keyspaces {
		st.Keyspaces[name] = KeyspaceState{
			Cells:   slices.Collect(maps.Values(ks.cells)),
			Clock:   ks.clock.Clone(),
			Pending: dotsOf(ks.pending),
		}
	}
	return st, nil
}

// Commit implements Store.
func (m *memory) Commit(ctx context.Context, b Batch) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := checkBatch(&b); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.closed:
		return ErrClosed
	case !m.loaded:
		return ErrNotLoaded
	}
	m.hlcBound = max(m.hlcBound, b.HLCBound)
	for i := range b.Keyspaces {
		ks := &b.Keyspaces[i]
		if ks.Reset {
			delete(m.keyspaces, ks.Name)
		}
		if !ks.gone() {
			m.keyspace(ks.Name).apply(ks)
		}
	}
	m.stats.Commits++
	return nil
}

func (m *memory) keyspace(name string) *memoryKeyspace {
	ks := m.keyspaces[name]
	if ks == nil {
		ks = &memoryKeyspace{
			cells:   make(map[crdt.Dot]*crdt.Cell),
			clock:   crdt.NewClock(),
			pending: make(map[crdt.Dot]struct{}),
		}
		m.keyspaces[name] = ks
	}
	return ks
}

func (ks *memoryKeyspace) apply(b *KeyspaceBatch) {
	for _, c := range b.Put {
		ks.cells[c.Dot] = c
	}
	for _, d := range b.Drop {
		delete(ks.cells, d)
	}
	for _, e := range b.Clock {
		ks.clock.Set(e.Inc, e.Entry)
	}
	for _, d := range b.PendingAdd {
		ks.pending[d] = struct{}{}
	}
	for _, d := range b.PendingDrop {
		delete(ks.pending, d)
	}
}

// Stats implements Store.
func (m *memory) Stats() Stats {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.stats
}

// Close implements Store.
func (m *memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	return nil
}

// dotsOf is the set as spans. Built in order, so that each step appends.
func dotsOf(set map[crdt.Dot]struct{}) crdt.Dots {
	var out crdt.Dots
	for _, d := range slices.SortedFunc(maps.Keys(set), crdt.Dot.Compare) {
		if n := len(out); n > 0 && out[n-1].Inc == d.Inc && out[n-1].Hi+1 == d.Seq {
			out[n-1].Hi = d.Seq
			continue
		}
		out = append(out, crdt.Span{Inc: d.Inc, Lo: d.Seq, Hi: d.Seq})
	}
	return out
}
