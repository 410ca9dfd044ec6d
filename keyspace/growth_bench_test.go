package keyspace

import (
	"runtime"
	"runtime/debug"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/meshkv/meshkv/crdt"
)

// BenchmarkGrowth grows what holds the cells of a keyspace from nothing to 200,000
// keys. Nodes that receive the same keys stop together where one of them has much
// to do at once, so the worst 16 changes in a row count: "worst-us" is the time of
// the thread in them, the median of the runs. The collector rests, so that all memory is
// new and the kernel must clear it, as it is in a process that grows.
func BenchmarkGrowth(b *testing.B) {
	const n, batch = 200_000, 16
	cells := make([]*crdt.Cell, n)
	for i := range cells {
		cells[i] = &crdt.Cell{Key: benchKey(i), Value: make([]byte, benchValueBytes)}
	}
	grow := func(b *testing.B, empty func() (change func(*crdt.Cell))) {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer debug.SetGCPercent(debug.SetGCPercent(-1))
		var times []int64
		for b.Loop() {
			change := empty()
			var worst int64
			for few := range slices.Chunk(cells, batch) {
				began := threadTime(b)
				for _, c := range few {
					change(c)
				}
				worst = max(worst, threadTime(b)-began)
			}
			times = append(times, worst)
		}
		slices.Sort(times)
		b.ReportMetric(float64(times[len(times)/2])/1000, "worst-us")
	}
	b.Run("table", func(b *testing.B) {
		grow(b, func() func(*crdt.Cell) { return newMapTable().Store })
	})
	b.Run("log", func(b *testing.B) {
		grow(b, func() func(*crdt.Cell) {
			var l changeLog
			return func(c *crdt.Cell) { l.publish(l.add(change{next: c})) }
		})
	})
}

// threadTime is for how many nanoseconds this thread has run.
func threadTime(b *testing.B) int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		b.Fatal(err)
	}
	return ts.Nano()
}
