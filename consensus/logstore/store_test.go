package logstore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"github.com/meshkv/meshkv/consensus/logstore"
	"github.com/meshkv/meshkv/storage"
	bolt "go.etcd.io/bbolt"
	"pgregory.net/rapid"
)

// newPath is the path of a store yet to be made, in memory where there is such a
// file system: an fsync there costs nothing.
func newPath(t interface {
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
	return filepath.Join(dir, "raft.db")
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

// A modelGroup is what a group holds, as plainly as can be.
type modelGroup struct {
	logs   map[uint64]raft.Log
	stable map[string]string
}

func (m modelGroup) ends() (first, last uint64) {
	indexes := slices.Sorted(maps.Keys(m.logs))
	if len(indexes) == 0 {
		return 0, 0
	}
	return indexes[0], indexes[len(indexes)-1]
}

func (m modelGroup) compare(g *logstore.Group) error {
	first, err1 := g.FirstIndex()
	last, err2 := g.LastIndex()
	wantFirst, wantLast := m.ends()
	if err := errors.Join(err1, err2); err != nil || first != wantFirst || last != wantLast {
		return fmt.Errorf("got entries %d to %d, %v, want %d to %d", first, last, err, wantFirst, wantLast)
	}
	for index := range wantLast + 3 {
		var got raft.Log
		err := g.GetLog(index, &got)
		want, held := m.logs[index]
		switch {
		case held && (err != nil || !reflect.DeepEqual(got, want)):
			return fmt.Errorf("entry %d: got %+v, %v, want %+v", index, got, err, want)
		case !held && !errors.Is(err, raft.ErrLogNotFound):
			return fmt.Errorf("entry %d: got %v, want ErrLogNotFound", index, err)
		}
	}
	for _, key := range []string{"a", "b"} {
		if got, err := g.Get([]byte(key)); err != nil || string(got) != m.stable[key] {
			return fmt.Errorf("value %q: got %q, %v, want %q", key, got, err, m.stable[key])
		}
	}
	return nil
}

// A store does what maps do, whatever is called in whatever order, with reopening
// and with a cache that holds nearly nothing.
func TestStoreLikeAModel(t *testing.T) {
	names := []string{"a", "b", "group"}
	rapid.Check(t, func(t *rapid.T) {
		path := newPath(t)
		o := &logstore.Options{CacheEntries: rapid.IntRange(1, 3).Draw(t, "cached"), CacheBytes: 100}
		model := map[string]modelGroup{}
		s, err := logstore.Open(path, o)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = s.Close() }()
		get := func(t *rapid.T) (*logstore.Group, modelGroup) {
			name := rapid.SampledFrom(names).Draw(t, "group")
			g, err := s.Group(name)
			if err != nil {
				t.Fatal(err)
			}
			if _, ok := model[name]; !ok {
				model[name] = modelGroup{map[uint64]raft.Log{}, map[string]string{}}
			}
			return g, model[name]
		}
		t.Repeat(map[string]func(*rapid.T){
			"append": func(t *rapid.T) {
				g, m := get(t)
				_, last := m.ends()
				from := rapid.Uint64Range(last, last+2).Draw(t, "from")
				var logs []*raft.Log
				for i := range rapid.Uint64Range(1, 5).Draw(t, "n") {
					logs = append(logs, &raft.Log{Index: from + i, Term: rapid.Uint64Range(1, 3).Draw(t, "term"), Data: []byte("data")})
				}
				allowed := from == last+1 || last == 0 && from > 0
				err := g.StoreLogs(logs)
				if allowed != (err == nil) || err != nil && !errors.Is(err, storage.ErrInvalid) {
					t.Fatalf("append at %d after %d: %v", from, last, err)
				}
				if allowed {
					for _, l := range logs {
						m.logs[l.Index] = *l
					}
				}
			},
			"delete": func(t *rapid.T) {
				g, m := get(t)
				first, last := m.ends()
				from := rapid.Uint64Range(0, last+1).Draw(t, "from")
				to := rapid.Uint64Range(0, last+1).Draw(t, "to")
				some := max(from, first) <= min(to, last) && last != 0
				allowed := !some || from <= first || to >= last
				err := g.DeleteRange(from, to)
				if allowed != (err == nil) || err != nil && !errors.Is(err, storage.ErrInvalid) {
					t.Fatalf("delete %d to %d of %d to %d: %v", from, to, first, last, err)
				}
				if allowed {
					maps.DeleteFunc(m.logs, func(i uint64, _ raft.Log) bool { return from <= i && i <= to })
				}
			},
			"set": func(t *rapid.T) {
				g, m := get(t)
				key := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "key")
				m.stable[key] = rapid.SampledFrom([]string{"", "1", "22"}).Draw(t, "value")
				if err := g.Set([]byte(key), []byte(m.stable[key])); err != nil {
					t.Fatal(err)
				}
			},
			"remove": func(t *rapid.T) {
				name := rapid.SampledFrom(names).Draw(t, "group")
				if err := s.Remove(context.Background(), name); err != nil {
					t.Fatal(err)
				}
				delete(model, name)
			},
			"reopen": func(t *rapid.T) {
				err := s.Close()
				if err == nil {
					s, err = logstore.Open(path, o)
				}
				if err != nil {
					t.Fatal(err)
				}
			},
			"": func(t *rapid.T) {
				for name, m := range model {
					g, err := s.Group(name)
					if err == nil {
						err = m.compare(g)
					}
					if err != nil {
						t.Fatalf("group %q: %v", name, err)
					}
				}
			},
		})
	})
}

