// Command embedded measures one node used as a library: random reads beside a
// plain map behind an RWMutex in the same run, random overwrites at each level
// of durability, a restart, the heap of a key, and how long an empty node takes to
// get everything from a full one.
//
//	go run ./embedded                 # everything, about 4 minutes
//	go run ./embedded -only get,restart
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/node"
)

const (
	valueBytes = 100
	loadPuts   = 8 // writers while loading
)

// A bench is one run's settings.
type bench struct {
	runs     int
	duration time.Duration
	dir      string
}

func main() {
	only := flag.String("only", "get,put,restart,heap,join", "which measurements, separated by commas: get put restart heap join")
	runs := flag.Int("runs", 5, "runs of each read measurement; the median is printed")
	duration := flag.Duration("duration", 30*time.Second, "length of each write measurement")
	dir := flag.String("dir", "", "where the stores go (default: a new directory below the system's temporary one)")
	flag.Parse()
	if err := run(strings.Split(*only, ","), bench{*runs, *duration, *dir}); err != nil {
		fmt.Fprintln(os.Stderr, "embedded:", err)
		os.Exit(1)
	}
}

func run(only []string, b bench) error {
	if b.dir == "" {
		dir, err := os.MkdirTemp("", "meshkv-bench-")
		if err != nil {
			return fmt.Errorf("make a directory: %w", err)
		}
		defer os.RemoveAll(dir)
		b.dir = dir
	}
	fmt.Printf("machine: %d cores, %s %s/%s\n", runtime.NumCPU(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
	for _, what := range only {
		var err error
		switch what {
		case "get":
			err = b.get(1_000_000)
		case "put":
			err = b.puts()
		case "restart":
			err = b.restart(1_000_000)
		case "heap":
			err = b.heap(1_000_000)
		case "join":
			err = b.join()
		default:
			err = fmt.Errorf("-only %q: use get, put, restart, heap, join", what)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
	return nil
}

// keys are n distinct keys of 32 bytes.
func keys(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("endpoint/%023d", i)
	}
	rand.Shuffle(n, func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

func (b bench) start(durability node.Durability, sub string) (*node.Node, client.Keyspace, error) {
	cfg := node.Config{Name: "bench", Bind: "127.0.0.1:0", HTTP: "off", Durability: durability}
	if durability != node.DurabilityMemory {
		cfg.DataDir = filepath.Join(b.dir, sub)
	}
	ctx := context.Background()
	n, err := node.Start(ctx, cfg)
	if err != nil {
		return nil, nil, fmt.Errorf("start: %w", err)
	}
	ks, err := n.Keyspace(ctx, "bench")
	if err != nil {
		return nil, nil, fmt.Errorf("open keyspace: %w", err)
	}
	return n, ks, nil
}

// load puts every key once.
func load(ks client.Keyspace, all []string, writers int) error {
	var next atomic.Int64
	var wg sync.WaitGroup
	errs := make(chan error, writers)
	for range writers {
		wg.Go(func() {
			value := make([]byte, valueBytes)
			for {
				i := next.Add(1) - 1
				if i >= int64(len(all)) {
					return
				}
				for {
					_, err := ks.Put(context.Background(), all[i], value, nil)
					if err == nil {
						break
					}
					if !overloaded(err) {
						errs <- err
						return
					}
					runtime.Gosched()
				}
			}
		})
	}
	wg.Wait()
	select {
	case err := <-errs:
		return fmt.Errorf("load: %w", err)
	default:
		return nil
	}
}

func median[T int64 | float64](v []T) T {
	slices.Sort(v)
	return v[len(v)/2]
}

// get compares random reads with a map behind an RWMutex, in turn: with keys that
// are picked at random from a slice at each read, as a program would that has
// them somewhere; and with the keys prepared in the order of the reads, where
// several reads of the map overlap in the processor. All of them read the first
// and the last byte of the value, since a value that is not read is not fetched
// from memory either.
func (b bench) get(n int) error {
	nd, ks, err := b.start(node.DurabilityMemory, "")
	if err != nil {
		return err
	}
	defer nd.Stop(context.Background())
	all := keys(n)
	if err := load(ks, all, loadPuts); err != nil {
		return err
	}
	var mu sync.RWMutex
	plain := make(map[string][]byte)
	for _, k := range all {
		plain[strings.Clone(k)] = make([]byte, valueBytes)
	}
	fromMap := func(k string) (int, error) {
		mu.RLock()
		v := plain[k]
		mu.RUnlock()
		return len(v) + int(v[0]) + int(v[len(v)-1]), nil
	}
	ctx := context.Background()
	fromNode := func(k string) (int, error) {
		e, err := ks.Get(ctx, k, nil)
		if err != nil {
			return 0, err
		}
		return len(e.Value) + int(e.Value[0]) + int(e.Value[valueBytes-1]), nil
	}
	const reads = 2_000_000
	picks := make([]int32, reads)
	order := make([]string, reads)
	pick := func(i int) string { return all[picks[i]] }
	prepared := func(i int) string { return order[i] }
	for _, how := range []struct {
		name string
		key  func(i int) string
	}{{"picked from a slice", pick}, {"prepared in order", prepared}} {
		var ours, theirs, ratios []float64
		var allocs uint64
		for range b.runs {
			for i := range picks {
				picks[i] = int32(rand.IntN(n))
				order[i] = strings.Clone(all[picks[i]])
			}
			base, _, err := timeReads(reads, how.key, fromMap)
			if err != nil {
				return err
			}
			mine, n, err := timeReads(reads, how.key, fromNode)
			if err != nil {
				return err
			}
			allocs = max(allocs, n)
			ours, theirs, ratios = append(ours, mine), append(theirs, base), append(ratios, mine/base)
		}
		fmt.Printf("get, %d random keys, %s: %.0f ns; map+RWMutex %.0f ns; ratio %.2f (medians of %d); allocations per Get %.4f\n",
			n, how.name, median(ours), median(theirs), median(ratios), b.runs, float64(allocs)/reads)
	}
	return nil
}

// timeReads is ns per read and the allocations of all of them.
func timeReads(reads int, key func(i int) string, read func(key string) (int, error)) (ns float64, allocs uint64, err error) {
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start, sum := time.Now(), 0
	for i := range reads {
		n, err := read(key(i))
		if err != nil {
			return 0, 0, fmt.Errorf("read: %w", err)
		}
		sum += n
	}
	took := time.Since(start)
	runtime.ReadMemStats(&after)
	if sum != reads*valueBytes {
		return 0, 0, fmt.Errorf("read %d bytes, want %d", sum, reads*valueBytes)
	}
	return float64(took.Nanoseconds()) / float64(reads), after.Mallocs - before.Mallocs, nil
}

func (b bench) puts() error {
	for _, c := range []struct {
		durability node.Durability
		keys       int
		writers    int
	}{
		{node.DurabilityMemory, 1_000_000, 8},
		{node.DurabilityAsync, 100_000, 8},
		{node.DurabilityAsync, 1_000_000, 8},
		{node.DurabilityFsync, 100_000, 256},
	} {
		if err := b.put(c.durability, c.keys, c.writers); err != nil {
			return fmt.Errorf("%s, %d keys: %w", c.durability, c.keys, err)
		}
		runtime.GC()
	}
	return nil
}

// put overwrites random keys for a while and reports the rate and how long
// changes waited for the disk.
func (b bench) put(durability node.Durability, n, writers int) error {
	nd, ks, err := b.start(durability, fmt.Sprintf("%s-%d", durability, n))
	if err != nil {
		return err
	}
	defer nd.Stop(context.Background())
	all := keys(n)
	if err := load(ks, all, max(writers, loadPuts)); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), b.duration)
	defer cancel()
	var done, refused atomic.Int64
	var maxLag time.Duration
	var wg sync.WaitGroup
	errs := make(chan error, writers)
	start := time.Now()
	for range writers {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(rand.Uint64(), 1))
			value := make([]byte, valueBytes)
			// Counted here, or the writers would fight for the counter's line.
			var mine, no int64
			defer func() { done.Add(mine); refused.Add(no) }()
			for i := 0; i%64 != 0 || ctx.Err() == nil; i++ {
				_, err := ks.Put(context.Background(), all[rng.IntN(n)], value, nil)
				switch {
				case err == nil:
					mine++
				case overloaded(err):
					no++
					runtime.Gosched()
				default:
					errs <- err
					return
				}
			}
		})
	}
	var lags []float64
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
			st, err := nd.Status(context.Background())
			if err != nil {
				return err
			}
			maxLag = max(maxLag, st.Storage.Lag)
			lags = append(lags, st.Storage.Lag.Seconds())
		}
	}
	wg.Wait()
	took := time.Since(start)
	select {
	case err := <-errs:
		return err
	default:
	}
	fmt.Printf("put, %s, %d random keys, %d writers, %.0f s: %.0f puts/s; refused %d", durability, n, writers, took.Seconds(), float64(done.Load())/took.Seconds(), refused.Load())
	if durability != node.DurabilityMemory {
		fmt.Printf("; persistence lag median %.0f ms, max %.0f ms", median(lags)*1000, float64(maxLag.Milliseconds()))
	}
	fmt.Println()
	return nil
}

