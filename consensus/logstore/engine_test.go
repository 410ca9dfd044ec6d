package logstore_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/hashicorp/raft"
	"github.com/meshkv/meshkv/consensus/logstore"
	"github.com/meshkv/meshkv/storage"
)

// Every kind of engine keeps what Raft gives it, group by group.
func TestEngines(t *testing.T) {
	for _, kind := range []logstore.Kind{"", logstore.Journal, logstore.BoltDB} {
		t.Run(string(kind), func(t *testing.T) {
			dir := newDir(t)
			ctx := context.Background()
			openEngine := func() logstore.Engine {
				e, err := logstore.OpenEngine(kind, dir, &logstore.Options{CacheEntries: 2})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = e.Close() })
				return e
			}
			openGroup := func(e logstore.Engine, name string) logstore.Log {
				g, err := e.Group(name)
				if err != nil {
					t.Fatal(err)
				}
				return g
			}
			check := func(e logstore.Engine, name string, first, last uint64) {
				t.Helper()
				g := openGroup(e, name)
				gotFirst, err1 := g.FirstIndex()
				gotLast, err2 := g.LastIndex()
				if err := errors.Join(err1, err2); err != nil || gotFirst != first || gotLast != last {
					t.Fatalf("group %q: got entries %d to %d, %v, want %d to %d", name, gotFirst, gotLast, err, first, last)
				}
				for i := first; i <= last && i > 0; i++ {
					var log raft.Log
					if err := g.GetLog(i, &log); err != nil || log.Index != i || string(log.Data) != fmt.Sprint(name, " ", i) {
						t.Errorf("group %q, entry %d: got %+v, %v", name, i, log, err)
					}
				}
				if err := g.GetLog(last+1, new(raft.Log)); !errors.Is(err, raft.ErrLogNotFound) {
					t.Errorf("group %q, behind the last: got %v, want ErrLogNotFound", name, err)
				}
			}

			e := openEngine()
			for i, name := range []string{"system", "locks/1"} {
				g := openGroup(e, name)
				err := errors.Join(g.StoreLogs(entries(1, 9, name)), g.DeleteRange(1, uint64(2+i)), g.SetUint64([]byte("CurrentTerm"), uint64(40+i)))
				if err != nil {
					t.Fatal(err)
				}
			}
			if err := e.Close(); err != nil {
				t.Fatal(err)
			}
			e = openEngine()
			check(e, "system", 3, 9)
			check(e, "locks/1", 4, 9)
			if n, err := openGroup(e, "locks/1").GetUint64([]byte("CurrentTerm")); n != 41 || err != nil {
				t.Errorf("term: got %d, %v, want 41", n, err)
			}
			for _, name := range []string{"system", "unknown"} {
				if err := e.Remove(ctx, name); err != nil {
					t.Fatal(err)
				}
			}
			check(e, "system", 0, 0)
			check(e, "locks/1", 4, 9)
			for range 2 {
				if err := e.Close(); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := e.Group("system"); !errors.Is(err, storage.ErrClosed) {
				t.Errorf("got %v, want ErrClosed", err)
			}
		})
	}
	if _, err := logstore.OpenEngine("wal", t.TempDir(), nil); !errors.Is(err, storage.ErrInvalid) {
		t.Errorf("unknown kind: got %v, want ErrInvalid", err)
	}
}
