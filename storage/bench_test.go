package storage_test

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"sort"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/meshkv/meshkv/crdt"
	"github.com/meshkv/meshkv/storage"
)

// Size of the stores of the benchmarks: -keys 100000 for the smaller one.
var keysFlag = flag.Int("keys", 1_000_000, "live cells in benchmarks")

const benchInc = crdt.Inc(7)

// table is the live cells of a node that only overwrites, without an index.
type table struct {
	shards [64]struct {
		mu    sync.Mutex
		cells []*crdt.Cell
		ch    crdt.Changes
	}
	clock *crdt.Clock
	keys  []string
	value []byte
	seq   atomic.Uint64
}

func newTable(n int) *table {
	t := &table{clock: crdt.NewClock(), value: make([]byte, 100)}
	for i := range t.value {
		t.value[i] = byte(rand.Uint32())
	}
	for i := range t.shards {
		t.shards[i].cells = make([]*crdt.Cell, n/64+1)
	}
	t.keys = make([]string, n)
	for i := range t.keys {
		t.keys[i] = fmt.Sprintf("key-%028d", i)
	}
	t.clock.Set(benchInc, crdt.Entry{Prefix: 1})
	return t
}

// put overwrites key i and hands the change to w.
func (t *table) put(w *storage.Writer, i int) (storage.Ticket, error) {
	sh := &t.shards[i%64]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	old := sh.cells[i/64]
	c := &crdt.Cell{
		Key: t.keys[i], Kind: crdt.KindRegister, Dot: crdt.Dot{Inc: benchInc, Seq: t.seq.Add(1)},
		HLC: crdt.HLCAt(1700000000000), Value: t.value,
	}
	sh.cells[i/64] = c
	sh.ch.Reset()
	sh.ch.Added = append(sh.ch.Added, c)
	if old != nil {
		sh.ch.Removed = append(sh.ch.Removed, old)
	}
	sh.ch.Clock = append(sh.ch.Clock, benchInc)
	return w.Append("bench", &sh.ch, t.clock)
}

func openBench(b *testing.B) storage.Store {
	b.Helper()
	s, err := storage.Open(b.TempDir(), nil)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := s.Load(context.Background()); err != nil {
		b.Fatal(err)
	}
	return s
}

func startWriter(b *testing.B, s storage.Store) (w *storage.Writer, stop func()) {
	w = storage.NewWriter(s, nil)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	return w, func() {
		cancel()
		if err := <-done; err != nil {
			b.Fatal(err)
		}
	}
}

// fill puts every key once and waits until that is on disk.
func fill(b *testing.B, t *table, w *storage.Writer) {
	b.Helper()
	var last storage.Ticket
	for i := range t.keys {
		var err error
		if last, err = t.put(w, i); err != nil {
			b.Fatal(err)
		}
		if i%1000 == 0 {
			for w.Overloaded() {
				time.Sleep(time.Millisecond)
			}
		}
	}
	if err := w.Wait(context.Background(), last); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkAppend is the cost to the caller of a one-cell overwrite, with the
// writer committing to memory beside it.
func BenchmarkAppend(b *testing.B) {
	s := storage.OpenMemory()
	if _, err := s.Load(context.Background()); err != nil {
		b.Fatal(err)
	}
	w, stop := startWriter(b, s)
	defer stop()
	clock := crdt.NewClock()
	clock.Set(benchInc, crdt.Entry{Prefix: 1})
	cells := make([]crdt.Cell, 4096)
	for i := range cells {
		cells[i] = crdt.Cell{Key: fmt.Sprintf("%032d", i), Kind: crdt.KindRegister, Dot: crdt.Dot{Inc: benchInc, Seq: uint64(i + 1)}, Value: make([]byte, 100)}
	}
	var ch crdt.Changes
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		ch.Reset()
		ch.Added = append(ch.Added, &cells[i&4095])
		ch.Removed = append(ch.Removed, &cells[(i+1)&4095])
		ch.Clock = append(ch.Clock, benchInc)
		if _, err := w.Append("bench", &ch, clock); err != nil {
			b.Fatal(err)
		}
		i++
	}
}

