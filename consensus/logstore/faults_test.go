package logstore_test

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/raft"
	"github.com/meshkv/meshkv/consensus/logstore"
	"github.com/meshkv/meshkv/storage"
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
			s := open(t, path, logstore.CommitBy(logstore.Options{}, func(put func() error) error {
				if !fail {
					return put()
				}
				if persisted {
					return errors.Join(errInjected, put())
				}
				return errInjected
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
	s := open(t, newPath(t), logstore.CommitBy(logstore.Options{}, func(put func() error) error {
		if !fail {
			return put()
		}
		close(entered)
		<-block
		return errInjected
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

// A panic during a commit, which a caller may catch, leaves nobody waiting.
func TestPanicDuringACommit(t *testing.T) {
	fail := false
	s := open(t, newPath(t), logstore.CommitBy(logstore.Options{}, func(put func() error) error {
		if fail {
			panic(errInjected)
		}
		return put()
	}))
	g := group(t, s, "g")
	fail = true
	func() {
		defer func() {
			if recover() == nil {
				t.Error("no panic")
			}
		}()
		_ = g.StoreLogs(entries(1, 1, "entry"))
	}()
	if err := g.StoreLogs(entries(1, 1, "entry")); !errors.Is(err, storage.ErrFailed) {
		t.Errorf("got %v, want ErrFailed", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// crashChild works on three groups for ever, and prints what was acknowledged:
// the group and its last index. Terms are set to the last index, and what is
// older than 40 entries is deleted.
func crashChild(path string) {
	s, err := logstore.Open(path, logstore.InSegmentsOf(logstore.Options{}, 32<<10))
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
		left := rand.IntN(1500)
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
		s := open(t, path, logstore.InSegmentsOf(logstore.Options{}, 32<<10))
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
