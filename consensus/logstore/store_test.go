package logstore_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/hashicorp/raft"
	"github.com/meshkv/meshkv/consensus/logstore"
	"github.com/meshkv/meshkv/storage"
)

// newDir is a directory, in memory where there is such a file system: an fsync there
// costs nothing.
func newDir(t interface {
	Helper()
	Fatal(...any)
	Cleanup(func())
}) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "meshkv-logstore")
	if err != nil {
		dir, err = os.MkdirTemp("", "meshkv-logstore")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// newPath is the path of a store yet to be made.
func newPath(t testing.TB) string {
	t.Helper()
	return filepath.Join(newDir(t), "raft-log")
}

func open(t testing.TB, path string, o *logstore.Options) *logstore.Store {
	t.Helper()
	s, err := logstore.Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func group(t testing.TB, s *logstore.Store, name string) *logstore.Group {
	t.Helper()
	g, err := s.Group(name)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// entries are n of them from first on.
func entries(first uint64, n int, data string) []*raft.Log {
	logs := make([]*raft.Log, n)
	for i := range logs {
		logs[i] = &raft.Log{Index: first + uint64(i), Term: 1, Data: fmt.Appendf(nil, "%s %d", data, first+uint64(i))}
	}
	return logs
}

func mustStore(t testing.TB, g *logstore.Group, logs []*raft.Log) {
	t.Helper()
	if err := g.StoreLogs(logs); err != nil {
		t.Fatal(err)
	}
}

// ends fails unless g holds the entries first to last.
func ends(t testing.TB, g *logstore.Group, first, last uint64) {
	t.Helper()
	gotFirst, err1 := g.FirstIndex()
	gotLast, err2 := g.LastIndex()
	if err := errors.Join(err1, err2); err != nil || gotFirst != first || gotLast != last {
		t.Fatalf("got entries %d to %d, %v, want %d to %d", gotFirst, gotLast, err, first, last)
	}
}

// What 50 groups ask for while a commit runs is in the next one, all of it.
func TestOneCommitForAllThatWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const groups = 50
		block := make(chan struct{})
		blocked := false // read by the writer only, set while it has nothing to do
		s := open(t, newPath(t), logstore.CommitBy(logstore.Options{}, func(put func() error) error {
			if blocked {
				<-block
			}
			return put()
		}))
		var gs []*logstore.Group
		for i := range groups {
			gs = append(gs, group(t, s, fmt.Sprint("g", i)))
		}
		blocked = true
		before := s.Stats().Commits
		var wg sync.WaitGroup
		wg.Go(func() { mustStore(t, gs[0], entries(1, 3, "first")) })
		synctest.Wait()
		for i, g := range gs[1:] {
			wg.Go(func() {
				if i%2 == 0 {
					mustStore(t, g, entries(1, 3, "later"))
				} else if err := g.SetUint64([]byte("CurrentTerm"), 7); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		close(block)
		wg.Wait()
		if got := s.Stats().Commits - before; got != 2 {
			t.Errorf("got %d commits, want 2", got)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// One transaction takes a bounded number of changes, and those that wait beyond
// the queue wait on.
func TestBatchesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		block, blocked := make(chan struct{}), false
		s := open(t, newPath(t), logstore.CommitBy(logstore.Options{}, func(put func() error) error {
			if blocked {
				<-block
			}
			return put()
		}))
		g := group(t, s, "g")
		blocked = true
		before := s.Stats().Commits
		var wg sync.WaitGroup
		for range 2*logstore.MaxBatchChanges + 2 {
			wg.Go(func() {
				if err := g.Set([]byte("key"), []byte("value")); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait() // the first is alone in its batch
		}
		close(block)
		wg.Wait()
		if got := s.Stats().Commits - before; got != 4 {
			t.Errorf("got %d commits, want 4: 1, the bound, the bound, 1", got)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestRefusals(t *testing.T) {
	s := open(t, newPath(t), nil)
	g := group(t, s, "g")
	mustStore(t, g, entries(5, 5, "entry"))
	for i := range 16 {
		if err := g.Set([]byte{byte(i)}, []byte{1}); err != nil {
			t.Fatal(err)
		}
	}
	name := func(n string) error { _, err := s.Group(n); return err }
	number := func(key string) error { _, err := g.GetUint64([]byte(key)); return err }
	for what, err := range map[string]error{
		"gap":         g.StoreLogs(entries(11, 1, "")),
		"overlap":     g.StoreLogs(entries(9, 2, "")),
		"gap within":  g.StoreLogs([]*raft.Log{{Index: 10}, {Index: 12}}),
		"index 0":     g.StoreLog(&raft.Log{}),
		"large entry": g.StoreLog(&raft.Log{Index: 10, Data: make([]byte, 17<<20)}),
		"hole":        g.DeleteRange(6, 8),
		"17th key":    g.Set([]byte("one more"), nil),
		"long key":    g.Set(make([]byte, 256), nil),
		"large value": g.Set([]byte{1}, make([]byte, 1<<10+1)),
		"no number":   number("\x01"),
		"no name":     name(""),
		"name of 256": name(strings.Repeat("n", 256)),
	} {
		if !errors.Is(err, storage.ErrInvalid) {
			t.Errorf("%s: got %v, want ErrInvalid", what, err)
		}
	}
	ends(t, g, 5, 9)
	if err := g.StoreLogs(nil); err != nil {
		t.Errorf("no entries: %v", err)
	}
	if n, err := g.GetUint64([]byte("unknown")); n != 0 || err != nil {
		t.Errorf("unknown key: got %d, %v", n, err)
	}
}

// A refused change does no harm to those in the same transaction.
func TestRefusedBesideOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := newPath(t)
		block, blocked := make(chan struct{}), false
		s := open(t, path, logstore.CommitBy(logstore.Options{}, func(put func() error) error {
			if blocked {
				<-block
			}
			return put()
		}))
		a, b := group(t, s, "a"), group(t, s, "b")
		blocked = true
		var wg sync.WaitGroup
		var refused error
		for _, call := range []func(){
			func() { mustStore(t, a, entries(1, 1, "alone")) },
			func() { mustStore(t, a, entries(2, 2, "before")) },
			func() { refused = a.StoreLogs(entries(9, 2, "gap")) },
			func() { mustStore(t, b, entries(7, 1, "beside")) },
			func() { mustStore(t, a, entries(4, 2, "replaced")) },
			func() {
				if err := a.DeleteRange(4, 5); err != nil {
					t.Error(err)
				}
			},
			func() { mustStore(t, a, entries(4, 1, "after")) },
		} {
			wg.Go(call)
			synctest.Wait()
		}
		close(block)
		wg.Wait()
		if !errors.Is(refused, storage.ErrInvalid) {
			t.Errorf("got %v, want ErrInvalid", refused)
		}
		want := 4*26 + len("alone 1before 2before 3after 4")
		if got, n := logstore.CachedBytes(a); got != want || n != 4 {
			t.Errorf("cached: got %d bytes of %d entries, want %d of 4", got, n, want)
		}
		for range 2 {
			ends(t, a, 1, 4)
			ends(t, b, 7, 7)
			var log raft.Log
			if err := a.GetLog(4, &log); err != nil || string(log.Data) != "after 4" {
				t.Errorf("got %q, %v, want what was stored last", log.Data, err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = open(t, path, nil)
			a, b = group(t, s, "a"), group(t, s, "b")
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestRemove(t *testing.T) {
	path := newPath(t)
	s := open(t, path, nil)
	old, other := group(t, s, "g"), group(t, s, "other")
	mustStore(t, old, entries(1, 100, "old"))
	mustStore(t, other, entries(3, 4, "other"))
	if err := old.SetUint64([]byte("CurrentTerm"), 9); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.Remove("g"); err != nil {
			t.Fatal(err)
		}
		_, errFirst := old.FirstIndex()
		_, errGet := old.Get([]byte("CurrentTerm"))
		for what, err := range map[string]error{
			"StoreLogs": old.StoreLogs(entries(1, 1, "x")), "Set": old.Set(nil, nil), "DeleteRange": old.DeleteRange(1, 2),
			"FirstIndex": errFirst, "Get": errGet, "GetLog": old.GetLog(1, new(raft.Log)),
		} {
			if !errors.Is(err, logstore.ErrRemoved) {
				t.Errorf("%s: got %v, want ErrRemoved", what, err)
			}
		}
	}
	anew := group(t, s, "g")
	ends(t, anew, 0, 0)
	if n, err := anew.GetUint64([]byte("CurrentTerm")); n != 0 || err != nil {
		t.Errorf("the term of the new group is %d, %v", n, err)
	}
	mustStore(t, anew, entries(1, 2, "new"))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, path, nil)
	ends(t, group(t, s, "g"), 1, 2)
	ends(t, group(t, s, "other"), 3, 6)
}

// The cache is bounded by entries and by bytes, and what it lacks comes from the
// file.
func TestCacheIsBounded(t *testing.T) {
	s := open(t, newPath(t), &logstore.Options{CacheEntries: 10, CacheBytes: 1000})
	g := group(t, s, "g")
	for i, size := range []int{1, 1, 300, 300, 300, 300, 2000, 1, 1} {
		data := bytes.Repeat([]byte{byte(i)}, size)
		if err := g.StoreLog(&raft.Log{Index: uint64(i) + 1, Data: data}); err != nil {
			t.Fatal(err)
		}
		if got, n := logstore.CachedBytes(g); got > 1000 || n > 10 {
			t.Errorf("after %d: %d bytes, %d entries", i, got, n)
		}
	}
	mustStore(t, g, entries(10, 30, "many"))
	if got, n := logstore.CachedBytes(g); n != 10 {
		t.Errorf("%d bytes, %d entries, want 10 entries", got, n)
	}
	for i := range uint64(39) {
		var log raft.Log
		if err := g.GetLog(i+1, &log); err != nil || log.Index != i+1 {
			t.Errorf("entry %d: got %+v, %v", i+1, log, err)
		}
	}
	if err := g.DeleteRange(1, 39); err != nil {
		t.Fatal(err)
	}
	if got, n := logstore.CachedBytes(g); got != 0 || n != 0 {
		t.Errorf("empty: %d bytes, %d entries", got, n)
	}
}

func TestOpenTwice(t *testing.T) {
	path := newPath(t)
	s := open(t, path, nil)
	if _, err := logstore.Open(path, nil); !errors.Is(err, storage.ErrLocked) {
		t.Errorf("got %v, want ErrLocked", err)
	}
	g := group(t, s, "g")
	if again := group(t, s, "g"); again != g {
		t.Error("got another group of the same name")
	}
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	_, err := s.Group("h")
	for what, err := range map[string]error{"Group": err, "StoreLogs": g.StoreLogs(entries(1, 1, "x")), "GetLog": g.GetLog(1, new(raft.Log))} {
		if !errors.Is(err, storage.ErrClosed) {
			t.Errorf("%s: got %v, want ErrClosed", what, err)
		}
	}
}

// Readers are not in the way of the writer, nor it in theirs.
func TestReadersBesideTheWriter(t *testing.T) {
	s := open(t, newPath(t), logstore.InSegmentsOf(logstore.Options{CacheEntries: 2}, 8<<10))
	g, idle := group(t, s, "g"), group(t, s, "idle")
	mustStore(t, g, entries(1, 1, "entry"))
	mustStore(t, idle, entries(1, 9, "idle"))
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				first, err1 := g.FirstIndex()
				last, err2 := g.LastIndex()
				_, err3 := g.GetUint64([]byte("CurrentTerm"))
				if err := errors.Join(err1, err2, err3); err != nil || first == 0 || last < first {
					t.Errorf("got entries %d to %d, %v", first, last, err)
				}
				var log raft.Log
				if err := idle.GetLog(3, &log); err != nil || string(log.Data) != "idle 3" {
					t.Errorf("idle entry: got %q, %v", log.Data, err)
				}
				for i := first; i <= last; i++ {
					var log raft.Log
					err := g.GetLog(i, &log)
					if err != nil && !errors.Is(err, raft.ErrLogNotFound) || err == nil && string(log.Data) != fmt.Sprint("entry ", i) {
						t.Errorf("entry %d is %q, %v", i, log.Data, err)
					}
				}
			}
		})
	}
	for i := range uint64(500) {
		mustStore(t, g, entries(i+2, 1, "entry"))
		if err := g.SetUint64([]byte("CurrentTerm"), i); err != nil {
			t.Fatal(err)
		}
		if i > 5 {
			if err := g.DeleteRange(0, i-5); err != nil {
				t.Fatal(err)
			}
		}
	}
	close(stop)
	wg.Wait()
	if st := s.Stats(); st.MovedBytes == 0 {
		t.Errorf("got %+v: nothing was moved, the test shows little", st)
	}
}
