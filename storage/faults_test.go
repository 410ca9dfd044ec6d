package storage_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/meshkv/meshkv/storage"
)

var errInjected = errors.New("injected")

// faulty is a layer whose next write or sync fails: before it did anything, after
// half of it, or after all of it.
type faulty struct {
	storage.Files
	mu    sync.Mutex // protects the fields below
	write func(f storage.File, b []byte) (int, error)
	sync  func(f storage.File) error
}

func (f *faulty) Create(path string) (storage.File, error) {
	file, err := f.Files.Create(path)
	return faultyFile{file, f}, err
}

func (f *faulty) Open(path string) (storage.File, error) {
	file, err := f.Files.Open(path)
	return faultyFile{file, f}, err
}

type faultyFile struct {
	storage.File
	layer *faulty
}

func (f faultyFile) Write(b []byte) (int, error) {
	f.layer.mu.Lock()
	defer f.layer.mu.Unlock()
	if f.layer.write != nil {
		return f.layer.write(f.File, b)
	}
	return f.File.Write(b)
}

func (f faultyFile) Sync() error {
	f.layer.mu.Lock()
	defer f.layer.mu.Unlock()
	if f.layer.sync != nil {
		return f.layer.sync(f.File)
	}
	return f.File.Sync()
}

// syncLog notes which directories were synced, and fails at one of them.
type syncLog struct {
	storage.Files
	synced []string
	fail   string
}

func (l *syncLog) SyncDir(dir string) error {
	if dir == l.fail {
		return errInjected
	}
	l.synced = append(l.synced, dir)
	return l.Files.SyncDir(dir)
}

