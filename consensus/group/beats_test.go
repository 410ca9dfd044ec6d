package group_test

import (
	"context"
	"net"
	"sync"
	"sync/atomic"

	"github.com/meshkv/meshkv/consensus/calls"
	"github.com/meshkv/meshkv/consensus/heartbeat"
	"github.com/meshkv/meshkv/consensus/streams"
)

// beats is a node's coalescer with its calls, which go by streams of a group that is
// none.
type beats struct {
	*heartbeat.Coalescer
	client *calls.Client
	layer  *streams.Layer
	work   sync.WaitGroup

	hang, fail atomic.Bool // what calls do
}

func newBeats(mux *streams.Mux, dial streams.Dialer) (*beats, error) {
	layer, err := mux.Layer("calls")
	if err != nil {
		return nil, err
	}
	b := &beats{layer: layer}
	b.client = calls.NewClient(func(ctx context.Context, node string) (net.Conn, error) {
		conn, err := dial(ctx, node)
		if err == nil {
			_, err = conn.Write([]byte("\x01\x05calls"))
		}
		return conn, err
	}, nil)
	b.Coalescer = heartbeat.New(func(ctx context.Context, node string, body []byte) ([]byte, error) {
		if b.hang.Load() {
			<-ctx.Done()
		}
		if b.fail.Load() {
			return nil, calls.ErrNotSent
		}
		return b.client.Call(ctx, node, "", 0, body)
	}, nil)
	server := calls.NewServer(b, nil)
	b.work.Go(func() {
		for {
			conn, err := layer.Accept()
			if err != nil {
				return
			}
			b.work.Go(func() { _ = server.ServeConn(context.Background(), conn) }) // until the layer is closed
		}
	})
	return b, nil
}

// Serve implements calls.Handler.
func (b *beats) Serve(_ context.Context, _ string, _ calls.Kind, body []byte) ([]byte, error) {
	return b.Coalescer.Serve(body)
}

func (b *beats) close() {
	b.Coalescer.Close()
	_ = b.client.Close()
	_ = b.layer.Close()
	b.work.Wait()
}
