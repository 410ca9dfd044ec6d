package logstore

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/hashicorp/raft"
)

// Entries that are deleted, replaced or removed before they are moved, or in the same
// commit, do not come back.
func TestMoveBesideChanges(t *testing.T) {
	for name, together := range map[string]bool{"before": false, "together": true} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "raft-log")
			s, err := Open(path, &Options{CacheEntries: 1})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = s.Close() }()
			logs := func(first, last uint64, data string) (logs []*raft.Log) {
				for i := first; i <= last; i++ {
					logs = append(logs, &raft.Log{Index: i, Data: fmt.Append(nil, data, i)})
				}
				return logs
			}
			m := &moving{}
			groups := make(map[string]*Group)
			for _, name := range []string{"trimmed", "replaced", "removed", "kept"} {
				g, err := s.Group(name)
				if err == nil {
					err = g.StoreLogs(logs(1, 9, "old"))
				}
				if err != nil {
					t.Fatal(err)
				}
				groups[name] = g
				for i := uint64(1); i <= 9; i++ {
					p, err := g.place(i)
					if err != nil {
						t.Fatal(err)
					}
					value := make([]byte, p.length)
					if _, err := s.current.file.ReadAt(value, int64(p.offset)); err != nil {
						t.Fatal(err)
					}
					m.add(movedEntry{group: g, index: i, value: value, from: p})
				}
			}
			appended := &appending{group: groups["replaced"], logs: logs(6, 10, "new")}
			appended.record = appendRunHead(nil, recordAppend, appended.group.next.number, 6, 5)
			for _, l := range appended.logs {
				value := appendEntry(nil, entryID{appended.group.next.number, l.Index}, l)
				appended.record = append(append(appended.record, byte(len(value)), 0, 0, 0), value...)
			}
			<-s.turn
			for _, c := range []change{
				&trimming{group: groups["trimmed"], from: 1, to: 4},
				&trimming{group: groups["replaced"], from: 6, to: 9},
				appended,
				&retiring{name: "removed"},
			} {
				s.queue <- &request{change: c, done: make(chan struct{})}
			}
			if !together {
				s.takeTurn(nil)
				<-s.turn
			}
			s.takeTurn(m)
			for range 2 {
				for _, want := range []struct {
					name        string
					first, last uint64
					anew        uint64 // index of the first new entry
				}{{"trimmed", 5, 9, 10}, {"replaced", 1, 10, 6}, {"removed", 0, 0, 0}, {"kept", 1, 9, 10}} {
					g, err := s.Group(want.name)
					if err != nil {
						t.Fatal(err)
					}
					if held, err := g.span(); err != nil || held != (span{want.first, want.last}) {
						t.Fatalf("%s: got %v, %v, want %d to %d", want.name, held, err, want.first, want.last)
					}
					for i := want.first; i <= want.last && i > 0; i++ {
						data := fmt.Sprint("old", i)
						if i >= want.anew {
							data = fmt.Sprint("new", i)
						}
						var log raft.Log
						if err := g.GetLog(i, &log); err != nil || string(log.Data) != data {
							t.Errorf("%s, entry %d: got %q, %v, want %q", want.name, i, log.Data, err, data)
						}
					}
				}
				live := int64(0)
				for _, g := range s.known {
					for _, p := range g.places {
						live += p.bytes()
					}
				}
				if got := s.current.live.Load(); got != live {
					t.Errorf("%d bytes are live, not %d", live, got)
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				if s, err = Open(path, &Options{CacheEntries: 1}); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}
