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
	slab := newSlab()
	refs := make([]ref, n)
	for i := range refs {
		key := fmt.Sprint("k/", i)
		if _, err := r.Put(crdt.Write{Key: key, Kind: crdt.KindRegister, Value: make([]byte, benchValueBytes)}); err != nil {
			b.Fatal(err)
		}
		refs[i] = slab.put(r.Cells().ByKey(key)[0])
	}
	rand.New(rand.NewPCG(1, 1)).Shuffle(n, func(i, j int) { refs[i], refs[j] = refs[j], refs[i] })
	began := cpuTime()
	for b.Loop() {
		o := newOrdered(slab)
		for _, r := range refs {
			o.Insert(o.key(r), r)
		}
	}
	b.ReportMetric(float64((cpuTime()-began).Nanoseconds())/float64(b.N)/n, "cpu-ns/key")
}
