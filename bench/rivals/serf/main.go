// Command serf hosts serf agents for the benchmarks. A put is a user event with
// the key as its name: serf keeps no state, so what a node missed stays missed.
package main

import (
	"context"
	"io"
	"log"
	"net"
	"strconv"

	"github.com/hashicorp/serf/serf"
	"github.com/meshkv/meshkv/bench/peer"
)

func main() { peer.Main(start) }

type member struct {
	s    *serf.Serf
	done chan struct{}
}

func start(_ context.Context, spec peer.NodeSpec, rec *peer.Recorder) (peer.Node, error) {
	host, port, err := net.SplitHostPort(spec.Addr)
	if err != nil {
		return nil, err
	}
	events := make(chan serf.Event, 1024)
	cfg := serf.DefaultConfig()
	cfg.NodeName = spec.Name
	cfg.EventCh = events
	cfg.LogOutput, cfg.MemberlistConfig.LogOutput = io.Discard, io.Discard
	cfg.Logger, cfg.MemberlistConfig.Logger = log.New(io.Discard, "", 0), nil
	cfg.MemberlistConfig.BindAddr, cfg.MemberlistConfig.AdvertiseAddr = host, host
	if cfg.MemberlistConfig.BindPort, err = strconv.Atoi(port); err != nil {
		return nil, err
	}
	cfg.MemberlistConfig.AdvertisePort = cfg.MemberlistConfig.BindPort
	s, err := serf.Create(cfg)
	if err != nil {
		return nil, err
	}
	m := &member{s: s, done: make(chan struct{})}
	go func() {
		defer close(m.done)
		for {
			select {
			case ev := <-events:
				if u, ok := ev.(serf.UserEvent); ok {
					rec.See(u.Name)
				}
			case <-s.ShutdownCh():
				return
			}
		}
	}()
	if len(spec.Join) > 0 {
		if _, err := s.Join(spec.Join, true); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *member) Put(_ context.Context, key string, value []byte) error {
	return m.s.UserEvent(key, value, false)
}

func (m *member) Stats() map[string]int64 {
	return map[string]int64{"members": int64(m.s.NumNodes())}
}

func (m *member) Stop() error { return m.s.Shutdown() }
