package logstore_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/hashicorp/raft"
	"github.com/meshkv/meshkv/consensus/logstore"
	"github.com/meshkv/meshkv/storage"
)

// A busy group that deletes what is old keeps the files small, though a group that
// does nothing has entries in the oldest ones; and that group loses nothing.
func TestFilesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const segment = 16 << 10
		path := newPath(t)
		o := logstore.InSegmentsOf(logstore.Options{CacheEntries: 2}, segment)
		s := open(t, path, o)
		idle, busy := group(t, s, "idle"), group(t, s, "busy")
		mustStore(t, idle, entries(5, 20, "idle"))
		if err := idle.SetUint64([]byte("CurrentTerm"), 3); err != nil {
			t.Fatal(err)
		}
		for i := range uint64(1000) {
			mustStore(t, busy, entries(3*i+1, 3, strings.Repeat("busy", 20)))
			if i >= 10 {
				if err := busy.DeleteRange(0, 3*(i-10)); err != nil {
					t.Fatal(err)
				}
			}
			synctest.Wait() // for the cleaner
			if got := s.Stats().FileBytes; got > 4*segment {
				t.Fatalf("after %d rounds: %d bytes of files", i, got)
			}
		}
		if st := s.Stats(); st.MovedBytes == 0 || st.MovedBytes > 1<<20 {
			t.Errorf("%d bytes were moved", st.MovedBytes)
		}
		for range 2 {
			ends(t, idle, 5, 24)
			for i := range uint64(20) {
				var log raft.Log
				if err := idle.GetLog(i+5, &log); err != nil || string(log.Data) != fmt.Sprint("idle ", i+5) {
					t.Errorf("entry %d is %q, %v", i+5, log.Data, err)
				}
			}
			if n, err := idle.GetUint64([]byte("CurrentTerm")); n != 3 || err != nil {
				t.Errorf("term: got %d, %v, want 3", n, err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = open(t, path, o)
			idle = group(t, s, "idle")
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// Where all is live, nothing is moved for ever; and a state that is larger than a
// segment gets one of its own.
func TestManyGroups(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := newPath(t)
		o := logstore.InSegmentsOf(logstore.Options{}, 8<<10)
		s := open(t, path, o)
		const groups = 120
		for round := range uint64(2) {
			for i := range groups {
				g := group(t, s, fmt.Sprint("group ", i))
				mustStore(t, g, entries(round+1, 1, "entry"))
				if err := g.SetUint64([]byte("CurrentTerm"), round); err != nil {
					t.Fatal(err)
				}
			}
		}
		synctest.Wait()
		before := s.Stats().MovedBytes
		mustStore(t, group(t, s, "group 7"), entries(3, 1, "entry"))
		synctest.Wait()
		if got := s.Stats().MovedBytes - before; got > 100_000 {
			t.Errorf("%d bytes were moved for one entry", got)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = open(t, path, o)
		for i := range groups {
			last := uint64(2)
			if i == 7 {
				last = 3
			}
			ends(t, group(t, s, fmt.Sprint("group ", i)), 1, last)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// Entries as large as they may be, and more of them in a call than a segment
// holds.
func TestLargeEntries(t *testing.T) {
	path := newPath(t)
	s := open(t, path, logstore.InSegmentsOf(logstore.Options{}, 1<<20))
	g := group(t, s, "g")
	var logs []*raft.Log
	for i, size := range []int{16<<20 - 26, 1, 3 << 20, 3 << 20, 100} {
		logs = append(logs, &raft.Log{Index: uint64(i) + 1, Data: bytes.Repeat([]byte{byte(i + 1)}, size)})
	}
	before := s.Stats().Commits
	mustStore(t, g, logs)
	if got := s.Stats().Commits - before; got != 3 {
		t.Errorf("got %d commits, want 3", got)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, path, nil)
	g = group(t, s, "g")
	ends(t, g, 1, 5)
	for _, want := range logs {
		var got raft.Log
		if err := g.GetLog(want.Index, &got); err != nil || !bytes.Equal(got.Data, want.Data) {
			t.Errorf("entry %d: %d bytes, %v", want.Index, len(got.Data), err)
		}
	}
}

// If no segment can be made, the store stops before anything is acknowledged that
// has no place; and what has one is there.
func TestNoNextSegment(t *testing.T) {
	path := newPath(t)
	s := open(t, path, logstore.InSegmentsOf(logstore.Options{}, 16<<10))
	g := group(t, s, "g")
	mustStore(t, g, entries(1, 1, "entry"))
	moved := path + ".moved"
	if err := os.Rename(path, moved); err != nil {
		t.Fatal(err)
	}
	last, err := uint64(1), error(nil)
	for last < 1000 {
		if err = g.StoreLogs(entries(last+1, 1, "entry")); err != nil {
			break
		}
		last++
	}
	if !errors.Is(err, storage.ErrFailed) || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want ErrFailed", err)
	}
	if _, err := g.LastIndex(); !errors.Is(err, storage.ErrFailed) {
		t.Errorf("got %v, want ErrFailed", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	ends(t, group(t, open(t, moved, nil), "g"), 1, last)
}
