package gossip

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/meshkv/meshkv/crdt"
)

// The ring holds the newest ops within its limits, knows their bytes, and finds
// them by their dots.
func TestRingEqualsSlice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := ring{
			maxOps:   rapid.IntRange(1, 300).Draw(t, "maxOps"),
			maxBytes: rapid.IntRange(1, 300).Draw(t, "maxBytes") * 60,
			maxAge:   time.Duration(rapid.IntRange(1, 300).Draw(t, "maxAge")),
		}
		type held struct {
			at int64
			op *crdt.Op
		}
		var model []held
		bytes := func() (n int) {
			for _, h := range model {
				n += opBytes(h.op)
			}
			return n
		}
		var now int64
		var seq uint64
		for range rapid.IntRange(1, 12).Draw(t, "runs") {
			switch rapid.IntRange(0, 5).Draw(t, "what") {
			case 0:
				now += int64(rapid.IntRange(0, 200).Draw(t, "passes"))
				g.expire(now)
				for len(model) > 0 && now-model[0].at > int64(g.maxAge) {
					model = model[1:]
				}
			case 1:
				g.reset()
				model = nil
			default:
				for range rapid.IntRange(1, 200).Draw(t, "ops") {
					seq++
					op := &crdt.Op{Dot: crdt.Dot{Inc: 1, Seq: seq}, Key: fmt.Sprint(seq), Cell: &crdt.Cell{Value: make([]byte, seq%50)}}
					g.push(now, op)
					model = append(model, held{now, op})
					now++
					for len(model) > g.maxOps || bytes() > g.maxBytes {
						model = model[1:]
					}
				}
			}
			if g.ops.Len() != len(model) || g.bytes != bytes() {
				t.Fatalf("%d ops of %d bytes, want %d of %d", g.ops.Len(), g.bytes, len(model), bytes())
			}
			for i, h := range model {
				if g.at(i).op != h.op {
					t.Fatalf("op %d is %v, want %v", i, g.at(i).dot, h.op.Dot)
				}
			}
			found, missing := g.find(crdt.Dots{{Inc: 1, Lo: 1, Hi: seq + 1}}, nil)
			if len(found) != len(model) {
				t.Fatalf("found %d ops, want %d", len(found), len(model))
			}
			if want := (crdt.Span{Inc: 1, Lo: 1, Hi: seq + 1 - uint64(len(model))}); len(model) == 0 && (len(missing) != 1 || missing[0] != want) {
				t.Fatalf("missing %v, want %v", missing, want)
			}
		}
	})
}

// BenchmarkRing grows the ring to the default limit and then lets it forget as many
// ops as come. "worst-us" is the time of the thread in the worst 16 pushes in a row,
// the median of the runs. The collector rests, so that all memory is new.
func BenchmarkRing(b *testing.B) {
	const n, batch = 200_000, 16
	ops := make([]*crdt.Op, n)
	for i := range ops {
		ops[i] = &crdt.Op{Dot: crdt.Dot{Inc: 1, Seq: uint64(i) + 1}, Key: "key", Cell: &crdt.Cell{Value: make([]byte, 100)}}
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	var times []int64
	for b.Loop() {
		g := ring{maxOps: 65_536, maxBytes: 64 << 20, maxAge: time.Minute}
		var worst int64
		for few := range slices.Chunk(ops, batch) {
			began := threadTime(b)
			for _, op := range few {
				g.push(0, op)
			}
			worst = max(worst, threadTime(b)-began)
		}
		times = append(times, worst)
	}
	slices.Sort(times)
	b.ReportMetric(float64(times[len(times)/2])/1000, "worst-us")
}

// threadTime is for how many nanoseconds this thread has run.
func threadTime(b *testing.B) int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		b.Fatal(err)
	}
	return ts.Nano()
}
