package storage_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meshkv/meshkv/crdt"
	"github.com/meshkv/meshkv/storage"
	"github.com/meshkv/meshkv/storage/storagetest"
	"pgregory.net/rapid"
)

// slow is a store in memory whose commits take a while, or fail.
type slow struct {
	storage.Store
	took time.Duration

	mu      sync.Mutex // protects the fields below
	batches []storage.Batch
	err     error
}

func newSlow(t interface{ Fatal(...any) }, took time.Duration) *slow {
	s := &slow{Store: storage.OpenMemory(), took: took}
	if _, err := s.Load(context.Background()); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *slow) Commit(ctx context.Context, b storage.Batch) error {
	time.Sleep(s.took)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	copied := storage.Batch{HLCBound: b.HLCBound}
	for _, ks := range b.Keyspaces {
		ks.Put, ks.Drop, ks.Clock = slices.Clone(ks.Put), slices.Clone(ks.Drop), slices.Clone(ks.Clock)
		ks.PendingAdd, ks.PendingDrop = slices.Clone(ks.PendingAdd), slices.Clone(ks.PendingDrop)
		copied.Keyspaces = append(copied.Keyspaces, ks)
	}
	s.batches = append(s.batches, copied)
	return s.Store.Commit(ctx, b)
}

// committed are the batches so far.
func (s *slow) committed() []storage.Batch {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.batches)
}

func run(t *testing.T, w *storage.Writer) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	return func() error {
		cancel()
		return <-done
	}
}

func added(cells ...*crdt.Cell) *crdt.Changes { return &crdt.Changes{Added: cells} }

func TestWriterGathersWhileItCommits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSlow(t, 100*time.Millisecond)
		w := storage.NewWriter(s, nil)
		stop := run(t, w)
		var last storage.Ticket
		for seq := uint64(1); seq <= 5; seq++ {
			var err error
			if last, err = w.Append("ks", added(storagetest.Cell(1, seq, "k", "v")), crdt.NewClock()); err != nil {
				t.Fatal(err)
			}
			synctest.Wait() // the first one is on its way, alone
		}
		if bytes, _ := w.Backlog(); bytes == 0 {
			t.Error("no backlog")
		}
		time.Sleep(50 * time.Millisecond)
		if _, lag := w.Backlog(); lag != 50*time.Millisecond {
			t.Errorf("lag of %v, want 50ms", lag)
		}
		start := time.Now()
		if err := w.Wait(t.Context(), last); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took != 150*time.Millisecond {
			t.Errorf("waited %v, want two commits less 50ms", took)
		}
		if bytes, lag := w.Backlog(); bytes != 0 || lag != 0 {
			t.Errorf("backlog of %d bytes, %v", bytes, lag)
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		if len(s.committed()) != 2 || len(s.committed()[1].Keyspaces[0].Put) != 4 {
			t.Fatalf("got %d batches, want 1 cell and then 4", len(s.committed()))
		}
	})
}

func TestWriterLingersUnlessAwaited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSlow(t, 0)
		w := storage.NewWriter(s, &storage.WriterOptions{Linger: time.Second})
		stop := run(t, w)
		start := time.Now()
		w.Bound(1) // at once
		synctest.Wait()
		w.Bound(2) // waits
		time.Sleep(300 * time.Millisecond)
		if len(s.committed()) != 1 {
			t.Fatalf("%d commits before Linger has passed", len(s.committed()))
		}
		if err := w.Wait(t.Context(), w.Bound(3)); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took != 300*time.Millisecond || len(s.committed()) != 2 || s.committed()[1].HLCBound != 3 {
			t.Fatalf("got %d commits after %v, want the second at once", len(s.committed()), took)
		}
		w.Bound(4)
		time.Sleep(1100 * time.Millisecond)
		if len(s.committed()) != 3 {
			t.Fatal("what nobody waits for is not committed")
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestWriterFlushesAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSlow(t, 100*time.Millisecond)
		w := storage.NewWriter(s, &storage.WriterOptions{Linger: time.Hour})
		stop := run(t, w)
		w.Bound(1)
		synctest.Wait()
		ticket := w.Bound(2)
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		if err := w.Wait(t.Context(), ticket); err != nil || len(s.committed()) != 2 {
			t.Fatalf("got %v and %d commits, want 2", err, len(s.committed()))
		}
		if _, err := w.Append("ks", added(storagetest.Cell(1, 1, "k", "v")), crdt.NewClock()); !errors.Is(err, storage.ErrClosed) {
			t.Errorf("append after the end: got %v, want ErrClosed", err)
		}
		if err := w.Wait(t.Context(), w.Bound(3)); !errors.Is(err, storage.ErrClosed) {
			t.Errorf("bound after the end: got %v, want ErrClosed", err)
		}
	})
}

func TestWriterFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSlow(t, 100*time.Millisecond)
		s.err = errInjected
		w := storage.NewWriter(s, nil)
		stop := run(t, w)
		first := w.Bound(1)
		synctest.Wait()
		second := w.Bound(2) // gathered while the first fails
		for _, ticket := range []storage.Ticket{first, second} {
			if err := w.Wait(t.Context(), ticket); !errors.Is(err, errInjected) {
				t.Errorf("got %v, want the injected error", err)
			}
		}
		if err := stop(); !errors.Is(err, errInjected) {
			t.Errorf("run: got %v", err)
		}
		if _, err := w.Append("ks", added(storagetest.Cell(1, 1, "k", "v")), crdt.NewClock()); !errors.Is(err, errInjected) {
			t.Errorf("append: got %v", err)
		}
		if err := w.Wait(t.Context(), w.Bound(3)); !errors.Is(err, errInjected) {
			t.Errorf("bound: got %v", err)
		}
	})
}

func TestWaitEndsWithItsContext(t *testing.T) {
	w := storage.NewWriter(newSlow(t, 0), nil) // and nobody runs it
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.Wait(ctx, w.Bound(1)); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	if err := w.Wait(ctx, storage.Ticket{}); err != nil {
		t.Fatalf("zero ticket: got %v", err)
	}
}

func TestOverloaded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// Each commit takes a second, so that more than half a second of work at the
		// rate of the latest is too much, down to 1/16 of the bound.
		s := newSlow(t, time.Second)
		w := storage.NewWriter(s, &storage.WriterOptions{MaxBacklog: 8 << 20})
		stop := run(t, w)
		big := string(make([]byte, 128<<10))
		var seq uint64
		add := func(n int) (last storage.Ticket) {
			for range n {
				seq++
				var err error
				if last, err = w.Append("ks", added(storagetest.Cell(1, seq, "k", big)), crdt.NewClock()); err != nil {
					t.Fatal(err)
				}
			}
			return last
		}
		add(63)
		if w.Overloaded() {
			t.Error("overloaded by 63 values before any rate is known")
		}
		last := add(2)
		if !w.Overloaded() {
			t.Error("not overloaded by 65 values")
		}
		if err := w.Wait(t.Context(), last); err != nil {
			t.Fatal(err)
		}
		for range 10 {
			// One value alone says nothing about the rate, and keeps the writer
			// busy so that the next two are one batch.
			add(1)
			synctest.Wait()
			if err := w.Wait(t.Context(), add(2)); err != nil {
				t.Fatal(err)
			}
		}
		add(2)
		if w.Overloaded() {
			t.Error("overloaded by a small backlog")
		}
		if add(4); !w.Overloaded() {
			t.Error("not overloaded by six values at two per second")
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
	})
}

// Whatever a replica does, and however its changes fall into batches, the store
// holds what the replica holds.
func TestWriterFollowsReplica(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := newSlow(rt, 0)
		w := storage.NewWriter(s, nil)
		newReplica := func(inc crdt.Inc) (*crdt.Replica, *crdt.MapCells) {
			cells := crdt.NewMapCells()
			return crdt.NewReplica(crdt.State{Inc: inc, Cells: cells, Clock: crdt.NewClock()}), cells
		}
		r, cells := newReplica(1)
		peer, _ := newReplica(2)
		var ops []*crdt.Op
		flush := func() {
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			if err := w.Run(ctx); err != nil {
				rt.Fatal(err)
			}
			w = storage.NewWriter(s, nil)
		}
		for range rapid.IntRange(1, 40).Draw(rt, "steps") {
			key := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(rt, "key")
			write := crdt.Write{Key: key, Kind: crdt.KindRegister, Value: []byte("v"), HLC: 1}
			switch rapid.IntRange(0, 6).Draw(rt, "step") {
			case 0, 1:
				if _, err := r.Put(write); err != nil {
					rt.Fatal(err)
				}
			case 2:
				r.Delete(key, 1)
			case 3:
				made, err := peer.Put(write)
				if err != nil {
					rt.Fatal(err)
				}
				ops = append(ops, made...)
			case 4: // in any order, so that there are pending deaths
				if len(ops) > 0 {
					r.Apply(ops[rapid.IntRange(0, len(ops)-1).Draw(rt, "op")])
				}
			case 5:
				flush()
			case 6:
				r.Close(crdt.Inc(rapid.IntRange(1, 12).Draw(rt, "inc")))
			}
			if _, err := w.Append("ks", r.Changes(), r.Clock()); err != nil {
				rt.Fatal(err)
			}
			r.Changes().Reset()
		}
		flush()
		st, err := s.Load(context.Background())
		if err != nil {
			rt.Fatal(err)
		}
		got, exists := st.Keyspaces["ks"]
		if !exists {
			got.Clock = crdt.NewClock()
		}
		if len(got.Cells) != cells.Len() || !got.Clock.Equal(r.Clock()) || !slices.Equal(got.Pending, r.Pending()) {
			rt.Fatalf("got %d cells, pending %v, want %d, %v", len(got.Cells), got.Pending, cells.Len(), r.Pending())
		}
		for _, c := range got.Cells {
			if cells.ByDot(c.Dot) == nil {
				rt.Fatalf("%v is in the store only", c.Dot)
			}
		}
		for _, b := range s.committed() {
			if err := checkNet(b); err != nil {
				rt.Fatal(err)
			}
		}
	})
}

