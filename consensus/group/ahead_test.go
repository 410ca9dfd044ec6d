package group

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/hashicorp/raft"
)

// A heldLog is in memory; while it is held, what is stored waits, and fails once
// it is broken.
type heldLog struct {
	*raft.InmemStore
	mu     sync.Mutex // protects the fields below
	held   bool
	broken bool
	steps  *sync.Cond
	writes int // that go on though it is held
}

var errBroken = errors.New("broken disk")

func newHeldLog() *heldLog {
	h := &heldLog{InmemStore: raft.NewInmemStore()}
	h.steps = sync.NewCond(&h.mu)
	return h
}

func (h *heldLog) StoreLogs(logs []*raft.Log) error {
	h.mu.Lock()
	for h.held && h.writes == 0 && !h.broken {
		h.steps.Wait()
	}
	if h.held && h.writes > 0 {
		h.writes--
	}
	broken := h.broken
	h.mu.Unlock()
	if broken {
		return errBroken
	}
	if last, _ := h.LastIndex(); last != 0 && logs[0].Index != last+1 {
		return fmt.Errorf("entry %d after %d", logs[0].Index, last)
	}
	return h.InmemStore.StoreLogs(logs)
}

func (h *heldLog) StoreLog(log *raft.Log) error { return h.StoreLogs([]*raft.Log{log}) }

// set changes the disk.
func (h *heldLog) set(fn func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	fn()
	h.steps.Broadcast()
}

func (h *heldLog) last() uint64 {
	last, _ := h.LastIndex()
	return last
}

func commands(from, n int) (logs []*raft.Log) {
	for i := range n {
		logs = append(logs, &raft.Log{Index: uint64(from + i), Term: 1, Type: raft.LogCommand, Data: fmt.Append(nil, from+i)})
	}
	return logs
}

// An aheadRun takes random steps beside a model, which is all that was stored.
type aheadRun struct {
	t     *testing.T
	disk  *heldLog
	log   *aheadLog
	leads atomic.Bool
	model []*raft.Log
}

// check compares what is read, and what counts, with the model.
func (r *aheadRun) check() {
	r.t.Helper()
	synctest.Wait()
	if last, _ := r.log.LastIndex(); last != uint64(len(r.model)) {
		r.t.Fatalf("last entry %d, want %d", last, len(r.model))
	}
	for i, want := range r.model {
		var got raft.Log
		if err := r.log.GetLog(want.Index, &got); err != nil || string(got.Data) != string(want.Data) {
			r.t.Fatalf("entry %d: %q, %v", want.Index, got.Data, err)
		}
		if got, want := r.log.limit(uint64(i+1)), min(uint64(i+1), r.disk.last()); got != want {
			r.t.Fatalf("a commit of %d with %d on disk counts up to %d", i+1, r.disk.last(), got)
		}
	}
}

// reaches has fn end with everything on disk.
func (r *aheadRun) reaches(fn func() error) {
	r.t.Helper()
	done := make(chan error, 1)
	go func() { done <- fn() }()
	synctest.Wait()
	r.disk.set(func() { r.disk.held = false })
	if err := <-done; err != nil {
		r.t.Fatal(err)
	}
	if synctest.Wait(); r.disk.last() != uint64(len(r.model)) {
		r.t.Fatalf("%d of %d on disk", r.disk.last(), len(r.model))
	}
}

func (r *aheadRun) store(leads bool, logs []*raft.Log) error {
	r.leads.Store(leads)
	r.model = append(r.model, logs...)
	return r.log.StoreLogs(logs)
}

// awaits looks that an entry is waited for until it is on disk.
func (r *aheadRun) awaits(index uint64) {
	r.t.Helper()
	done := make(chan error, 1)
	go func() { done <- r.log.await(index) }()
	synctest.Wait()
	select {
	case err := <-done:
		if err != nil || r.disk.last() < index {
			r.t.Fatalf("entry %d was not waited for: %v", index, err)
		}
	default:
		if r.disk.last() >= index {
			r.t.Fatalf("entry %d is on disk and is waited for", index)
		}
		r.reaches(func() error { return <-done })
	}
}

