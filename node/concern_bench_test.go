package node_test

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/node"
)

// How long one write after the other takes until a quorum has it. The nodes share one
// process, its processors and its disk, so that with many of them it says less of a
// network than of the work.
func BenchmarkWriteConcern(b *testing.B) {
	for _, count := range []int{3, 16} {
		nodes := make([]*node.Node, count)
		for i := range nodes {
			cfg := node.Config{
				Name: fmt.Sprintf("n%d", i), DataDir: filepath.Join(b.TempDir(), "data"), Bind: "127.0.0.1:0", HTTP: "off",
				Logger: slog.New(slog.DiscardHandler),
			}
			if i > 0 {
				cfg.Join = []string{nodes[0].MeshAddr()}
			}
			n, err := node.Start(b.Context(), cfg)
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() {
				ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
				defer cancel()
				if err := n.Stop(ctx); err != nil {
					b.Error(err)
				}
			})
			nodes[i] = n
		}
		ks, err := nodes[0].Keyspace(b.Context(), "net")
		if err != nil {
			b.Fatal(err)
		}
		for { // all are members
			ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
			_, err := ks.Put(ctx, "k", nil, &client.PutOptions{Acks: client.AckPolicy(count), Durable: true})
			cancel()
			if err == nil {
				break
			}
		}
		for _, o := range []client.PutOptions{{}, {Acks: client.AcksQuorum}, {Acks: client.AcksAll}, {Durable: true}, {Acks: client.AcksQuorum, Durable: true}, {Acks: client.AcksAll, Durable: true}} {
			b.Run(fmt.Sprintf("nodes=%d/acks=%s/durable=%v", count, o.Acks, o.Durable), func(b *testing.B) {
				for i := range b.N {
					if _, err := ks.Put(b.Context(), fmt.Sprint("k", i%1000), []byte("value"), &o); err != nil {
						b.Fatal(err)
					}
				}
			})
			b.Run(fmt.Sprintf("nodes=%d/acks=%s/durable=%v/writers=64", count, o.Acks, o.Durable), func(b *testing.B) {
				b.SetParallelism(64 / 2)
				b.RunParallel(func(pb *testing.PB) {
					for i := 0; pb.Next(); i++ {
						if _, err := ks.Put(b.Context(), fmt.Sprint("k", i%1000), []byte("value"), &o); err != nil {
							b.Error(err)
							return
						}
					}
				})
			})
		}
	}
}
