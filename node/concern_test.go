package node_test

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/node"
)

// within is a context of so much time.
func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// joined waits until all nodes know that they, and nobody else, hold the keyspace.
func joined(t *testing.T, name string, all ...*node.Node) {
	t.Helper()
	for _, n := range all {
		ks := open(t, n, name)
		until(t, n.Name()+" knows all members", func() bool {
			info, err := ks.Info(t.Context())
			return err == nil && len(info.Members) == len(all)
		})
	}
}

// What a write is acknowledged by is there, and on disk: a member that is killed
// afterwards has it when it is back, and so has every other.
func TestWriteConcern(t *testing.T) {
	all := cluster(t, 3)
	ks := open(t, all[0], "net")
	joined(t, "net", all...)
	for _, o := range []client.PutOptions{
		{Acks: client.AcksLocal}, {Acks: 1, Durable: true}, {Acks: 2}, {Acks: client.AcksQuorum, Durable: true},
		{Acks: client.AcksAll}, {Acks: client.AcksAll, Durable: true}, {Acks: 3, Durable: true},
	} {
		key := o.Acks.String()
		if _, err := ks.Put(within(t, 10*time.Second), key, []byte(key), &o); err != nil {
			t.Errorf("acks=%s durable=%v: %v", o.Acks, o.Durable, err)
		}
		if need := o.Acks.Need(3); need == 3 { // no wait: all have it now
			for _, n := range all {
				if got := value(open(t, n, "net"), key); got != key {
					t.Errorf("acks=%s: %s shows %q", o.Acks, n.Name(), got)
				}
			}
		}
	}
	if d, err := ks.Delete(within(t, 10*time.Second), "all", &client.DeleteOptions{Acks: client.AcksAll, Durable: true}); err != nil || !d.Deleted {
		t.Errorf("delete: %+v, %v", d, err)
	}
	if got := value(open(t, all[2], "net"), "all"); got != "error: not found" {
		t.Errorf("deleted by all, and shows %q", got)
	}
	if _, err := ks.Put(within(t, time.Second), "many", nil, &client.PutOptions{Acks: 4}); !errors.Is(err, client.ErrBadRequest) {
		t.Errorf("4 of 3 members: %v", err)
	}
	if got := value(ks, "many"); got != "error: not found" {
		t.Errorf("what was refused was written: %q", got)
	}

	// A member that is gone counts on: quorum is still reached, all is not.
	stop(t, all[2])
	if _, err := ks.Put(within(t, 10*time.Second), "two", []byte("2"), &client.PutOptions{Acks: client.AcksQuorum, Durable: true}); err != nil {
		t.Errorf("quorum of two: %v", err)
	}
	v, err := ks.Put(within(t, 300*time.Millisecond), "all", []byte("all"), &client.PutOptions{Acks: client.AcksAll})
	var c *client.WriteConcernError
	if !errors.As(err, &c) || !errors.Is(err, client.ErrWriteConcern) || c.Acked != 2 || c.Want != 3 || v.IsZero() {
		t.Errorf("all of two: version %v, %v", v, err)
	}
	if got := value(open(t, all[1], "net"), "all"); got != "all" {
		t.Errorf("a write that was not acknowledged by all was taken back: %q", got)
	}
	stop(t, all[1])
	if _, err := ks.Put(within(t, 300*time.Millisecond), "alone", nil, &client.PutOptions{Acks: client.AcksQuorum}); !errors.As(err, &c) || c.Acked != 1 || c.Want != 2 {
		t.Errorf("quorum of one: %v", err)
	}
}

// A member that started anew on an empty disk is one member and not two, and one
// that is between two incarnations is not left out.
func TestWriteConcernCountsRestarts(t *testing.T) {
	all := cluster(t, 3)
	ks := open(t, all[0], "net")
	joined(t, "net", all...)
	if _, err := ks.Put(within(t, 10*time.Second), "a", nil, &client.PutOptions{Acks: 3}); err != nil {
		t.Fatal(err)
	}
	stop(t, all[2])
	again := start(t, node.Config{Name: all[2].Name(), Join: []string{all[0].MeshAddr()}, DataDir: filepath.Join(t.TempDir(), "data")})
	if _, err := ks.Put(within(t, 20*time.Second), "b", nil, &client.PutOptions{Acks: client.AcksAll, Durable: true}); err != nil {
		t.Fatalf("all, of whom one began anew: %v", err)
	}
	if _, err := open(t, again, "net").Put(within(t, 20*time.Second), "c", nil, &client.PutOptions{Acks: client.AcksAll, Durable: true}); err != nil {
		t.Fatalf("all, from the one that began anew: %v", err)
	}
}

// A node in memory is never counted for the disk, and says so of itself.
func TestWriteConcernInMemory(t *testing.T) {
	a := start(t, node.Config{Name: "a", DataDir: filepath.Join(t.TempDir(), "data")})
	b := start(t, node.Config{Name: "b", Join: []string{a.MeshAddr()}})
	ks := open(t, a, "net")
	joined(t, "net", a, b)
	if _, err := ks.Put(within(t, 20*time.Second), "k", nil, &client.PutOptions{Acks: client.AcksAll}); err != nil {
		t.Fatal(err)
	}
	var c *client.WriteConcernError
	if _, err := ks.Put(within(t, 500*time.Millisecond), "k", nil, &client.PutOptions{Acks: client.AcksAll, Durable: true}); !errors.As(err, &c) || c.Acked != 1 || c.Want != 2 {
		t.Errorf("on the disk of a node without one: %v", err)
	}
}

// A write that is forwarded is acknowledged by the members, and the one that
// forwards it is none.
func TestForwardedWriteConcern(t *testing.T) {
	a := start(t, node.Config{Name: "a"})
	b := start(t, node.Config{Name: "b", Join: []string{a.MeshAddr()}})
	out := start(t, node.Config{Name: "out", Join: []string{a.MeshAddr()}, Keyspaces: []string{"other"}})
	mustPut(t, open(t, a, "net"), "k", "v", nil)
	joined(t, "net", a, b)
	ks := open(t, out, "net")
	until(t, "members are known", func() bool { return value(ks, "k") == "v" })
	if _, err := ks.Put(within(t, 20*time.Second), "all", nil, &client.PutOptions{Acks: client.AcksAll}); err != nil {
		t.Errorf("all: %v", err)
	}
	if _, err := ks.Put(within(t, 5*time.Second), "three", nil, &client.PutOptions{Acks: 3}); !errors.Is(err, client.ErrBadRequest) {
		t.Errorf("3 of 2 members: %v", err)
	}
	stop(t, b)
	var c *client.WriteConcernError
	if _, err := ks.Put(within(t, 2*time.Second), "k", nil, &client.PutOptions{Acks: client.AcksAll}); !errors.As(err, &c) || c.Acked != 1 || c.Want != 2 {
		t.Errorf("all of one: %v", err)
	}
}
