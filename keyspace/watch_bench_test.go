package keyspace

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/meshkv/meshkv/client"
)

// BenchmarkWatchedPut is what watches cost the writers: overwrites of 100,000 keys in
// 1,000 groups, with watches whose readers take each event at once. The metrics are, for each
// write: events and resyncs of all watches together, the processor's time of the writer's
// thread, and that of all others, the garbage collector's included.
func BenchmarkWatchedPut(b *testing.B) {
	const groups, each = 1000, 100
	keys := make([]string, 0, groups*each)
	for i := range each {
		for g := range groups {
			keys = append(keys, fmt.Sprintf("endpoint/%04d/%04d", g, i))
		}
	}
	for _, bench := range []struct {
		name     string
		watchers int
		prefix   func(i int) string
	}{
		{"none", 0, nil},
		{"1000-disjoint", groups, func(i int) string { return fmt.Sprintf("endpoint/%04d/", i) }},
		{"1000-quiet", groups, func(i int) string { return fmt.Sprintf("other/%04d/", i) }},
		{"1-all", 1, func(int) string { return "" }},
		{"100-all", 100, func(int) string { return "" }},
	} {
		b.Run(bench.name, func(b *testing.B) {
			k := openEmpty(testEnv())
			value := make([]byte, 100)
			for _, key := range keys {
				if _, err := k.Put(b.Context(), key, value, nil); err != nil {
					b.Fatal(err)
				}
			}
			ctx, cancel := context.WithCancel(b.Context())
			defer cancel()
			var events, resyncs atomic.Int64
			var wg sync.WaitGroup
			for i := range bench.watchers {
				w, err := k.Watch(ctx, bench.prefix(i), &client.WatchOptions{UpdatesOnly: true})
				if err != nil {
					b.Fatal(err)
				}
				if ev, err := w.Next(ctx); err != nil || ev.Type != client.EventSynced {
					b.Fatal(ev, err)
				}
				wg.Go(func() {
					defer w.Close()
					n, lost := int64(0), int64(0)
					for {
						ev, err := w.Next(ctx)
						if err != nil {
							events.Add(n)
							resyncs.Add(lost)
							return
						}
						n++
						if ev.Type == client.EventResync {
							lost++
						}
					}
				})
			}
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			i, writer, all := 0, threadTime(b), processTime(b)
			for b.Loop() {
				if _, err := k.Put(ctx, keys[i%len(keys)], value, nil); err != nil {
					b.Fatal(err)
				}
				i++
			}
			b.StopTimer()
			writer, all = threadTime(b)-writer, processTime(b)-all
			cancel()
			wg.Wait()
			b.ReportMetric(float64(writer)/float64(b.N), "writer-ns/op")
			b.ReportMetric(float64(all-writer)/float64(b.N), "rest-ns/op")
			b.ReportMetric(float64(events.Load())/float64(b.N), "events/op")
			b.ReportMetric(float64(resyncs.Load())/float64(b.N), "resyncs/op")
		})
	}
}

// processTime is for how many nanoseconds all threads of this process have run.
func processTime(b *testing.B) int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &ts); err != nil {
		b.Fatal(err)
	}
	return ts.Nano()
}