// restart measures from Start to the first served read, with n keys on disk.
func (b bench) restart(n int) error {
	nd, ks, err := b.start(node.DurabilityAsync, "restart")
	if err != nil {
		return err
	}
	all := keys(n)
	if err := load(ks, all, loadPuts); err != nil {
		return err
	}
	if err := nd.Stop(context.Background()); err != nil {
		return err
	}
	var took []float64
	for range b.runs {
		nd, ks = nil, nil
		runtime.GC()
		start := time.Now()
		if nd, ks, err = b.start(node.DurabilityAsync, "restart"); err != nil {
			return err
		}
		if _, err := ks.Get(context.Background(), all[0], nil); err != nil {
			return err
		}
		took = append(took, time.Since(start).Seconds())
		info, err := ks.Info(context.Background())
		if err != nil {
			return err
		}
		if info.Keys != n {
			return fmt.Errorf("%d keys after the restart, want %d", info.Keys, n)
		}
		if err := nd.Stop(context.Background()); err != nil {
			return err
		}
	}
	fmt.Printf("restart with %d keys on disk: serving after %.2f s (median of %d, max %.2f s)\n", n, median(took), b.runs, slices.Max(took))
	return nil
}

func overloaded(err error) bool { return errors.Is(err, client.ErrOverloaded) }
