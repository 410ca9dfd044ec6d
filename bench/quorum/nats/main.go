// Command nats is a server of a NATS JetStream cluster for the benchmarks: every
// write is synced before it is acknowledged.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"time"

	"github.com/meshkv/meshkv/bench/peer/voter"
	"github.com/nats-io/nats-server/v2/server"
)

func main() { voter.Main(run) }

func run(ctx context.Context, s voter.Spec) error {
	opts := &server.Options{
		ServerName: s.Name, JetStream: true, StoreDir: s.Dir, SyncAlways: true, NoSigs: true, NoLog: true,
		Cluster: server.ClusterOpts{Name: "bench"},
	}
	var err error
	if opts.Host, opts.Port, err = split(s.Client); err != nil {
		return err
	}
	if opts.Cluster.Host, opts.Cluster.Port, err = split(s.Peer); err != nil {
		return err
	}
	for _, p := range s.Cluster {
		if p.Name != s.Name {
			opts.Routes = append(opts.Routes, &url.URL{Scheme: "nats", Host: p.Addr})
		}
	}
	ns, err := server.NewServer(opts)
	if err != nil {
		return fmt.Errorf("make the server: %w", err)
	}
	ns.Start()
	if !ns.ReadyForConnections(20 * time.Second) {
		return errors.New("not ready after 20 s")
	}
	<-ctx.Done()
	ns.Shutdown()
	ns.WaitForShutdown()
	return nil
}

func split(addr string) (string, int, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, err
	}
	n, err := strconv.Atoi(port)
	return host, n, err
}
