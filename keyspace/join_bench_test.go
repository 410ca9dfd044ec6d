package keyspace

import (
	"context"
	"fmt"
	"syscall"
	"testing"
	"time"
)

// cpuTime is the processor time of this process so far, by which benchmarks on a
// busy machine can be compared.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkJoin is an empty replica that is filled by a peer: both sides, one
// after the other, without a network between them.
func BenchmarkJoin(b *testing.B) {
	for _, n := range []int{10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			from := putAll(b, n)
			var cpu time.Duration
			for b.Loop() {
				b.StopTimer()
				to := openEmpty(peerEnv())
				p := newPipe(from, to)
				b.StartTimer()
				began := cpuTime()
				p.join(b)
				cpu += cpuTime() - began
				b.StopTimer()
				from.LinkDown(p.now, to.env.Self)
				b.ReportMetric(float64(p.bytes)/float64(n), "B/key")
				b.StartTimer()
			}
			b.ReportMetric(float64(cpu.Nanoseconds())/float64(b.N)/float64(n), "cpu-ns/key")
		})
	}
}

// BenchmarkRepair is two replicas of 100,000 keys that find and repair what they
// differ in.
func BenchmarkRepair(b *testing.B) {
	for _, differing := range []int{1, 100} {
		b.Run(fmt.Sprint(differing), func(b *testing.B) {
			const n = 100_000
			from, to := putAll(b, n), openEmpty(peerEnv())
			p := newPipe(from, to)
			p.join(b)
			value := make([]byte, benchValueBytes)
			var cpu time.Duration
			for b.Loop() {
				b.StopTimer()
				p.part()
				for i := range differing {
					if _, err := from.Put(context.Background(), benchKey(i*997%n), value, nil); err != nil {
						b.Fatal(err)
					}
				}
				p.bytes = 0
				b.StartTimer()
				began := cpuTime()
				p.join(b)
				cpu += cpuTime() - began
				b.StopTimer()
				b.ReportMetric(float64(p.bytes), "B")
				b.StartTimer()
			}
			b.ReportMetric(float64(cpu.Microseconds())/float64(b.N), "cpu-us/op")
		})
	}
}

// part takes the link between two keyspaces down.
func (p *pipe) part() {
	for i, k := range p.sides {
		k.LinkDown(p.now, p.peer(i))
	}
}
