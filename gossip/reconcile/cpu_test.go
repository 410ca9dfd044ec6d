package reconcile

import (
	"syscall"
	"testing"
)

// cpuTime is the user time of this process in nanoseconds: what a benchmark
// means on a machine that does other things as well.
func cpuTime() int64 {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return u.Utime.Nano()
}

func reportCPU(b *testing.B, since int64) {
	b.ReportMetric(float64(cpuTime()-since)/float64(b.N), "cpu-ns/op")
}
