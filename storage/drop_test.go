package storage_test

import (
	"context"
	"testing"

	"github.com/meshkv/meshkv/crdt"
	"github.com/meshkv/meshkv/storage"
	"github.com/meshkv/meshkv/storage/storagetest"
)

// keyspaceBatch puts cells from..to of incarnation inc into keyspace name.
func keyspaceBatch(name string, inc crdt.Inc, from, to uint64) storage.Batch {
	kb := storage.KeyspaceBatch{Name: name, Clock: []storage.ClockEntry{{Inc: inc, Entry: crdt.Entry{Prefix: to}}}}
	for seq := from; seq <= to; seq++ {
		kb.Put = append(kb.Put, storagetest.Cell(inc, seq, "k", "value"))
	}
	return storage.Batch{Keyspaces: []storage.KeyspaceBatch{kb}}
}

// A keyspace that was dropped stays dropped, and one that was begun anew under
// its name holds only what is new, wherever a checkpoint was cut short: before,
// within or after the transaction that deletes what the file has of it.
func TestDropCutShort(t *testing.T) {
	ctx := context.Background()
	dropped := storage.Batch{Keyspaces: []storage.KeyspaceBatch{{Name: "a", Reset: true}}}
	anew := keyspaceBatch("a", 1, 1, 4500) // the same dots again, and more than one transaction takes
	anew.Keyspaces[0].Reset = true
	for name, batches := range map[string][]storage.Batch{
		"dropped":          {dropped},
		"dropped, written": {dropped, keyspaceBatch("a", 1, 1, 4500)},
		"begun anew":       {anew},
		"dropped again":    {anew, dropped},
		"never there":      {{Keyspaces: []storage.KeyspaceBatch{{Name: "c", Reset: true}}}},
	} {
		for _, cuts := range []int{0, 1, 2, 3} {
			dir := fastDir(t)
			o := &storage.Options{CheckpointIdle: -1}
			s := mustOpen(t, dir, o)
			mustLoad(t, s)
			m := storagetest.NewModel()
			commit := func(b storage.Batch) {
				if err := s.Commit(ctx, b); err != nil {
					t.Fatal(err)
				}
				m.Apply(b)
			}
			reopen := func() {
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				s = mustOpen(t, dir, o)
				if err := m.Check(mustLoad(t, s)); err != nil {
					t.Fatalf("%s, cut after %d: %v", name, cuts, err)
				}
			}
			commit(keyspaceBatch("a", 1, 1, 600))
			commit(keyspaceBatch("b", 2, 1, 3))
			storage.Kick(s)
			waitCheckpoints(t, s, 1)
			for _, b := range batches {
				commit(b)
			}
			if cuts > 0 {
				storage.TryCutCheckpoint(t, s, cuts)
			}
			reopen()
			storage.Kick(s)
			waitCheckpoints(t, s, 1)
			reopen()
			commit(keyspaceBatch("a", 7, 1, 2))
			storage.Kick(s)
			waitCheckpoints(t, s, 1)
			reopen()
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// What was appended before a drop is gone, what comes after it stays.
func TestWriterDrop(t *testing.T) {
	ctx := t.Context()
	s := storage.OpenMemory()
	mustLoad(t, s)
	w := storage.NewWriter(s, nil)
	m := storagetest.NewModel()
	if err := s.Commit(ctx, keyspaceBatch("a", 1, 1, 3)); err != nil {
		t.Fatal(err)
	}
	add := func(seq uint64) {
		clock := crdt.NewClock()
		clock.Add(crdt.Span{Inc: 1, Lo: 1, Hi: seq})
		ch := crdt.Changes{Added: []*crdt.Cell{storagetest.Cell(1, seq, "k", "v")}, Clock: []crdt.Inc{1}}
		if _, err := w.Append("a", &ch, clock); err != nil {
			t.Fatal(err)
		}
	}
	add(4)
	if _, err := w.Drop("a"); err != nil {
		t.Fatal(err)
	}
	add(1)
	// Two accumulators take turns: what comes later is not dropped with it.
	done := make(chan error, 1)
	runCtx, cancel := context.WithCancel(ctx)
	go func() { done <- w.Run(runCtx) }()
	if err := w.Wait(ctx, w.Bound(1)); err != nil {
		t.Fatal(err)
	}
	for seq := uint64(2); seq <= 3; seq++ {
		add(seq)
		if err := w.Wait(ctx, w.Bound(crdt.HLC(seq))); err != nil {
			t.Fatal(err)
		}
	}
	b := keyspaceBatch("a", 1, 1, 3)
	b.HLCBound = 3
	for i := range b.Keyspaces[0].Put {
		b.Keyspaces[0].Put[i] = storagetest.Cell(1, uint64(i+1), "k", "v")
	}
	m.Apply(b)
	if err := m.Check(mustLoad(t, s)); err != nil {
		t.Fatal(err)
	}
	ticket, err := w.Drop("a")
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Wait(ctx, ticket); err != nil {
		t.Fatal(err)
	}
	m.Apply(storage.Batch{Keyspaces: []storage.KeyspaceBatch{{Name: "a", Reset: true}}})
	if err := m.Check(mustLoad(t, s)); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}
