// Command networkdb hosts nodes of Docker's NetworkDB for the benchmarks: its
// default configuration, one network, one table.
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"strconv"

	"github.com/containerd/log"
	"github.com/docker/docker/libnetwork/networkdb"
	"github.com/meshkv/meshkv/bench/peer"
	"github.com/sirupsen/logrus"
)

const (
	network = "net"
	table   = "bench"
)

func main() {
	logrus.SetOutput(io.Discard)
	_ = log.SetLevel("fatal")
	peer.Main(start)
}

type member struct {
	db   *networkdb.NetworkDB
	rec  *peer.Recorder
	stop func()
	done chan struct{}
}

func start(_ context.Context, spec peer.NodeSpec, rec *peer.Recorder) (peer.Node, error) {
	host, port, err := net.SplitHostPort(spec.Addr)
	if err != nil {
		return nil, err
	}
	cfg := networkdb.DefaultConfig()
	cfg.NodeID, cfg.Hostname = spec.Name, spec.Name
	cfg.BindAddr, cfg.AdvertiseAddr = host, host
	if cfg.BindPort, err = strconv.Atoi(port); err != nil {
		return nil, err
	}
	db, err := networkdb.New(cfg)
	if err != nil {
		return nil, err
	}
	events, cancel := db.Watch(table, network)
	m := &member{db: db, rec: rec, stop: cancel, done: make(chan struct{})}
	go func() {
		defer close(m.done)
		for {
			select {
			case ev := <-events.C:
				switch ev := ev.(type) {
				case networkdb.CreateEvent:
					rec.See(ev.Key)
				case networkdb.UpdateEvent:
					rec.See(ev.Key)
				}
			case <-events.Done():
				return
			}
		}
	}()
	if len(spec.Join) > 0 {
		if err := db.Join(spec.Join); err != nil {
			return nil, fmt.Errorf("join: %w", err)
		}
	}
	if err := db.JoinNetwork(network); err != nil {
		return nil, fmt.Errorf("join network: %w", err)
	}
	return m, nil
}

func (m *member) Put(_ context.Context, key string, value []byte) error {
	if err := m.db.CreateEntry(table, network, key, append([]byte(nil), value...)); err != nil {
		return err
	}
	m.rec.See(key) // its own entries are not in its watch
	return nil
}

func (m *member) Stats() map[string]int64 {
	return map[string]int64{"peers": int64(len(m.db.Peers(network))), "members": int64(len(m.db.ClusterPeers()))}
}

func (m *member) Stop() error {
	m.stop()
	m.db.Close()
	return nil
}
