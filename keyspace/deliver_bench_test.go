package keyspace

import (
	"context"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/meshkv/meshkv/client"
)

// BenchmarkDeliver is what a node does with new keys that a peer puts, frame by frame:
// until its watch has shown them. The peer's part is not counted.
func BenchmarkDeliver(b *testing.B) {
	for _, batch := range []int{1, 16, 256} {
		b.Run(fmt.Sprint(batch), func(b *testing.B) {
			from, to := openEmpty(testEnv()), openEmpty(peerEnv())
			p := newPipe(from, to)
			p.join(b)
			w, err := to.Watch(context.Background(), "", &client.WatchOptions{UpdatesOnly: true})
			if err != nil {
				b.Fatal(err)
			}
			defer w.Close()
			value := make([]byte, benchValueBytes)
			var spent time.Duration
			var before, after runtime.MemStats
			var allocs, bytes uint64
			seen, put := 0, 0
			for b.Loop() {
				p.now = p.now.Add(time.Millisecond)
				for range batch {
					if _, err := from.Put(context.Background(), benchKey(put), value, nil); err != nil {
						b.Fatal(err)
					}
					put++
				}
				frame, ok := from.NextFrame(p.now, p.peer(0), nil, 64<<10)
				if !ok {
					b.Fatal("no frame")
				}
				if put%4096 < batch {
					runtime.ReadMemStats(&before)
				}
				began := time.Now()
				if err := to.Step(p.now, from.env.Self, frame); err != nil {
					b.Fatal(err)
				}
				for seen < put {
					ev, err := w.Next(context.Background())
					if err != nil {
						b.Fatal(err)
					}
					if ev.Type == client.EventPut {
						seen++
					}
				}
				spent += time.Since(began)
				if put%4096 < batch {
					runtime.ReadMemStats(&after)
					allocs += after.Mallocs - before.Mallocs
					bytes += after.TotalAlloc - before.TotalAlloc
				}
			}
			samples := float64(put/4096) * float64(batch)
			b.ReportMetric(float64(spent.Nanoseconds())/float64(put), "ns/key")
			b.ReportMetric(float64(bytes)/samples, "B/key")
			b.ReportMetric(float64(allocs)/samples, "allocs/key")
		})
	}
}
