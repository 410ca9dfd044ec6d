// Command dskit hosts nodes of Grafana dskit's memberlist KV for the benchmarks:
// the defaults of its flags, one value per key that the later write wins.
package main

import (
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/go-kit/log"
	"github.com/grafana/dskit/kv/codec"
	"github.com/grafana/dskit/kv/memberlist"
	"github.com/grafana/dskit/services"
	"github.com/meshkv/meshkv/bench/peer"
	"github.com/prometheus/client_golang/prometheus"
)

func main() { peer.Main(start) }

// register is a value that the later write wins.
type register struct {
	at    int64
	value []byte
}

// Merge implements memberlist.Mergeable.
func (r *register) Merge(other memberlist.Mergeable, _ bool) (memberlist.Mergeable, error) {
	o, ok := other.(*register)
	if !ok || o == nil {
		return nil, fmt.Errorf("merge %T", other)
	}
	if o.at <= r.at {
		return nil, nil
	}
	r.at, r.value = o.at, o.value
	return r.Clone(), nil
}

// MergeContent implements memberlist.Mergeable.
func (r *register) MergeContent() []string { return []string{"v"} }

// RemoveTombstones implements memberlist.Mergeable.
func (r *register) RemoveTombstones(time.Time) (total, removed int) { return 0, 0 }

// Clone implements memberlist.Mergeable.
func (r *register) Clone() memberlist.Mergeable {
	return &register{at: r.at, value: append([]byte(nil), r.value...)}
}

type registerCodec struct{}

func (registerCodec) CodecID() string { return "register" }

func (registerCodec) Encode(v any) ([]byte, error) {
	r, ok := v.(*register)
	if !ok {
		return nil, fmt.Errorf("encode %T", v)
	}
	return append(binary.BigEndian.AppendUint64(nil, uint64(r.at)), r.value...), nil
}

func (registerCodec) Decode(b []byte) (any, error) {
	if len(b) < 8 {
		return nil, fmt.Errorf("decode %d bytes", len(b))
	}
	return &register{at: int64(binary.BigEndian.Uint64(b)), value: append([]byte(nil), b[8:]...)}, nil
}

var _ codec.Codec = registerCodec{}

// noDNS is for members that are given as addresses.
type noDNS struct{}

func (noDNS) Resolve(context.Context, []string) error { return nil }
func (noDNS) Addresses() []string                     { return nil }

type member struct {
	kv     *memberlist.KV
	client *memberlist.Client
	cancel context.CancelFunc
	done   chan struct{}
}

func start(ctx context.Context, spec peer.NodeSpec, rec *peer.Recorder) (peer.Node, error) {
	host, port, err := net.SplitHostPort(spec.Addr)
	if err != nil {
		return nil, err
	}
	var cfg memberlist.KVConfig
	cfg.RegisterFlagsWithPrefix(flag.NewFlagSet("", flag.ContinueOnError), "")
	cfg.NodeName, cfg.RandomizeNodeName = spec.Name, false
	cfg.TCPTransport.BindAddrs = []string{host}
	if cfg.TCPTransport.BindPort, err = strconv.Atoi(port); err != nil {
		return nil, err
	}
	cfg.AdvertiseAddr, cfg.AdvertisePort = host, cfg.TCPTransport.BindPort
	cfg.JoinMembers = spec.Join
	cfg.Codecs = []codec.Codec{registerCodec{}}
	kv := memberlist.NewKV(cfg, log.NewNopLogger(), noDNS{}, prometheus.NewRegistry())
	client, err := memberlist.NewClient(kv, registerCodec{})
	if err != nil {
		return nil, err
	}
	if err := services.StartAndAwaitRunning(ctx, kv); err != nil {
		return nil, err
	}
	watchCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	m := &member{kv: kv, client: client, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(m.done)
		client.WatchPrefix(watchCtx, "", func(key string, _ any) bool {
			rec.See(key)
			return true
		})
	}()
	return m, nil
}

func (m *member) Put(ctx context.Context, key string, value []byte) error {
	v := append([]byte(nil), value...)
	return m.client.CAS(ctx, key, func(any) (any, bool, error) {
		return &register{at: time.Now().UnixNano(), value: v}, false, nil
	})
}

// Stats is the number of keys in the store.
func (m *member) Stats() map[string]int64 {
	keys, err := m.client.List(context.Background(), "")
	if err != nil {
		return nil
	}
	return map[string]int64{"keys": int64(len(keys))}
}

func (m *member) Stop() error {
	m.cancel()
	<-m.done
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return services.StopAndAwaitTerminated(ctx, m.kv)
}
