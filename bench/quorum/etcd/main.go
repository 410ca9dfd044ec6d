// Command etcd is a member of an etcd cluster for the benchmarks: the defaults, with
// a quota that a run does not reach.
package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/meshkv/meshkv/bench/peer/voter"
	"go.etcd.io/etcd/server/v3/embed"
)

func main() { voter.Main(run) }

func run(ctx context.Context, s voter.Spec) error {
	cfg := embed.NewConfig()
	cfg.Name, cfg.Dir = s.Name, s.Dir
	cfg.LogLevel, cfg.LogOutputs = "error", []string{"stderr"}
	cfg.QuotaBackendBytes = 8 << 30
	cfg.ListenClientUrls = []url.URL{{Scheme: "http", Host: s.Client}}
	cfg.ListenPeerUrls = []url.URL{{Scheme: "http", Host: s.Peer}}
	cfg.AdvertiseClientUrls, cfg.AdvertisePeerUrls = cfg.ListenClientUrls, cfg.ListenPeerUrls
	members := make([]string, len(s.Cluster))
	for i, p := range s.Cluster {
		members[i] = p.Name + "=http://" + p.Addr
	}
	cfg.InitialCluster = strings.Join(members, ",")
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		return fmt.Errorf("start etcd: %w", err)
	}
	defer e.Close()
	select {
	case <-ctx.Done():
		return nil
	case err := <-e.Err():
		return err
	case <-e.Server.StopNotify():
		return errors.New("etcd has stopped")
	}
}