// checkNet verifies that nothing in b both comes and goes.
func checkNet(b storage.Batch) error {
	for _, ks := range b.Keyspaces {
		for _, c := range ks.Put {
			if slices.Contains(ks.Drop, c.Dot) {
				return fmt.Errorf("%v is both put and dropped", c.Dot)
			}
		}
		for _, d := range ks.PendingAdd {
			if slices.Contains(ks.PendingDrop, d) {
				return fmt.Errorf("%v is both added and dropped", d)
			}
		}
	}
	return nil
}

// A cell that came and went before a commit is in no batch, neither as a put nor
// as a drop.
func TestWriterCancels(t *testing.T) {
	s := newSlow(t, 0)
	w := storage.NewWriter(s, nil)
	a, b, c := storagetest.Cell(1, 5, "k", "v"), storagetest.Cell(1, 6, "k", "v"), storagetest.Cell(2, 1, "k", "v")
	for _, ch := range []*crdt.Changes{
		{Added: []*crdt.Cell{a}, Removed: []*crdt.Cell{storagetest.Cell(1, 4, "k", "old")}},
		{Added: []*crdt.Cell{b}, Removed: []*crdt.Cell{a}},
		{Added: []*crdt.Cell{c}, Removed: []*crdt.Cell{storagetest.Cell(1, 9, "k", "elsewhere")}},
		{Removed: []*crdt.Cell{c}},
	} {
		if _, err := w.Append("ks", ch, crdt.NewClock()); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.Run(ctx); err != nil {
		t.Fatal(err)
	}
	ks := s.committed()[0].Keyspaces[0]
	if len(ks.Put) != 1 || ks.Put[0] != b || !slices.Equal(ks.Drop, []crdt.Dot{{Inc: 1, Seq: 4}, {Inc: 1, Seq: 9}}) {
		t.Fatalf("got %v and %v", ks.Put, ks.Drop)
	}
}

// What waits of a clock is its latest entries, however often they changed.
func TestBacklogCountsAnEntryOnce(t *testing.T) {
	const entry, island = 32, 16 // entryCost and dotCost
	clock := crdt.NewClock()
	clock.Add(crdt.Span{Inc: 1, Lo: 1, Hi: 1})
	for seq := uint64(3); seq <= 2001; seq += 2 {
		clock.Add(crdt.Span{Inc: 1, Lo: seq, Hi: seq})
	}
	for inc := crdt.Inc(2); inc <= 30; inc++ { // more than are searched one by one
		clock.Add(crdt.Span{Inc: inc, Lo: 1, Hi: 1})
	}
	s := newSlow(t, 0)
	w := storage.NewWriter(s, nil)
	backlogAfter := func(incs ...crdt.Inc) int64 {
		t.Helper()
		if _, err := w.Append("ks", &crdt.Changes{Clock: incs}, clock); err != nil {
			t.Fatal(err)
		}
		bytes, _ := w.Backlog()
		return bytes
	}
	check := func(what string, got, want int64) {
		t.Helper()
		if got != want {
			t.Errorf("%s: a backlog of %d bytes, want %d", what, got, want)
		}
	}
	check("repeated", backlogAfter(slices.Repeat([]crdt.Inc{1, 2}, 1000)...), 2*entry+1000*island)
	check("again in the batch", backlogAfter(1, 2, 1), 2*entry+1000*island)
	for seq := uint64(2); seq < 1001; seq += 2 {
		clock.Add(crdt.Span{Inc: 1, Lo: seq, Hi: seq})
	}
	check("smaller", backlogAfter(1), 2*entry+500*island)
	all := clock.Incs()
	check("many", backlogAfter(slices.Concat(all, all)...), 30*entry+500*island)
	check("many again", backlogAfter(slices.Concat(all, all)...), 30*entry+500*island)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if bytes, _ := w.Backlog(); bytes != 0 {
		t.Errorf("a backlog of %d bytes after the commit", bytes)
	}
	got := s.committed()[0].Keyspaces[0].Clock
	if len(got) != 30 {
		t.Fatalf("%d entries, want 30", len(got))
	}
	for _, e := range got {
		want := clock.Entry(e.Inc)
		if e.Entry.Prefix != want.Prefix || len(e.Entry.Islands) != len(want.Islands) {
			t.Errorf("incarnation %d: not the latest entry", e.Inc)
		}
	}
}