// The parents of new directories are synced from above, and no others.
func TestOpenSyncsParents(t *testing.T) {
	root := t.TempDir()
	a := filepath.Join(root, "a")
	dir := filepath.Join(a, "b", "c")
	layer := &syncLog{Files: storage.MachineFiles(), fail: a}
	if _, err := storage.Open(dir, &storage.Options{Files: layer}); !errors.Is(err, errInjected) {
		t.Fatalf("got %v, want the injected error", err)
	}
	if err := os.Remove(filepath.Join(a, "b")); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(a); err != nil {
		t.Fatal(err)
	}
	layer = &syncLog{Files: storage.MachineFiles()}
	s := mustOpen(t, dir, &storage.Options{Files: layer})
	if want := []string{root, a, filepath.Join(a, "b")}; !slices.Equal(layer.synced, want) {
		t.Errorf("synced %q, want %q", layer.synced, want)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	layer.synced = nil
	s = mustOpen(t, dir, &storage.Options{Files: layer})
	if len(layer.synced) != 0 {
		t.Errorf("synced %q for a directory that was there", layer.synced)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(root, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{file, filepath.Join(file, "x")} {
		if _, err := storage.Open(bad, nil); err == nil {
			t.Errorf("%s: opened", bad)
		}
	}
	t.Chdir(root)
	if s, err := storage.Open("rel/x", nil); err != nil {
		t.Errorf("relative: %v", err)
	} else if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestFailedWrites(t *testing.T) {
	for name, c := range map[string]struct {
		write     func(storage.File, []byte) (int, error)
		sync      func(storage.File) error
		persisted bool
	}{
		"write failed": {write: func(storage.File, []byte) (int, error) { return 0, errInjected }},
		"write cut short": {write: func(f storage.File, b []byte) (int, error) {
			n, _ := f.Write(b[:len(b)/2])
			return n, errInjected
		}},
		"write failed but persisted": {persisted: true, write: func(f storage.File, b []byte) (int, error) {
			n, _ := f.Write(b)
			return n, errInjected
		}},
		"sync failed": {persisted: true, sync: func(storage.File) error { return errInjected }},
		"sync failed but persisted": {persisted: true, sync: func(f storage.File) error {
			return errors.Join(f.Sync(), errInjected)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			layer := &faulty{Files: storage.MachineFiles()}
			s := mustOpen(t, dir, &storage.Options{Files: layer, CheckpointIdle: -1})
			defer s.Close()
			mustLoad(t, s)
			put(t, s, 1)
			layer.mu.Lock()
			layer.write, layer.sync = c.write, c.sync
			layer.mu.Unlock()
			err := s.Commit(context.Background(), overwrite(2))
			if !errors.Is(err, errInjected) || !errors.Is(err, storage.ErrFailed) {
				t.Fatalf("got %v, want the injected error and ErrFailed", err)
			}
			layer.mu.Lock()
			layer.write, layer.sync = nil, nil
			layer.mu.Unlock()
			// It does not go on behind a record of unknown fate.
			if err := s.Commit(context.Background(), overwrite(3)); !errors.Is(err, storage.ErrFailed) {
				t.Fatalf("commit after a failure: got %v, want ErrFailed", err)
			}
			if _, err := s.Load(context.Background()); !errors.Is(err, storage.ErrFailed) {
				t.Fatalf("load after a failure: got %v, want ErrFailed", err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			want := uint64(1)
			if c.persisted {
				want = 2
			}
			st, err := loadDir(t, dir)
			if err == nil {
				err = checkOverwritten(st, want)
			}
			if err != nil {
				t.Fatal(err)
			}
		})
	}
}

// Whatever step of beginning a new segment fails, nothing is lost, and the
// directory goes on from there.
func TestFailedRotation(t *testing.T) {
	for fail := 1; fail <= 5; fail++ {
		for _, persisted := range []bool{false, true} {
			dir := t.TempDir()
			layer := &faulty{Files: storage.MachineFiles()}
			s := mustOpen(t, dir, &storage.Options{Files: layer, CheckpointIdle: 20 * time.Millisecond})
			mustLoad(t, s)
			put(t, s, 1)
			waitCheckpoints(t, s, 1)
			put(t, s, 2) // the steps that follow are those of the next checkpoint
			step := 0
			layer.mu.Lock()
			layer.write = func(f storage.File, b []byte) (int, error) {
				if step++; step != fail {
					return f.Write(b)
				}
				if persisted {
					n, _ := f.Write(b)
					return n, errInjected
				}
				n, _ := f.Write(b[:len(b)/2])
				return n, errInjected
			}
			layer.sync = func(f storage.File) error {
				if step++; step != fail {
					return f.Sync()
				}
				return errInjected
			}
			layer.mu.Unlock()
			for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
				layer.mu.Lock()
				reached := step >= min(fail, 4)
				layer.mu.Unlock()
				if reached {
					break
				}
				if time.Now().After(deadline) {
					t.Fatal("the fault was not reached")
				}
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			for seq := uint64(2); seq <= 3; seq++ {
				s = mustOpen(t, dir, &storage.Options{CheckpointIdle: -1})
				st, err := s.Load(context.Background())
				if err == nil {
					err = checkOverwritten(st, seq)
				}
				if err != nil {
					t.Fatalf("step %d, persisted %v: %v", fail, persisted, err)
				}
				if seq == 2 {
					put(t, s, 3)
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}

// A checkpoint that was cut short between two transactions leaves part of it in
// the file; what was dropped since must not come back from there.
func TestPartialCheckpoint(t *testing.T) {
	for _, cells := range []uint64{1, 2, 3, 5} {
		dir := t.TempDir()
		s := mustOpen(t, dir, &storage.Options{CheckpointIdle: -1})
		mustLoad(t, s)
		for seq := uint64(1); seq <= 3; seq++ {
			put(t, s, seq)
		}
		storage.CutCheckpoint(t, s, 1) // cell 3 gets into the file, the position does not
		for seq := uint64(4); seq <= 3+cells; seq++ {
			put(t, s, seq)
		}
		for range 2 {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = mustOpen(t, dir, &storage.Options{CheckpointIdle: 5 * time.Millisecond})
			if err := checkOverwritten(mustLoad(t, s), 3+cells); err != nil {
				t.Fatal(err)
			}
			for deadline := time.Now().Add(20 * time.Second); s.Stats().LogBytes > 64; time.Sleep(time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatal("the log is not taken over")
				}
			}
			if err := checkOverwritten(mustLoad(t, s), 3+cells); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// A failed checkpoint stops the store, and the log still has everything.
func TestFailedCheckpoint(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir, &storage.Options{CheckpointIdle: -1})
	mustLoad(t, s)
	put(t, s, 1)
	storage.BreakCellFile(t, s)
	for seq := uint64(2); ; seq++ {
		err := s.Commit(context.Background(), overwrite(seq))
		if errors.Is(err, storage.ErrFailed) {
			_ = s.Close() // the file is broken for bbolt as well
			st, err := loadDir(t, dir)
			if err == nil {
				err = checkOverwritten(st, seq-1)
			}
			if err != nil {
				t.Fatal(err)
			}
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		storage.Kick(s)
	}
	if _, err := os.Stat(filepath.Join(dir, "meshkv.db")); err != nil {
		t.Fatal(err)
	}
}

// Pages that are damaged while the store is open fail it at the next checkpoint,
// and not the process.
func TestDamageUnderCheckpoint(t *testing.T) {
	for name, c := range map[string]struct {
		first, last int
		jammed      bool // the process keeps bbolt's file locked
	}{
		"all but the meta pages": {first: 2, last: -1},
		"the meta pages":         {first: 0, last: 1, jammed: true},
		"everything":             {first: 0, last: -1, jammed: true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := mustOpen(t, dir, &storage.Options{CheckpointIdle: -1})
			mustLoad(t, s)
			put(t, s, 1)
			storage.Kick(s)
			waitCheckpoints(t, s, 1)
			storage.DamageCellFile(t, s, c.first, c.last)
			deadline := time.Now().Add(20 * time.Second)
			for seq := uint64(2); ; seq++ {
				err := s.Commit(context.Background(), overwrite(seq))
				if err != nil {
					if !errors.Is(err, storage.ErrFailed) || !errors.Is(err, storage.ErrDamaged) {
						t.Fatalf("got %v, want ErrFailed and ErrDamaged", err)
					}
					break
				}
				if time.Now().After(deadline) {
					t.Fatal("the damage is not noticed")
				}
				storage.Kick(s)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if c.jammed {
				return
			}
			if _, err := loadDir(t, dir); !errors.Is(err, storage.ErrDamaged) {
				t.Fatalf("load: got %v, want ErrDamaged", err)
			}
		})
	}
}
