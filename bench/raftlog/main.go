// Command raftlog compares stores of Raft logs under the load of many groups of
// one node: durable appends of 100 B by concurrent appenders.
//
// A group is one goroutine that appends what waits for it, at most 512 entries at
// once, as the main loop of a Raft leader does. Each appender waits until its
// entry is on disk. Trailing entries are deleted as Raft does after a snapshot.
//
//	go -C bench run ./raftlog -dir DIR
//
// DIR must be on the disk to be measured. The cells run one after the other in
// every round, so that a busy machine slows all of them alike.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	"github.com/meshkv/meshkv/consensus/logstore"
)

const (
	entryBytes = 100
	maxBatch   = 512
	keep       = 10_000 // entries of a group; what is older is deleted at twice that
)

// A system is a store under test.
type system struct {
	name string
	// open makes a store in dir. syncs is how many fsyncs it made for n calls of
	// StoreLogs.
	open func(dir string) (e logstore.Engine, syncs func(calls uint64) uint64, err error)
}

var systems = []system{
	{"journal", func(dir string) (logstore.Engine, func(uint64) uint64, error) {
		e, err := logstore.Open(filepath.Join(dir, "raft-log"), nil)
		if err != nil {
			return nil, nil, err
		}
		return journal{e}, func(uint64) uint64 { return e.Stats().Commits }, nil
	}},
	{"raft-boltdb", func(dir string) (logstore.Engine, func(uint64) uint64, error) {
		e, err := logstore.OpenEngine(logstore.BoltDB, dir, nil)
		return e, func(calls uint64) uint64 { return 2 * calls }, err
	}},
	{"raft-wal", func(dir string) (logstore.Engine, func(uint64) uint64, error) {
		return &walEngine{dir: dir}, func(calls uint64) uint64 { return calls }, nil
	}},
}

// journal is a Store whose commits can be counted.
type journal struct{ *logstore.Store }

func (j journal) Group(name string) (logstore.Log, error) { return j.Store.Group(name) }

func (j journal) Remove(_ context.Context, name string) error { return j.Store.Remove(name) }

// walEngine is a raft-wal for each group.
type walEngine struct {
	dir  string
	open []*wal.WAL
}

