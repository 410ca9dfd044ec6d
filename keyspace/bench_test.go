package keyspace

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// filled is a keyspace of n keys of 32 bytes with values of 100 bytes, and the
// keys in a random order, in memory of their own.
func filled(b *testing.B, n int) (*Keyspace, []string) {
	b.Helper()
	k := openEmpty(testEnv())
	value := make([]byte, 100)
	keys := make([]string, n)
	for i := range keys {
		keys[i] = fmt.Sprintf("endpoint/%023d", i)
		if _, err := k.Put(context.Background(), keys[i], value, nil); err != nil {
			b.Fatal(err)
		}
	}
	rand.Shuffle(n, func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
	for i := range keys {
		keys[i] = strings.Clone(keys[i])
	}
	return k, keys
}

func BenchmarkGet1M(b *testing.B) {
	k, keys := filled(b, 1_000_000)
	ctx := context.Background()
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if _, err := k.Get(ctx, keys[i%len(keys)], nil); err != nil {
			b.Fatal(err)
		}
		i++
	}
}

func BenchmarkOverwrite1M(b *testing.B) {
	k, keys := filled(b, 1_000_000)
	ctx := context.Background()
	value := make([]byte, 100)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if _, err := k.Put(ctx, keys[i%len(keys)], value, nil); err != nil {
			b.Fatal(err)
		}
		i++
	}
}
