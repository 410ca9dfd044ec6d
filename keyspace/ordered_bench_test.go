package keyspace

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/meshkv/meshkv/crdt"
)

// BenchmarkOrderedSet is new keys that come in no order, as those of a session do.
// Every cell has its key beside it, as in a replica.
func BenchmarkOrderedSet(b *testing.B) {
	const n = 100_000
	r := crdt.NewReplica(crdt.State{Inc: 1, Cells: crdt.NewMapCells(), Clock: crdt.NewClock()})
	cells := make([]*crdt.Cell, n)
	for i := range cells {
		key := fmt.Sprint("k/", i)
		if _, err := r.Put(crdt.Write{Key: key, Kind: crdt.KindRegister, Value: make([]byte, benchValueBytes)}); err != nil {
			b.Fatal(err)
		}
		cells[i] = r.Cells().ByKey(key)[0]
	}
	rand.New(rand.NewPCG(1, 1)).Shuffle(n, func(i, j int) { cells[i], cells[j] = cells[j], cells[i] })
	began := cpuTime()
	for b.Loop() {
		o := newOrdered()
		for _, c := range cells {
			o.Set(c)
		}
	}
	b.ReportMetric(float64((cpuTime()-began).Nanoseconds())/float64(b.N)/n, "cpu-ns/key")
}