func (r *aheadRun) step(rng *rand.Rand) {
	next := len(r.model) + 1
	switch rng.IntN(9) {
	case 0, 1, 2:
		if err := r.store(true, commands(next, 1+rng.IntN(4))); err != nil {
			r.t.Fatal(err)
		}
	case 3: // the entry that begins a term
		r.reaches(func() error { return r.store(true, []*raft.Log{{Index: uint64(next), Type: raft.LogNoop}}) })
	case 4: // a follower's
		r.reaches(func() error { return r.store(false, commands(next, 2)) })
	case 5:
		r.reaches(func() error { return r.log.SetUint64([]byte("vote"), 7) })
	case 6:
		r.awaits(uint64(rng.IntN(next)))
	case 7:
		if next == 1 {
			return
		}
		from := 1 + rng.IntN(next-1)
		r.model = r.model[: from-1 : from-1]
		r.reaches(func() error { return r.log.DeleteRange(uint64(from), uint64(next-1)) })
	case 8:
		held, writes := rng.IntN(3) > 0, rng.IntN(3)
		r.disk.set(func() { r.disk.held, r.disk.writes = held, writes })
	}
}

// Whatever a leader writes ahead is read at once, is on disk in its order, and counts for
// nobody before.
func TestAheadLog(t *testing.T) {
	for seed := range uint64(200) {
		synctest.Test(t, func(t *testing.T) {
			r := &aheadRun{t: t, disk: newHeldLog()}
			r.log = newAheadLog(r.disk, r.leads.Load)
			rng := rand.New(rand.NewPCG(seed, 0))
			for range 60 {
				r.step(rng)
				r.check()
			}
			r.disk.set(func() { r.disk.held = false })
			r.log.close()
			r.log.rest()
		})
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// Who deletes old entries waits for none that came later, and nobody for those that come
// while he waits.
func TestAheadLogFlushEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := newHeldLog()
		a := newAheadLog(disk, func() bool { return true })
		next := 1
		store := func() {
			if err := a.StoreLogs(commands(next, 1)); err != nil {
				t.Fatal(err)
			}
			next++
			synctest.Wait()
		}
		store()
		disk.set(func() { disk.held = true })
		store()
		if err := a.DeleteRange(1, 1); err != nil { // waits for nothing
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- a.flush() }()
		store()
		for range 5 { // there is always one more
			store()
			disk.set(func() { disk.writes = 1 })
			synctest.Wait()
		}
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		default:
			t.Error("it waits for what came later")
		}
		disk.set(func() { disk.held = false })
		a.rest()
	})
}

// After a failure nothing is written, and who waits learns it; so does who waits at the end.
func TestAheadLogFails(t *testing.T) {
	for name, end := range map[string]func(*heldLog, *aheadLog){
		"failed": func(h *heldLog, _ *aheadLog) { h.set(func() { h.broken = true }) },
		"closed": func(_ *heldLog, a *aheadLog) { go a.close() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				disk := newHeldLog()
				a := newAheadLog(disk, func() bool { return true })
				if err := a.StoreLogs(commands(1, 1)); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				disk.set(func() { disk.held = true })
				for i := range 3 {
					if err := a.StoreLogs(commands(2+i, 1)); err != nil {
						t.Fatal(err)
					}
				}
				waits := make(chan error, 1)
				go func() { waits <- a.await(3) }()
				synctest.Wait()
				end(disk, a)
				if err := <-waits; !errors.Is(err, errNotStored) {
					t.Errorf("got %v", err)
				}
				if err := a.await(1); err != nil {
					t.Errorf("one that is on disk: %v", err)
				}
				if name == "failed" {
					for what, err := range map[string]error{
						"store": a.StoreLogs(commands(5, 1)), "vote": a.SetUint64([]byte("vote"), 1), "delete": a.DeleteRange(1, 1),
						"follower": a.StoreLogs([]*raft.Log{{Index: 5, Type: raft.LogNoop}}),
					} {
						if !errors.Is(err, errBroken) {
							t.Errorf("%s: %v", what, err)
						}
					}
					if n := a.limit(4); n != 1 {
						t.Errorf("a commit of 4 counts up to %d", n)
					}
				}
				disk.set(func() { disk.held = false })
				a.rest()
			})
		})
	}
}

// A request says of no commit beyond what it shows, nor beyond this disk.
func TestCap(t *testing.T) {
	limit := uint64(8)
	tr := &transport{limit: func(c uint64) uint64 { return min(c, limit) }}
	for _, c := range []struct {
		prev    uint64
		entries []*raft.Log
		commit  uint64
		want    uint64
	}{
		{5, nil, 9, 5},
		{5, commands(6, 2), 9, 7},
		{5, commands(6, 4), 9, 8},
		{5, commands(6, 4), 6, 6},
		{0, nil, 9, 0},
	} {
		req := &raft.AppendEntriesRequest{PrevLogEntry: c.prev, Entries: c.entries, LeaderCommitIndex: c.commit}
		if tr.cap(req); req.LeaderCommitIndex != c.want {
			t.Errorf("after %d with %d entries, %d committed: it says %d, want %d", c.prev, len(c.entries), c.commit, req.LeaderCommitIndex, c.want)
		}
	}
}