func (w *walEngine) Group(name string) (logstore.Log, error) {
	dir := filepath.Join(w.dir, name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	l, err := wal.Open(dir)
	if err != nil {
		return nil, err
	}
	w.open = append(w.open, l)
	return l, nil
}

func (w *walEngine) Remove(context.Context, string) error { return errors.ErrUnsupported }

func (w *walEngine) Close() error {
	var errs []error
	for _, l := range w.open {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}

// A cell is one point of the comparison.
type cell struct{ groups, appenders int }

var cells = []cell{{1, 1}, {1, 64}, {1, 256}, {50, 64}, {50, 256}}

// A result is what one run of a cell gave, by second.
type result struct{ appends, syncs float64 }

func main() {
	dir := flag.String("dir", ".", "where the files are made, and removed")
	rounds := flag.Int("rounds", 5, "runs of each cell, of which the median is told")
	length := flag.Duration("time", 2*time.Second, "length of a run")
	only := flag.String("system", "", "measure this one alone")
	groups := flag.Int("groups", 0, "measure with this number of groups alone")
	flag.Parse()
	cells = slices.DeleteFunc(cells, func(c cell) bool { return *groups != 0 && c.groups != *groups })
	systems = slices.DeleteFunc(systems, func(s system) bool { return *only != "" && s.name != *only })
	if err := run(*dir, *rounds, *length); err != nil {
		fmt.Fprintln(os.Stderr, "raftlog:", err)
		os.Exit(1)
	}
}

func run(dir string, rounds int, length time.Duration) error {
	type key struct {
		cell   cell
		system string
	}
	results := make(map[key][]result)
	before := loadAverage()
	for range rounds {
		for _, c := range cells {
			for _, s := range systems {
				r, err := measure(dir, s, c, length)
				if err != nil {
					return fmt.Errorf("%s, %d groups, %d appenders: %w", s.name, c.groups, c.appenders, err)
				}
				results[key{c, s.name}] = append(results[key{c, s.name}], r)
			}
		}
	}
	fmt.Printf("medians of %d runs of %v; load average before: %s, after: %s\n\n", rounds, length, before, loadAverage())
	fmt.Println("| groups | appenders | store | appends/s | from - to | fsyncs/s | appends per fsync |")
	fmt.Println("|---|---|---|---|---|---|---|")
	for _, c := range cells {
		for _, s := range systems {
			rs := results[key{c, s.name}]
			slices.SortFunc(rs, func(a, b result) int { return int(a.appends - b.appends) })
			m := rs[len(rs)/2]
			fmt.Printf("| %d | %d | %s | %.0f | %.0f - %.0f | %.0f | %.1f |\n", c.groups, c.appenders, s.name,
				m.appends, rs[0].appends, rs[len(rs)-1].appends, m.syncs, m.appends/m.syncs)
		}
	}
	return nil
}

func loadAverage() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	return strings.Join(strings.Fields(string(b))[:3], " ")
}

// measure runs one cell in a directory of its own.
func measure(parent string, s system, c cell, length time.Duration) (r result, err error) {
	dir, err := os.MkdirTemp(parent, "raftlog")
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	e, syncs, err := s.open(dir)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	groups := make([]*leader, c.groups)
	for i := range groups {
		log, err := e.Group(fmt.Sprintf("group-%d", i))
		if err != nil {
			return r, err
		}
		groups[i] = &leader{log: log, proposals: make(chan chan<- error, maxBatch)}
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	syncedBefore := syncs(0)
	begin := time.Now()
	var appends, calls atomic.Uint64
	var leaders, appenders sync.WaitGroup
	for _, l := range groups {
		leaders.Go(func() {
			if err := l.run(&calls); err != nil {
				cancel(err)
			}
		})
	}
	timer := time.AfterFunc(length, func() { cancel(nil) })
	defer timer.Stop()
	for i := range c.appenders {
		l := groups[i%len(groups)]
		appenders.Go(func() {
			done := make(chan error, 1)
			for ctx.Err() == nil {
				l.proposals <- done
				if <-done != nil {
					return
				}
				appends.Add(1)
			}
		})
	}
	appenders.Wait()
	took := time.Since(begin).Seconds()
	for _, l := range groups {
		close(l.proposals)
	}
	leaders.Wait()
	if err := context.Cause(ctx); err != nil && !errors.Is(err, context.Canceled) {
		return r, err
	}
	return result{float64(appends.Load()) / took, float64(syncs(calls.Load())-syncedBefore) / took}, nil
}

// A leader appends what is proposed to one group.
type leader struct {
	log       logstore.Log
	proposals chan chan<- error
}

// run returns when proposals is closed. After an error it goes on answering with
// it, so that nobody waits.
func (l *leader) run(calls *atomic.Uint64) (failed error) {
	var first, last uint64 = 1, 0
	var waiting []chan<- error
	for p := range l.proposals {
		waiting = append(waiting[:0], p)
		for len(waiting) < maxBatch && len(l.proposals) > 0 {
			waiting = append(waiting, <-l.proposals)
		}
		logs := make([]*raft.Log, len(waiting))
		for i := range logs {
			last++
			logs[i] = &raft.Log{Index: last, Term: 1, Data: make([]byte, entryBytes)}
		}
		if failed == nil {
			failed = l.log.StoreLogs(logs)
			calls.Add(1)
		}
		for _, done := range waiting {
			done <- failed
		}
		if failed == nil && last-first >= 2*keep {
			failed = l.log.DeleteRange(first, last-keep)
			first = last - keep + 1
			calls.Add(1)
		}
	}
	return failed
}
