package keyspace

import (
	"context"
	"fmt"
	"runtime"
	"runtime/metrics"
	"testing"
	"time"
)

// BenchmarkCollection is what one garbage collection costs a node that has received
// 250,000 keys from 16 writers' prefixes in frames of eight: the heap that is scanned, and the
// CPU of the process. Nodes that receive the same keys collect at the same time.
func BenchmarkCollection(b *testing.B) {
	const n, writers, batch = 250_000, 16, 8
	from, to := openEmpty(testEnv()), openEmpty(peerEnv())
	p := newPipe(from, to)
	p.join(b)
	value := make([]byte, benchValueBytes)
	for i := range n {
		if _, err := from.Put(context.Background(), fmt.Sprintf("s/%d/%d", i%writers, i/writers), value, nil); err != nil {
			b.Fatal(err)
		}
		if i%batch == batch-1 {
			p.now = p.now.Add(time.Millisecond)
			p.move(b)
		}
	}
	p.move(b)
	p.sides[0], from = nil, nil
	runtime.GC()
	began := cpuTime()
	for b.Loop() {
		runtime.GC()
	}
	b.ReportMetric(float64((cpuTime()-began).Microseconds())/1000/float64(b.N), "cpu-ms")
	scan := []metrics.Sample{{Name: "/gc/scan/heap:bytes"}}
	metrics.Read(scan)
	b.ReportMetric(float64(scan[0].Value.Uint64())/1e6, "scanned-MB")
	runtime.KeepAlive(to)
}
