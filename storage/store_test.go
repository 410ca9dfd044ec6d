package storage_test

import (
	"context"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/meshkv/meshkv/crdt"
	"github.com/meshkv/meshkv/storage"
	"github.com/meshkv/meshkv/storage/storagetest"
)

func TestMain(m *testing.M) {
	flag.Parse()
	if dir := os.Getenv("MESHKV_STORAGE_CRASH_DIR"); dir != "" {
		crashChild(dir)
		return
	}
	os.Exit(m.Run())
}

func TestMemory(t *testing.T) {
	storagetest.Run(t, storagetest.Case{Open: func(*testing.T) storage.Store { return storage.OpenMemory() }})
}

func TestDisk(t *testing.T) {
	for name, o := range map[string]*storage.Options{
		"log only":        {CheckpointIdle: -1},
		"all checkpoints": {CheckpointBytes: 1, CheckpointIdle: time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			storagetest.Run(t, storagetest.Case{
				Open: func(t *testing.T) storage.Store { return mustOpen(t, fastDir(t), o) },
				Reopen: func(t *testing.T, s storage.Store) storage.Store {
					dir := s.Stats().Path
					if err := s.Close(); err != nil {
						t.Fatal(err)
					}
					return mustOpen(t, dir, o)
				},
			})
		})
	}
}

// newDir is a new directory within t's, for each of many draws of one test.
func newDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp(t.TempDir(), "store")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// fastDir is a new directory in memory where there is one, for tests that make
// very many commits and in which nothing depends on an fsync.
func fastDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "meshkv-storage")
	if err != nil {
		return newDir(t)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func mustOpen(t *testing.T, dir string, o *storage.Options) storage.Store {
	t.Helper()
	s, err := storage.Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func mustLoad(t *testing.T, s storage.Store) storage.State {
	t.Helper()
	st, err := s.Load(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func TestLockedDirectory(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir, nil)
	defer s.Close()
	_, err := storage.Open(dir, nil)
	if !errors.Is(err, storage.ErrLocked) || !strings.Contains(err.Error(), dir) {
		t.Fatalf("got %v, want ErrLocked that names %s", err, dir)
	}
	if _, err := storage.Discard(dir); !errors.Is(err, storage.ErrLocked) {
		t.Fatalf("discard: got %v, want ErrLocked", err)
	}
}

func TestUnusableDirectory(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := storage.Open(file, nil); err == nil {
		t.Fatal("opened a file as a directory")
	}
}

func TestDiscardKeepsEverything(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir, nil)
	id := mustLoad(t, s).NodeID
	put(t, s, 1)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for n, want := range []string{"damaged-1", "damaged-2"} {
		to, err := storage.Discard(dir)
		if err != nil || filepath.Base(to) != want {
			t.Fatalf("discard %d: got %s, %v", n, to, err)
		}
		s = mustOpen(t, dir, nil)
		if st := mustLoad(t, s); len(st.Keyspaces) != 0 || st.NodeID == id {
			t.Fatalf("got %+v, want a new store", st)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	s = mustOpen(t, filepath.Join(dir, "damaged-1"), nil)
	defer s.Close()
	if st := mustLoad(t, s); len(st.Keyspaces["ks"].Cells) != 1 || st.NodeID != id {
		t.Fatalf("got %+v, want what was moved", st)
	}
}

// put commits cell seq, which replaces the one before.
func put(t *testing.T, s storage.Store, seq uint64) {
	t.Helper()
	if err := s.Commit(context.Background(), overwrite(seq)); err != nil {
		t.Fatal(err)
	}
}

// overwrite is the batch with which key k gets its value number seq.
func overwrite(seq uint64) storage.Batch {
	kb := storage.KeyspaceBatch{
		Name:  "ks",
		Put:   []*crdt.Cell{storagetest.Cell(1, seq, "k", "some value of the cell")},
		Clock: []storage.ClockEntry{{Inc: 1, Entry: crdt.Entry{Prefix: seq}}},
	}
	if seq > 1 {
		kb.Drop = []crdt.Dot{{Inc: 1, Seq: seq - 1}}
	}
	return storage.Batch{HLCBound: crdt.HLC(seq), Keyspaces: []storage.KeyspaceBatch{kb}}
}

// checkOverwritten verifies that the state is that after overwrite(seq).
func checkOverwritten(st storage.State, seq uint64) error {
	m := storagetest.NewModel()
	for n := uint64(1); n <= seq; n++ {
		m.Apply(overwrite(n))
	}
	return m.Check(st)
}

func waitCheckpoints(t *testing.T, s storage.Store, n uint64) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); s.Stats().Checkpoints < n; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("no checkpoint: %+v", s.Stats())
		}
	}
}

func TestLogIsBounded(t *testing.T) {
	const bytes = 64 << 10
	s := mustOpen(t, fastDir(t), &storage.Options{CheckpointBytes: 8 << 10, MaxLogBytes: bytes, CheckpointIdle: -1})
	defer s.Close()
	mustLoad(t, s)
	for seq := uint64(1); seq <= 3000; seq++ {
		put(t, s, seq)
		if got, limit := s.Stats().LogBytes, int64(bytes+1<<10); got > limit {
			t.Fatalf("log of %d bytes, at most %d", got, limit)
		}
	}
	if s.Stats().Checkpoints == 0 {
		t.Fatal("no checkpoint")
	}
	if err := checkOverwritten(mustLoad(t, s), 3000); err != nil {
		t.Fatal(err)
	}
}
