package keyspace

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/crdt"
	"github.com/meshkv/meshkv/storage"
)

// withStore gives env a writer over a store in memory, which runs until t ends.
func withStore(t *testing.T, env *Env) storage.Store {
	t.Helper()
	s := storage.OpenMemory()
	if _, err := s.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	env.Writer = storage.NewWriter(s, nil)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- env.Writer.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s
}

// A dropped keyspace is out of the store, takes nothing more, and one that is
// opened again under its name goes on counting dots.
func TestDrop(t *testing.T) {
	env := testEnv()
	s := withStore(t, env)
	k := openEmpty(env)
	put(t, k, "a", "1", nil)
	put(t, k, "b", "2", &client.PutOptions{Durable: true})
	w, err := k.Watch(t.Context(), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for range 2 {
		if err := k.Drop(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	k.CloseInc(time.Now(), testInc) // a late event: it must not reach the store
	k.Tick(time.Now())
	if _, err := k.Put(t.Context(), "c", nil, nil); !errors.Is(err, client.ErrUnavailable) {
		t.Errorf("put: got %v, want ErrUnavailable", err)
	}
	for err == nil {
		_, err = w.Next(t.Context())
	}
	if t.Context().Err() != nil {
		t.Fatal("the watch did not end")
	}
	st, err := s.Load(t.Context())
	if err != nil || len(st.Keyspaces) != 0 {
		t.Fatalf("got %+v, %v, want no keyspace", st, err)
	}

	k = openEmpty(env)
	if v := put(t, k, "a", "3", &client.PutOptions{Durable: true}); v.Seq != 3 {
		t.Errorf("got seq %d, want 3: the first two were issued", v.Seq)
	}
	st, err = s.Load(t.Context())
	if err != nil || len(st.Keyspaces["ks"].Cells) != 1 || st.Keyspaces["ks"].Clock.Contains(crdt.Dot{Inc: testInc, Seq: 1}) {
		t.Fatalf("got %+v, %v, want one cell and its dot", st, err)
	}
}