// What 50 groups ask for while a commit runs is in the next one, all of it.
func TestOneCommitForAllThatWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const groups = 50
		block := make(chan struct{})
		blocked := false // read by the writer only, set while it has nothing to do
		s := open(t, newPath(t), logstore.CommitBy(logstore.Options{}, func(tx *bolt.Tx) error {
			if blocked {
				<-block
			}
			return tx.Commit()
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
		s := open(t, newPath(t), logstore.CommitBy(logstore.Options{}, func(tx *bolt.Tx) error {
			if blocked {
				<-block
			}
			return tx.Commit()
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

// A long range is deleted in many transactions, between which others have
// theirs.
func TestDeleteRangeInSteps(t *testing.T) {
	s := open(t, newPath(t), nil)
	g := group(t, s, "g")
	const n = 3*logstore.TrimStep + 10
	mustStore(t, g, entries(1, n, "entry"))
	for _, c := range []struct {
		from, to, first, last uint64
		commits               uint64
	}{
		{1, 2*logstore.TrimStep + 1, 2*logstore.TrimStep + 2, n, 3},
		{n - 4, n, 2*logstore.TrimStep + 2, n - 5, 1},
		{0, 1, 2*logstore.TrimStep + 2, n - 5, 0},
		{1, n, 0, 0, 2},
	} {
		before := s.Stats().Commits
		if err := g.DeleteRange(c.from, c.to); err != nil {
			t.Fatal(err)
		}
		if got := s.Stats().Commits - before; got != c.commits {
			t.Errorf("%d to %d: got %d commits, want %d", c.from, c.to, got, c.commits)
		}
		ends(t, g, c.first, c.last)
	}
	mustStore(t, g, entries(100, 1, "anywhere")) // an empty log begins where it likes
	ends(t, g, 100, 100)
}

// A deletion that is cut short between two steps leaves a log without a hole.
func TestDeleteRangeCutShort(t *testing.T) {
	const n = 3 * logstore.TrimStep
	for _, c := range []struct {
		name                  string
		from, to, first, last uint64
	}{
		{"front", 1, n - 5, logstore.TrimStep + 1, n},
		{"end", 5, n, 1, n - logstore.TrimStep},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := newPath(t)
			left := -1 // commits until one fails; negative: none does
			s := open(t, path, logstore.CommitBy(logstore.Options{}, func(tx *bolt.Tx) error {
				if left--; left == -1 {
					return errors.Join(errInjected, tx.Rollback())
				}
				return tx.Commit()
			}))
			g := group(t, s, "g")
			mustStore(t, g, entries(1, n, "entry"))
			left = 1
			if err := g.DeleteRange(c.from, c.to); !errors.Is(err, storage.ErrFailed) {
				t.Fatalf("got %v, want ErrFailed", err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			ends(t, group(t, open(t, path, nil), "g"), c.first, c.last)
		})
	}
}

func TestRefusals(t *testing.T) {
	s := open(t, newPath(t), nil)
	g := group(t, s, "g")
	mustStore(t, g, entries(5, 5, "entry"))
	for i := range 64 {
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
		"65th key":    g.Set([]byte("one more"), nil),
		"long key":    g.Set(make([]byte, 256), nil),
		"large value": g.Set([]byte{1}, make([]byte, 65<<10)),
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
		s := open(t, path, logstore.CommitBy(logstore.Options{}, func(tx *bolt.Tx) error {
			if blocked {
				<-block
			}
			return tx.Commit()
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
	mustStore(t, old, entries(1, 2*logstore.TrimStep+1, "old"))
	mustStore(t, other, entries(3, 4, "other"))
	if err := old.SetUint64([]byte("CurrentTerm"), 9); err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	cut, cancel := context.WithCancel(ctx)
	cancel()
	for _, ctx := range []context.Context{cut, ctx} { // the first leaves all entries behind
		if err := s.Remove(ctx, "g"); err != nil && ctx != cut {
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
	if n := storedEntries(t, path); n == 6 {
		t.Error("nothing was left to delete: the test shows nothing")
	}
	s = open(t, path, nil)
	ends(t, group(t, s, "g"), 1, 2)
	ends(t, group(t, s, "other"), 3, 6)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if n := storedEntries(t, path); n != 6 {
		t.Errorf("got %d entries in the file, want 6", n)
	}
}

// storedEntries is how many entries the file holds, of whatever group.
func storedEntries(t *testing.T, path string) (n int) {
	t.Helper()
	db, err := bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true, Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	_ = db.View(func(tx *bolt.Tx) error {
		n = tx.Bucket([]byte("logs")).Stats().KeyN
		return nil
	})
	return n
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
	s := open(t, newPath(t), &logstore.Options{CacheEntries: 2})
	g := group(t, s, "g")
	mustStore(t, g, entries(1, 1, "entry"))
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
	for i := range uint64(200) {
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
}
