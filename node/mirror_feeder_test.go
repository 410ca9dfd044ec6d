package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/consensus/host"
	"github.com/meshkv/meshkv/consensus/machine"
	"github.com/meshkv/meshkv/consensus/placement"
	"github.com/meshkv/meshkv/consensus/replica"
	"github.com/meshkv/meshkv/crdt"
	"github.com/meshkv/meshkv/gossip"
	"github.com/meshkv/meshkv/keyspace"
	"github.com/meshkv/meshkv/storage"
)

type quiet struct{}

func (quiet) Wake(string, gossip.PeerID) {}

func openTestMirror(t *testing.T) *keyspace.Keyspace {
	t.Helper()
	env := &keyspace.Env{
		Name: "n", Inc: 1 << 22, Self: "n/1", Clock: keyspace.NewClock(0), Owners: keyspace.NewOwners(), Waker: quiet{},
		Closed: func([]crdt.Inc) {}, Logger: slog.New(slog.DiscardHandler),
	}
	ks, err := keyspace.OpenMirror("ks~strong#1", 77, env, storage.KeyspaceState{}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return ks
}

// A script is a source whose machine the test drives. A batch of changes, or an error, is
// told to the watch at a time.
type script struct {
	t     *testing.T
	leads atomic.Bool
	told  chan any

	mu     sync.Mutex // protects the fields below
	m      *machine.Machine
	follow int // how often it was asked for the state
}

func newScript(t *testing.T) *script {
	s := &script{t: t, m: machine.New(), told: make(chan any, 100)}
	s.leads.Store(true)
	return s
}

func (s *script) Leads() bool { return s.leads.Load() }
func (s *script) Close()      {}

func (s *script) View() *machine.View {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.m.View()
}

func (s *script) follows() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.follow
}

func (s *script) Follow() (*machine.View, mirrorWatch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.follow++
	return s.m.View(), s
}

func (s *script) Next(ctx context.Context) ([]*machine.Change, error) {
	select {
	case x := <-s.told:
		if err, ok := x.(error); ok {
			return nil, err
		}
		return x.([]*machine.Change), nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (s *script) put(key string) []*machine.Change {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	cmd, err := (&machine.Command{Body: &machine.Txn{Then: []machine.Op{&machine.Put{Key: key, Value: []byte("v")}}}}).AppendBinary(nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return s.m.Apply(s.m.View().Status().Applied+1, cmd).Changes
}

func TestMirrorFeeder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ks, src := openTestMirror(t), newScript(t)
		src.put("before")
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- (&mirrorFeeder{ks, src, slog.New(slog.DiscardHandler)}).run(ctx) }()
		at := func(what string, seq uint64, follows int) {
			t.Helper()
			synctest.Wait()
			if got, n := ks.MirrorPosition().Seq, src.follows(); got != seq || n != follows {
				t.Fatalf("%s: at %d after %d states, want %d after %d", what, got, n, seq, follows)
			}
		}
		at("the state", 1, 1)
		src.told <- src.put("k")
		src.told <- append(src.put("k"), src.put("l")...)
		at("changes", 4, 1)
		src.put("lost")
		src.told <- machine.ErrCompacted
		at("behind the history", 5, 2)
		src.put("lost")
		src.told <- fmt.Errorf("feed: %w", client.ErrOverloaded)
		at("the disk is slow", 5, 2)
		time.Sleep(feedPause)
		at("after a pause", 6, 3)

		time.Sleep(announceEvery)
		synctest.Wait()
		p := ks.MirrorPosition()
		if age := time.Since(p.AsOf); p.Revision != 7 || p.Behind != 0 || age > announceEvery {
			t.Errorf("announced: %+v, %s old", p, age)
		}
		src.leads.Store(false)
		time.Sleep(10 * time.Second)
		if age := time.Since(ks.MirrorPosition().AsOf); age < 9*time.Second {
			t.Errorf("announced %s ago by one who does not lead", age)
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("ended with %v", err)
		}
	})
}

func TestMirrorFeederEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ks, src := openTestMirror(t), newScript(t)
		src.told <- replica.ErrWatchClosed
		if err := (&mirrorFeeder{ks, src, slog.New(slog.DiscardHandler)}).run(t.Context()); !errors.Is(err, replica.ErrWatchClosed) {
			t.Errorf("the replica closed: %v", err)
		}
		if err := ks.Drop(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := (&mirrorFeeder{ks, src, slog.New(slog.DiscardHandler)}).run(t.Context()); !errors.Is(err, client.ErrUnavailable) {
			t.Errorf("the mirror was dropped: %v", err)
		}
	})
}

// The mirror that a server feeds from its replica, by real Raft.
func TestMirrorFedByAServer(t *testing.T) {
	n := started(t, Config{Name: "s1", Server: true, BootstrapServers: []string{"s1"}})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		err := n.CreateKeyspace(ctx, client.KeyspaceSpec{Name: "ks", Mode: "strong", Voters: 1})
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
	}
	strong, err := n.Strong(ctx, "ks")
	if err != nil {
		t.Fatal(err)
	}
	put := func(key string) client.Version {
		t.Helper()
		v, err := strong.Put(ctx, key, []byte(key), nil)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	put("a")
	e, _ := n.strongs.entries.Load("ks")
	r, ok := n.strongs.host.Load().Replica("ks")
	if !ok {
		t.Fatal("no replica")
	}
	origin, id, err := mirrorOf(e)
	if err != nil {
		t.Fatal(err)
	}
	ks, err := keyspace.OpenMirror(id.String(), origin, n.env, storage.KeyspaceState{}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	w, err := ks.Watch(ctx, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = w.Close() }()
	done := make(chan error)
	go func() { done <- (&mirrorFeeder{ks, replicaSource{r}, n.log}).run(ctx) }()
	last := put("b")
	for {
		ev, err := w.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if ev.Type == client.EventPut && ev.Entry.Key == "b" {
			if ev.Entry.Version != last || ev.Entry.Origin != "ks" {
				t.Errorf("got %+v, want version %v", ev.Entry, last)
			}
			break
		}
	}
	cancel()
	<-done
}

func TestMirrorWanted(t *testing.T) {
	e := host.Entry{Keyspace: placement.Keyspace{Members: []placement.Replica{{Server: "s1"}, {Server: "s2"}}}}
	for _, c := range []struct {
		holders []string
		want    bool
	}{{nil, false}, {[]string{"s2", "s1"}, false}, {[]string{"s1", "agent"}, true}} {
		if got := mirrorWanted(e, c.holders); got != c.want {
			t.Errorf("held by %v: got %v", c.holders, got)
		}
	}
}