// BenchmarkAsync is random overwrites by 8 writers that do not wait for the
// disk, except as a node refuses writes while the backlog is at its bound. Run
// with -benchtime 30s. RATE limits the writers, as the rest of a node would.
func BenchmarkAsync(b *testing.B) {
	s := openBench(b)
	defer s.Close()
	w, stop := startWriter(b, s)
	t := newTable(*keysFlag)
	fill(b, t, w)
	rate := 0
	if v := os.Getenv("RATE"); v != "" {
		fmt.Sscan(v, &rate)
	}
	before := s.Stats()
	cpu := cpuTime()
	b.ResetTimer()

	stopLag := make(chan struct{})
	lagDone := make(chan time.Duration, 1)
	go func() { lagDone <- watchLag(w, stopLag) }()
	var next, refused atomic.Int64
	var wg sync.WaitGroup
	start := time.Now()
	for g := range 8 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(1, uint64(g)))
			for {
				n := next.Add(1)
				if n > int64(b.N) {
					return
				}
				if rate > 0 && n%64 == 0 {
					if ahead := time.Duration(n)*time.Second/time.Duration(rate) - time.Since(start); ahead > 0 {
						time.Sleep(ahead)
					}
				}
				for w.Overloaded() {
					refused.Add(1)
					time.Sleep(time.Millisecond)
				}
				if _, err := t.put(w, rng.IntN(len(t.keys))); err != nil {
					panic(err)
				}
			}
		})
	}
	wg.Wait()
	elapsed := time.Since(start)
	close(stopLag)
	b.StopTimer()
	st := s.Stats()
	b.ReportMetric(float64(b.N)/elapsed.Seconds(), "puts/s")
	b.ReportMetric((<-lagDone).Seconds()*1e3, "maxlag-ms")
	b.ReportMetric(float64(cpuTime()-cpu)/float64(elapsed), "cores")
	b.ReportMetric(float64(st.Commits-before.Commits)/elapsed.Seconds(), "commits/s")
	b.ReportMetric(float64(st.Checkpoints-before.Checkpoints), "checkpoints")
	b.ReportMetric(st.CheckpointSecs-before.CheckpointSecs, "checkpoint-s")
	b.ReportMetric(float64(refused.Load()), "refused")
	b.ReportMetric(float64(st.LogBytes)/1e6, "log-MB")
	stop()
}

// BenchmarkFsync is random overwrites by 256 writers that each wait for the disk.
func BenchmarkFsync(b *testing.B) {
	s := openBench(b)
	defer s.Close()
	w, stop := startWriter(b, s)
	defer stop()
	t := newTable(100_000)
	fill(b, t, w)
	b.ResetTimer()
	var next atomic.Int64
	var wg sync.WaitGroup
	lat := make([][]time.Duration, 256)
	for g := range 256 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(1, uint64(g)))
			for next.Add(1) <= int64(b.N) {
				begin := time.Now()
				ticket, err := t.put(w, rng.IntN(len(t.keys)))
				if err == nil {
					err = w.Wait(context.Background(), ticket)
				}
				if err != nil {
					panic(err)
				}
				lat[g] = append(lat[g], time.Since(begin))
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	var all []time.Duration
	for _, l := range lat {
		all = append(all, l...)
	}
	sort.Slice(all, func(i, j int) bool { return all[i] < all[j] })
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "puts/s")
	b.ReportMetric(float64(all[len(all)*99/100].Microseconds())/1e3, "p99-ms")
	b.ReportMetric(float64(all[len(all)-1].Microseconds())/1e3, "max-ms")
}

// BenchmarkLoad opens and verifies a store of 1M cells, with what a checkpoint
// took over, and with a log of as many overwrites as LOG says behind it.
func BenchmarkLoad(b *testing.B) {
	dir := b.TempDir()
	extra := 0
	if v := os.Getenv("LOG"); v != "" {
		fmt.Sscan(v, &extra)
	}
	t := newTable(*keysFlag)
	o := &storage.Options{CheckpointIdle: 50 * time.Millisecond}
	for _, n := range []int{0, extra} {
		s, err := storage.Open(dir, o)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := s.Load(context.Background()); err != nil {
			b.Fatal(err)
		}
		w, stop := startWriter(b, s)
		if n == 0 {
			fill(b, t, w)
			for s.Stats().LogBytes > 1<<10 {
				time.Sleep(10 * time.Millisecond)
			}
			o = nil
		}
		for range n {
			if _, err := t.put(w, rand.IntN(len(t.keys))); err != nil {
				b.Fatal(err)
			}
		}
		stop()
		st := s.Stats()
		b.Logf("data %d MB, log %d MB", st.DataBytes>>20, st.LogBytes>>20)
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		runtime.GC()
		s, err := storage.Open(dir, &storage.Options{CheckpointIdle: -1, CheckpointBytes: 1 << 40})
		if err != nil {
			b.Fatal(err)
		}
		st, err := s.Load(context.Background())
		if err != nil {
			b.Fatal(err)
		}
		if n := len(st.Keyspaces["bench"].Cells); n != len(t.keys) {
			b.Fatalf("%d cells", n)
		}
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

func watchLag(w *storage.Writer, stop <-chan struct{}) (worst time.Duration) {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return worst
		case <-tick.C:
			_, lag := w.Backlog()
			worst = max(worst, lag)
		}
	}
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
