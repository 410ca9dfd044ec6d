package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/consensus/host"
	"github.com/meshkv/meshkv/consensus/placement"
)

// A node that starts anew knows its strong keyspaces before it takes the first write: as an eventual one that
// would be acknowledged and lost.
func TestRestartedNodeKnowsStrongKeyspaces(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	api := ln.Addr().String()
	ln.Close()
	cfg := Config{Name: "s", DataDir: t.TempDir(), Bind: "127.0.0.1:0", HTTP: api, Server: true, BootstrapServers: []string{"s"}}
	n, err := Start(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	stop := func() {
		t.Helper()
		if err := n.Stop(context.WithoutCancel(ctx)); err != nil {
			t.Fatal(err)
		}
	}
	for {
		err := n.CreateKeyspace(ctx, client.KeyspaceSpec{Name: "z", Mode: "strong", Voters: 1})
		if err == nil {
			break
		}
		if !errors.Is(err, client.ErrUnavailable) || ctx.Err() != nil {
			t.Fatal(err)
		}
	}
	e, err := n.readStrong("z")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 2000 { // that come before it
		n.publishStrong(host.Entry{Revision: 1, Cluster: e.Cluster, Keyspace: placement.Keyspace{Name: fmt.Sprintf("a%04d", i), Removed: true}})
	}
	stop()

	puts := make(chan error, 1)
	go func() {
		cl, err := client.Dial(ctx, api, nil)
		for err != nil && pause(ctx, time.Millisecond) == nil { // it does not listen yet
			cl, err = client.Dial(ctx, api, nil)
		}
		if err != nil {
			puts <- err
			return
		}
		defer cl.Close()
		ks, err := cl.Keyspace(ctx, "z")
		for err == nil {
			_, err = ks.Put(ctx, "key", []byte("value"), nil)
			if err == nil || ctx.Err() != nil {
				break
			}
			err = nil // it is not ready
		}
		puts <- err
	}()
	if n, err = Start(ctx, cfg); err != nil {
		t.Fatal(err)
	}
	defer stop()
	if err := <-puts; err != nil {
		t.Fatal(err)
	}
	if n.held("z") != nil {
		t.Fatal("the first write made an eventual keyspace of the name of the strong one")
	}
	ks, err := n.Strong(ctx, "z")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ks.Get(ctx, "key", nil); err != nil || string(got.Value) != "value" {
		t.Fatalf("the write that was acknowledged first: %q, %v", got.Value, err)
	}
}
