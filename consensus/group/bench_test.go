package group_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/meshkv/meshkv/consensus/group"
	"github.com/meshkv/meshkv/consensus/logstore"
	"github.com/meshkv/meshkv/consensus/raftnet"
	"github.com/meshkv/meshkv/consensus/streams"
	"golang.org/x/sys/unix"
)

// tcpNodes starts n nodes over loopback, each with the groups of names, and returns
// the replicas by group.
func tcpNodes(b *testing.B, n int, names []string, coalesce bool) map[string][]*group.Group {
	b.Helper()
	must := func(err error) {
		b.Helper()
		if err != nil {
			b.Fatal(err)
		}
	}
	dir, err := os.MkdirTemp("/dev/shm", "meshkv-group")
	if err != nil {
		dir = b.TempDir()
	}
	b.Cleanup(func() { _ = os.RemoveAll(dir) })
	var listeners []net.Listener
	var servers []group.Server
	for i := range n {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		must(err)
		listeners = append(listeners, ln)
		servers = append(servers, group.Server{ID: fmt.Sprint("n", i), Addr: ln.Addr().String()})
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	b.Cleanup(func() { cancel(); running.Wait() })
	replicas := make(map[string][]*group.Group)
	for i, ln := range listeners {
		var d net.Dialer
		dial := func(ctx context.Context, addr string) (net.Conn, error) { return d.DialContext(ctx, "tcp", addr) }
		mux := streams.New(ln, dial)
		hearts, err := newBeats(mux, dial)
		must(err)
		b.Cleanup(hearts.close)
		running.Go(func() { _ = mux.Run(ctx) })
		wire, err := raftnet.Open(mux, nil)
		must(err)
		b.Cleanup(func() { _ = wire.Close() })
		home := filepath.Join(dir, servers[i].ID)
		must(os.Mkdir(home, 0o700))
		store, err := logstore.Open(filepath.Join(home, "raft.db"), nil)
		must(err)
		b.Cleanup(func() { _ = store.Close() })
		for _, name := range names {
			log, err := store.Group(name)
			must(err)
			member, err := wire.Member(name, servers[i].Addr)
			must(err)
			cfg := group.Config{ID: servers[i].ID, Dir: filepath.Join(home, name), Log: log, Transport: member, FSM: newKV(), Bootstrap: servers}
			if coalesce {
				cfg.Heartbeats, err = hearts.Line(name)
				must(err)
			}
			g, err := group.Open(cfg)
			must(err)
			b.Cleanup(func() {
				gone, stop := context.WithCancel(context.Background())
				stop()
				_ = g.Close(gone)
			})
			replicas[name] = append(replicas[name], g)
		}
	}
	return replicas
}

// leading waits for the leader among the replicas of one group.
func leading(b *testing.B, replicas []*group.Group) *group.Group {
	b.Helper()
	for range 3000 {
		for _, g := range replicas {
			if _, err := g.ReadIndex(context.Background()); err == nil {
				return g
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	b.Fatal("no leader")
	return nil
}

func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkIdle is what 3 nodes with 50 groups cost that have nothing to do, all in
// this process, in percent of a core. An iteration is a second.
func BenchmarkIdle(b *testing.B) {
	var names []string
	for i := range 50 {
		names = append(names, fmt.Sprint("g", i))
	}
	for _, coalesce := range []bool{false, true} {
		b.Run(fmt.Sprint("coalesced ", coalesce), func(b *testing.B) {
			replicas := tcpNodes(b, 3, names, coalesce)
			for _, name := range names {
				leading(b, replicas[name])
			}
			before := cpuTime(b)
			b.ResetTimer()
			for range b.N {
				time.Sleep(time.Second)
			}
			b.StopTimer()
			b.ReportMetric(100*float64(cpuTime(b)-before)/float64(b.Elapsed()), "%core")
			var m runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&m)
			b.ReportMetric(float64(m.HeapInuse>>20), "MiB")
		})
	}
}

// BenchmarkPropose has 100 bytes applied by a group of 3 nodes over loopback.
func BenchmarkPropose(b *testing.B) {
	for _, proposers := range []int{1, 64, 256} {
		b.Run(fmt.Sprint(proposers), func(b *testing.B) {
			g := leading(b, tcpNodes(b, 3, []string{"g"}, true)["g"])
			var next atomic.Int64
			var wg sync.WaitGroup
			cmd := fmt.Appendf(nil, "k=%098d", 0)
			before := cpuTime(b)
			b.ResetTimer()
			for range proposers {
				wg.Go(func() {
					for next.Add(1) <= int64(b.N) {
						if _, err := g.Propose(context.Background(), cmd); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.StopTimer()
			b.ReportMetric(float64(cpuTime(b)-before)/1e3/float64(b.N), "µs-cpu/op")
		})
	}
}
