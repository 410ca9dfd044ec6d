package logstore_test

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/meshkv/meshkv/consensus/logstore"
	"github.com/meshkv/meshkv/storage"
	bolt "go.etcd.io/bbolt"
)

var errInjected = errors.New("injected")

const crashEnv = "MESHKV_LOGSTORE_CRASH_PATH"

func TestMain(m *testing.M) {
	if path := os.Getenv(crashEnv); path != "" {
		crashChild(path)
		return
	}
	os.Exit(m.Run())
}

// After a write that failed, whether or not it reached the disk, nothing is served
// before the file was read again; then what was acknowledged is there.
func TestFailedCommit(t *testing.T) {
	for name, persisted := range map[string]bool{"not written": false, "but persisted": true} {
		t.Run(name, func(t *testing.T) {
			path := newPath(t)
			fail := false // read by the writer only, set while it has nothing to do
			s := open(t, path, logstore.CommitBy(logstore.Options{}, func(tx *bolt.Tx) error {
				if !fail {
					return tx.Commit()
				}
				if persisted {
					return errors.Join(errInjected, tx.Commit())
				}
				return errors.Join(errInjected, tx.Rollback())
			}))
			g, other := group(t, s, "g"), group(t, s, "other")
			mustStore(t, g, entries(1, 3, "entry"))
			if err := g.SetUint64([]byte("CurrentTerm"), 4); err != nil {
				t.Fatal(err)
			}
			fail = true
			if err := g.StoreLogs(entries(4, 1, "lost?")); !errors.Is(err, storage.ErrFailed) || !errors.Is(err, errInjected) {
				t.Fatalf("got %v, want ErrFailed by the injected error", err)
			}
			_, errFirst := g.FirstIndex()
			_, errLast := other.LastIndex()
			_, errGet := g.Get([]byte("CurrentTerm"))
			_, errGroup := s.Group("third")
			for what, err := range map[string]error{
				"FirstIndex": errFirst, "LastIndex": errLast, "Get": errGet, "Group": errGroup, "GetLog": g.GetLog(1, new(raft.Log)),
				"StoreLogs": other.StoreLogs(entries(1, 1, "x")), "Set": other.Set([]byte("k"), nil), "DeleteRange": g.DeleteRange(1, 1),
				"no entries": g.StoreLogs(nil),
			} {
				if !errors.Is(err, storage.ErrFailed) {
					t.Errorf("%s: got %v, want ErrFailed", what, err)
				}
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			last := uint64(3)
			if persisted {
				last = 4
			}
			g = group(t, open(t, path, nil), "g")
			ends(t, g, 1, last)
			if n, err := g.GetUint64([]byte("CurrentTerm")); n != 4 || err != nil {
				t.Errorf("term: got %d, %v, want 4", n, err)
			}
		})
	}
}

// Calls that wait while a commit fails learn that they failed too.
func TestWaitersOfAFailedCommit(t *testing.T) {
	entered, block := make(chan struct{}), make(chan struct{})
	fail := false
	s := open(t, newPath(t), logstore.CommitBy(logstore.Options{}, func(tx *bolt.Tx) error {
		if !fail {
			return tx.Commit()
		}
		close(entered)
		<-block
		return errors.Join(errInjected, tx.Rollback())
	}))
	g := group(t, s, "g")
	fail = true
	var wg sync.WaitGroup
	call := func() {
		if err := g.Set([]byte("k"), []byte("v")); !errors.Is(err, storage.ErrFailed) {
			t.Errorf("got %v, want ErrFailed", err)
		}
	}
	wg.Go(call)
	<-entered
	for range 20 {
		wg.Go(call)
	}
	close(block)
	wg.Wait()
}

// crashChild works on three groups for ever, and prints what was acknowledged:
// the group and its last index. Terms are set to the last index, and what is
// older than 40 entries is deleted.
func crashChild(path string) {
	s, err := logstore.Open(path, nil)
	if err != nil {
		fmt.Println("error", err)
		return
	}
	var out sync.Mutex // one line at a time
	var wg sync.WaitGroup
	for n := range crashGroups {
		wg.Go(func() {
			err := crashWrites(s, n, &out)
			out.Lock()
			defer out.Unlock()
			fmt.Println("error", err)
		})
	}
	wg.Wait()
}

const crashGroups = 3

func crashWrites(s *logstore.Store, n int, out *sync.Mutex) error {
	g, err := s.Group(fmt.Sprint("g", n))
	if err != nil {
		return err
	}
	last, err := g.LastIndex()
	if err != nil {
		return err
	}
	for {
		logs := entries(last+1, 1+int(last%7), "entry")
		if err := g.StoreLogs(logs); err != nil {
			return err
		}
		last += uint64(len(logs))
		out.Lock()
		fmt.Println(n, last)
		out.Unlock()
		if err := g.SetUint64([]byte("CurrentTerm"), last); err != nil {
			return err
		}
		if last > 40 {
			if err := g.DeleteRange(0, last-40); err != nil {
				return err
			}
		}
	}
}

// A process that is killed in the middle of its writes has lost nothing that it
// acknowledged.
func TestKilledProcess(t *testing.T) {
	path := newPath(t)
	var acked [crashGroups]uint64
	for round := range 6 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), crashEnv+"="+path)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		left := rand.IntN(400)
		for lines := bufio.NewScanner(out); lines.Scan(); left-- {
			name, count, _ := strings.Cut(lines.Text(), " ")
			n, err1 := strconv.Atoi(name)
			last, err2 := strconv.ParseUint(count, 10, 64)
			if errors.Join(err1, err2) != nil {
				break // the last line may be cut off; whatever is wrong shows below
			}
			acked[n] = last
			if left == 0 {
				_ = cmd.Process.Kill() // and read on what it had printed before
			}
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		s := open(t, path, nil)
		for n := range crashGroups {
			g := group(t, s, fmt.Sprint("g", n))
			last, err := g.LastIndex()
			if err != nil || last < acked[n] {
				t.Fatalf("round %d, group %d: got last entry %d, %v, acknowledged was %d", round, n, last, err, acked[n])
			}
			if term, err := g.GetUint64([]byte("CurrentTerm")); err != nil || term > last {
				t.Fatalf("round %d, group %d: got term %d, %v with last entry %d", round, n, term, err, last)
			}
			first, err := g.FirstIndex()
			if err != nil {
				t.Fatal(err)
			}
			for i := first; i <= last; i++ {
				var log raft.Log
				if err := g.GetLog(i, &log); i > 0 && (err != nil || string(log.Data) != fmt.Sprint("entry ", i)) {
					t.Fatalf("round %d, group %d: entry %d is %q, %v", round, n, i, log.Data, err)
				}
			}
			acked[n] = last
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if acked == [crashGroups]uint64{} {
		t.Fatal("nothing was acknowledged: the test shows nothing")
	}
	t.Logf("acknowledged: %v", acked)
}

// filled is the path of a closed store with two groups, the bytes of its file and
// the last index of both.
func filled(t *testing.T) (path string, whole []byte) {
	t.Helper()
	path = newPath(t)
	s := open(t, path, nil)
	for _, name := range []string{"a", "b"} {
		g := group(t, s, name)
		mustStore(t, g, entries(1, 100, "some data of the entry"))
		if err := g.SetUint64([]byte("CurrentTerm"), 77); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return path, whole
}

// intact fails unless the store at path, if it opens, is that of filled. It opens
// read-only in effect: nothing is written.
func intact(path string) error {
	s, err := logstore.Open(path, nil)
	if err != nil {
		return err
	}
	defer s.Close()
	for _, name := range []string{"a", "b"} {
		g, err := s.Group(name)
		if err != nil {
			return err
		}
		first, err1 := g.FirstIndex()
		last, err2 := g.LastIndex()
		term, err3 := g.GetUint64([]byte("CurrentTerm"))
		if err := errors.Join(err1, err2, err3); err != nil || first != 1 || last != 100 || term != 77 {
			return fmt.Errorf("entries %d to %d, term %d: %w", first, last, term, err)
		}
		for i := range last {
			var log raft.Log
			if err := g.GetLog(i+1, &log); err != nil || string(log.Data) != fmt.Sprint("some data of the entry ", i+1) {
				return fmt.Errorf("entry %d is %q: %w", i+1, log.Data, err)
			}
		}
	}
	return nil
}

// A flipped bit of an entry, of a group's record or of a meta page is found.
func TestFlippedBits(t *testing.T) {
	path, whole := filled(t)
	if err := intact(path); err != nil {
		t.Fatal(err)
	}
	text := string(whole)
	page := os.Getpagesize()
	// The key and the value of a pair, which follow each other in the file. They
	// were written by the last commits, so older pages have no copy.
	pair := func(bucket string, key []byte) [2]int {
		value := stored(t, path, bucket, key)
		return [2]int{strings.Index(text, string(key)+string(value)), len(key) + len(value)}
	}
	for name, area := range map[string][2]int{
		"entry":  pair("logs", binary.BigEndian.AppendUint64([]byte{0, 0, 0, 2}, 57)),
		"record": pair("groups", []byte("b")),
		"meta 0": {16, 64},
		"meta 1": {page + 16, 64},
	} {
		if area[0] < 0 {
			t.Fatalf("%s: not in the file", name)
		}
		for i := range 8 * area[1] {
			b := []byte(text)
			b[area[0]+i/8] ^= 1 << (i % 8)
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := intact(path); !errors.Is(err, storage.ErrDamaged) {
				t.Errorf("%s, bit %d: got %v, want ErrDamaged", name, i, err)
			}
		}
	}
}

// stored is the value of key in a bucket of the file.
func stored(t *testing.T, path, bucket string, key []byte) (value []byte) {
	t.Helper()
	db, err := bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true, Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	_ = db.View(func(tx *bolt.Tx) error {
		value = slices.Clone(tx.Bucket([]byte(bucket)).Get(key))
		return nil
	})
	return value
}

// An entry that is damaged while the store is open is found when it is read.
func TestDamageWhileOpen(t *testing.T) {
	path, whole := filled(t)
	s := open(t, path, nil)
	g := group(t, s, "b")
	at := strings.LastIndex(string(whole), "some data of the entry 57")
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{'S'}, int64(at)); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	var log raft.Log
	errA, errB := group(t, s, "a").GetLog(57, &log), g.GetLog(57, &log)
	if errors.Is(errA, storage.ErrDamaged) == errors.Is(errB, storage.ErrDamaged) {
		t.Errorf("got %v and %v, want one ErrDamaged", errA, errB)
	}
}

// What is missing, or written by a later version, is known when the file is
// opened.
func TestDamagedFile(t *testing.T) {
	edit := func(fn func(tx *bolt.Tx) error) func(t *testing.T, path string) {
		return func(t *testing.T, path string) {
			db, err := bolt.Open(path, 0o600, nil)
			if err == nil {
				err = errors.Join(db.Update(fn), db.Close())
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	entry := func(index uint64) []byte {
		return binary.BigEndian.AppendUint64([]byte{0, 0, 0, 1}, index)
	}
	for name, damage := range map[string]func(t *testing.T, path string){
		"first entry vanished": edit(func(tx *bolt.Tx) error { return tx.Bucket([]byte("logs")).Delete(entry(1)) }),
		"entry vanished":       edit(func(tx *bolt.Tx) error { return tx.Bucket([]byte("logs")).Delete(entry(50)) }),
		"last entry vanished":  edit(func(tx *bolt.Tx) error { return tx.Bucket([]byte("logs")).Delete(entry(100)) }),
		"entry too many": edit(func(tx *bolt.Tx) error {
			return tx.Bucket([]byte("logs")).Put(logstore.EntryPair(1, &raft.Log{Index: 101}))
		}),
		"group vanished":    edit(func(tx *bolt.Tx) error { return tx.Bucket([]byte("groups")).Delete([]byte("a")) }),
		"bucket vanished":   edit(func(tx *bolt.Tx) error { return tx.DeleteBucket([]byte("removed")) }),
		"number vanished":   edit(func(tx *bolt.Tx) error { return tx.Bucket([]byte("meta")).Delete([]byte("next")) }),
		"later version":     edit(func(tx *bolt.Tx) error { return tx.Bucket([]byte("meta")).Put([]byte("format"), []byte{2, 0, 0, 0}) }),
		"present and gone":  edit(func(tx *bolt.Tx) error { return tx.Bucket([]byte("removed")).Put([]byte{0, 0, 0, 1}, nil) }),
		"short":             func(t *testing.T, path string) { truncate(t, path, 9000) },
		"empty":             func(t *testing.T, path string) { truncate(t, path, 0) },
		"half of the pages": func(t *testing.T, path string) { truncate(t, path, 6*int64(os.Getpagesize())) },
	} {
		t.Run(name, func(t *testing.T) {
			path, _ := filled(t)
			damage(t, path)
			_, err := logstore.Open(path, nil)
			if !errors.Is(err, storage.ErrDamaged) {
				t.Fatalf("got %v, want ErrDamaged", err)
			}
			if got, want := errors.Is(err, storage.ErrFormat), strings.Contains(name, "version"); got != want {
				t.Errorf("ErrFormat: got %v, want %v", got, want)
			}
		})
	}
}

func truncate(t *testing.T, path string, size int64) {
	t.Helper()
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
}
