// Command meshkv hosts embedded nodes of meshkv for the benchmarks against other
// systems: durability memory, no API, everything else as it comes.
package main

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/meshkv/meshkv/bench/peer"
	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/node"
)

const keyspace = "bench"

func main() { peer.Main(start) }

// member is one node and the watch that sees what arrives at it.
type member struct {
	node   *node.Node
	ks     client.Keyspace
	cancel context.CancelFunc
	done   chan struct{}
}

func start(ctx context.Context, spec peer.NodeSpec, rec *peer.Recorder) (peer.Node, error) {
	n, err := node.Start(ctx, node.Config{Name: spec.Name, Bind: spec.Addr, Join: spec.Join, HTTP: "off"})
	if err != nil {
		return nil, err
	}
	ks, err := n.Keyspace(ctx, keyspace)
	if err != nil {
		return nil, err
	}
	watchCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	w, err := ks.Watch(watchCtx, "", nil)
	if err != nil {
		cancel()
		return nil, err
	}
	m := &member{node: n, ks: ks, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(m.done)
		defer w.Close()
		for {
			ev, err := w.Next(watchCtx)
			if err != nil {
				return
			}
			if ev.Type == client.EventPut {
				rec.See(ev.Entry.Key)
			}
		}
	}()
	return m, nil
}

func (m *member) Put(ctx context.Context, key string, value []byte) error {
	for {
		_, err := m.ks.Put(ctx, key, value, nil)
		if !errors.Is(err, client.ErrOverloaded) {
			return err
		}
		time.Sleep(time.Millisecond) // the back-pressure that the API asks for
	}
}

// Stats are the numbers in what the node says of the keyspace, and its links.
func (m *member) Stats() map[string]int64 {
	out := make(map[string]int64)
	s, err := m.node.Status(context.Background())
	if err != nil {
		return out
	}
	out["links"] = int64(len(s.Links))
	for _, n := range s.Members {
		out["members"] += int64(n)
	}
	for _, ks := range s.Keyspaces {
		if ks.Name != keyspace {
			continue
		}
		for v, i := reflect.ValueOf(ks), 0; i < v.NumField(); i++ {
			switch name, f := v.Type().Field(i).Name, v.Field(i); {
			case f.CanInt():
				out[name] = f.Int()
			case f.CanUint():
				out[name] = int64(f.Uint())
			}
		}
	}
	return out
}

func (m *member) Stop() error {
	m.cancel()
	<-m.done
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := m.node.Stop(ctx); err != nil {
		return fmt.Errorf("stop %s: %w", m.node.Name(), err)
	}
	return nil
}
