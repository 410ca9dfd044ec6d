package calls_test

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/meshkv/meshkv/consensus/calls"
)

// BenchmarkCall makes calls of 200 B with answers of 40 B over TCP within this machine,
// by so many callers at a time, each with a deadline.
func BenchmarkCall(b *testing.B) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	answer := make([]byte, 40)
	server := calls.NewServer(handlerFunc(func(context.Context, string, calls.Kind, []byte) ([]byte, error) { return answer, nil }), nil)
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { _ = server.ServeConn(context.Background(), conn) })
		}
	})
	defer serving.Wait()
	defer ln.Close()
	var dialer net.Dialer
	client := calls.NewClient(func(ctx context.Context, node string) (net.Conn, error) { return dialer.DialContext(ctx, "tcp", node) }, nil)
	defer client.Close()
	body, addr := make([]byte, 200), ln.Addr().String()
	for _, callers := range []int{1, 64, 256} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			b.ReportAllocs()
			var left atomic.Int64
			left.Store(int64(b.N))
			var wg sync.WaitGroup
			for range callers {
				wg.Go(func() {
					ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
					defer cancel()
					for left.Add(-1) >= 0 {
						if _, err := client.Call(ctx, addr, "group#1", 1, body); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
		})
	}
}
