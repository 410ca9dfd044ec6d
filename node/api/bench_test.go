package api

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/node/api/internal/memory"
)

// The model behind it is a map, so this measures the protocol alone.
func BenchmarkNative(b *testing.B) {
	open := func(b *testing.B) client.Keyspace {
		_, addr := start(b, memory.New(1), Options{})
		k, err := dial(b, addr, nil).Keyspace(b.Context(), "k")
		if err != nil {
			b.Fatal(err)
		}
		return k
	}
	value := make([]byte, 100)
	b.Run("put alone", func(b *testing.B) {
		k := open(b)
		for b.Loop() {
			if _, err := k.Put(b.Context(), "key", value, nil); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("get alone", func(b *testing.B) {
		k := open(b)
		if _, err := k.Put(b.Context(), "key", value, nil); err != nil {
			b.Fatal(err)
		}
		b.ResetTimer()
		for range b.N {
			if _, err := k.Get(b.Context(), "key", nil); err != nil {
				b.Fatal(err)
			}
		}
	})
	for _, op := range []string{"put", "get"} {
		b.Run(op+" of 256 goroutines", func(b *testing.B) {
			k := open(b)
			if _, err := k.Put(b.Context(), "key", value, nil); err != nil {
				b.Fatal(err)
			}
			var n atomic.Uint64
			b.SetParallelism(128)
			b.ReportAllocs()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				key := fmt.Sprintf("key%d", n.Add(1))
				for pb.Next() {
					var err error
					if op == "put" {
						_, err = k.Put(b.Context(), key, value, nil)
					} else {
						_, err = k.Get(b.Context(), "key", nil)
					}
					if err != nil {
						b.Fatal(err)
					}
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "ops/s")
		})
	}
}
