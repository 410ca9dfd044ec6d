package keyspace

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/consensus/bridge"
	"github.com/meshkv/meshkv/consensus/machine"
	"github.com/meshkv/meshkv/crdt"
	"github.com/meshkv/meshkv/gossip"
	"github.com/meshkv/meshkv/storage"
)

func openMirror(t *testing.T, env *Env) *Keyspace {
	t.Helper()
	k, err := OpenMirror("ks~strong#1", mirrorOrigin, env, storage.KeyspaceState{}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// A strongSource is a machine whose changes feed a mirror.
type strongSource struct {
	t *testing.T
	m *machine.Machine
}

func (s *strongSource) apply(ops ...machine.Op) []*crdt.Op {
	s.t.Helper()
	cmd, err := (&machine.Command{Wall: time.Now().UnixMilli(), Body: &machine.Txn{Then: ops}}).AppendBinary(nil)
	if err != nil {
		s.t.Fatal(err)
	}
	res := s.m.Apply(s.m.View().Status().Applied+1, cmd)
	if res.Err != nil {
		s.t.Fatal(res.Err)
	}
	return bridge.Ops(mirrorOrigin, res.Changes)
}

func (s *strongSource) put(key, value string) []*crdt.Op {
	s.t.Helper()
	return s.apply(&machine.Put{Key: key, Value: []byte(value)})
}

func (s *strongSource) remove(key string) []*crdt.Op {
	s.t.Helper()
	return s.apply(&machine.Delete{Span: machine.Span{Key: key}})
}

func feedMirror(t *testing.T, k *Keyspace, ops []*crdt.Op) {
	t.Helper()
	if err := k.Feed(time.Now(), ops); err != nil {
		t.Fatal(err)
	}
}

func TestMirrorIsReadOnly(t *testing.T) {
	k := openMirror(t, testEnv())
	feedMirror(t, k, (&strongSource{t, machine.New()}).put("k", "v"))
	_, err := k.Put(t.Context(), "k", nil, nil)
	if !errors.Is(err, client.ErrDenied) || !strings.Contains(err.Error(), "write through ks") {
		t.Errorf("put: %v", err)
	}
	if _, err := k.Delete(t.Context(), "k", nil); !errors.Is(err, client.ErrDenied) {
		t.Errorf("delete: %v", err)
	}
	if _, err := k.Get(t.Context(), "k", nil); err != nil {
		t.Errorf("get: %v", err)
	}
}

func TestMirrorShowsStrongEntries(t *testing.T) {
	k, src := openMirror(t, testEnv()), &strongSource{t, machine.New()}
	feedMirror(t, k, src.put("other", "v"))
	feedMirror(t, k, src.apply(&machine.Put{Key: "k", Value: []byte("v")}, &machine.Put{Key: "l", Value: []byte("w")}))
	for _, o := range []*client.GetOptions{nil, {Local: true}, {Siblings: true}} {
		e, err := k.Get(t.Context(), "k", o)
		if err != nil || string(e.Value) != "v" || e.Version != (client.Version{Seq: 3}) || e.Origin != "ks" || len(e.Siblings) > 0 {
			t.Errorf("got %+v, %v", e, err)
		}
	}
	for e, err := range k.List(t.Context(), "l", nil) {
		if err != nil || e.Version != (client.Version{Seq: 3}) || e.Origin != "ks" {
			t.Errorf("listed %+v, %v", e, err)
		}
	}
}

func TestMirrorGenerations(t *testing.T) {
	a, err1 := MirrorGeneration(1, 2)
	b, err2 := MirrorGeneration(2, 1)
	if err1 != nil || err2 != nil || a == b {
		t.Errorf("got %d, %v and %d, %v", a, err1, b, err2)
	}
	if _, err := MirrorGeneration(1<<32, 0); !errors.Is(err, client.ErrTooLarge) {
		t.Errorf("a large generation: %v", err)
	}
	if _, err := MirrorGeneration(0, 1<<32); !errors.Is(err, client.ErrTooLarge) {
		t.Errorf("a large epoch: %v", err)
	}
}

// What members do does not concern the origin.
func TestMirrorOutlivesMembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		env := testEnv()
		env.Closed = func(incs []crdt.Inc) { t.Errorf("closed: %v", incs) }
		k, src := openMirror(t, env), &strongSource{t, machine.New()}
		feedMirror(t, k, src.put("k", "v"))
		k.SetSettleAfter(time.Second)
		k.CloseInc(time.Now(), mirrorOrigin)
		k.CloseInc(time.Now(), testInc+1)
		env.Owners.Set(mirrorOrigin, Owner{State: crdt.OwnerClosed})
		k.OwnerChanged(time.Now(), mirrorOrigin)
		for range 100 {
			time.Sleep(30 * time.Second)
			k.Tick(time.Now())
		}
		k.Renew(time.Now(), testInc+2)
		if _, err := k.Get(t.Context(), "k", nil); err != nil {
			t.Errorf("get: %v", err)
		}
		feedMirror(t, k, src.put("k", "w"))
		if e := k.rep.Replica().Clock().Entry(mirrorOrigin); e.Closed || e.Sealed || e.Prefix != 2 {
			t.Errorf("entry of the origin: %+v", e)
		}
		if _, ok := k.Survey(true); ok {
			t.Error("takes part in seals")
		}
		if k.Lost() || k.Horizon() != 0 {
			t.Errorf("lost: %v, horizon %v", k.Lost(), k.Horizon())
		}
	})
}

func TestMirrorOfAnotherOrigin(t *testing.T) {
	if _, err := OpenMirror("ks~strong", 0, testEnv(), storage.KeyspaceState{}, time.Now()); !errors.Is(err, client.ErrBadRequest) {
		t.Errorf("no origin: %v", err)
	}
	k, src := openMirror(t, testEnv()), &strongSource{t, machine.New()}
	feedMirror(t, k, src.put("k", "v"))
	st := storage.KeyspaceState{Clock: k.rep.Replica().Clock().Clone()}
	if _, err := OpenMirror("ks~strong#1", mirrorOrigin+1, testEnv(), st, time.Now()); !errors.Is(err, client.ErrBadRequest) {
		t.Errorf("state of another origin: %v", err)
	}
	if err := k.Feed(time.Now(), bridge.Ops(mirrorOrigin+1, nil)); err != nil {
		t.Errorf("nothing: %v", err)
	}
	for _, op := range src.put("l", "v") {
		op.Dot.Inc++
		if err := k.Feed(time.Now(), []*crdt.Op{op}); !errors.Is(err, gossip.ErrForeign) {
			t.Errorf("ops of another origin: %v", err)
		}
	}
	if err := openEmpty(testEnv()).Feed(time.Now(), src.put("l", "v")); !errors.Is(err, gossip.ErrForeign) {
		t.Errorf("an ordinary keyspace: %v", err)
	}
}

func TestMirrorThatIsDropped(t *testing.T) {
	k, src := openMirror(t, testEnv()), &strongSource{t, machine.New()}
	ops := src.put("k", "v")
	if err := k.Drop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := k.Feed(time.Now(), ops); !errors.Is(err, client.ErrUnavailable) {
		t.Errorf("feed: %v", err)
	}
	if err := k.FeedState(t.Context(), bridge.StateOf(mirrorOrigin, src.m.View())); !errors.Is(err, client.ErrUnavailable) {
		t.Errorf("feed a state: %v", err)
	}
}

func TestMirrorReopened(t *testing.T) {
	k, src := openMirror(t, testEnv()), &strongSource{t, machine.New()}
	feedMirror(t, k, src.put("k", "v"))
	next, err := k.Reopen(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if next.Origin() != mirrorOrigin {
		t.Fatal("no mirror any more")
	}
	if err := next.FeedState(t.Context(), bridge.StateOf(mirrorOrigin, src.m.View())); err != nil {
		t.Fatal(err)
	}
	if p := next.MirrorPosition(); p.Seq != 1 || next.rep.Replica().PendingLen() > 0 || next.index.Len() != 1 {
		t.Errorf("at %+v with %d cells", p, next.index.Len())
	}
}

func TestMirrorPositionOfKeyspace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, src := openMirror(t, testEnv()), &strongSource{t, machine.New()}
		if p := openEmpty(testEnv()).MirrorPosition(); p != (MirrorPosition{}) {
			t.Errorf("of no mirror: %+v", p)
		}
		if p := k.MirrorPosition(); p != (MirrorPosition{}) {
			t.Errorf("at the start: %+v", p)
		}
		feedMirror(t, k, src.put("k", "v"))
		at := time.Now()
		k.Announce(at, 1, 2)
		time.Sleep(time.Second)
		k.Announce(time.Now(), 4, 3)
		p := k.MirrorPosition()
		if !p.AsOf.Equal(at) {
			t.Errorf("as of %v, want %v", p.AsOf, at)
		}
		if p.AsOf = (time.Time{}); p != (MirrorPosition{Seq: 1, Behind: 3, Revision: 2}) {
			t.Errorf("got %+v", p)
		}
	})
}

// A watch of a mirror that is fed a state sees the difference, and goes on with changes.
func TestWatchOfAMirror(t *testing.T) {
	k, src := openMirror(t, testEnv()), &strongSource{t, machine.New()}
	feedMirror(t, k, src.put("a", "1"))
	feedMirror(t, k, src.put("b", "1"))
	w, err := k.Watch(t.Context(), "", &client.WatchOptions{UpdatesOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = w.Close() }()
	if ev := next(t, w); ev.Type != client.EventSynced {
		t.Fatalf("got %+v", ev)
	}
	src.put("a", "2")
	src.put("c", "1")
	src.remove("b")
	if err := k.FeedState(t.Context(), bridge.StateOf(mirrorOrigin, src.m.View())); err != nil {
		t.Fatal(err)
	}
	feedMirror(t, k, src.remove("a"))
	var got []string
	for range 4 {
		ev := next(t, w)
		switch ev.Type {
		case client.EventPut:
			got = append(got, fmt.Sprintf("put %s %s %d", ev.Entry.Key, ev.Entry.Value, ev.Entry.Version.Seq))
		case client.EventDelete:
			got = append(got, fmt.Sprintf("delete %s %s %d", ev.Entry.Key, ev.Prev.Value, ev.Prev.Version.Seq))
		}
	}
	if want := "put a 2 4, put c 1 5, delete b 1 3, delete a 2 4"; strings.Join(got, ", ") != want {
		t.Errorf("got %s, want %s", strings.Join(got, ", "), want)
	}
}

// Feeding a state while ops come, reads go on and a peer reconciles.
func TestMirrorFedConcurrently(t *testing.T) {
	k, src := openMirror(t, testEnv()), &strongSource{t, machine.New()}
	var ops []*crdt.Op
	for i := range 3000 {
		ops = append(ops, src.put(fmt.Sprint(i%1500), fmt.Sprint(i))...)
	}
	feedMirror(t, k, ops[:1000])
	view := src.m.View()
	var wg sync.WaitGroup
	wg.Go(func() {
		for range 5 {
			if err := k.FeedState(t.Context(), bridge.StateOf(mirrorOrigin, view)); err != nil {
				t.Errorf("feed a state: %v", err)
			}
		}
	})
	for i := range 1000 {
		feedMirror(t, k, src.put(fmt.Sprint(i), "new"))
		if _, err := k.Get(t.Context(), "1", nil); err != nil {
			t.Fatalf("get: %v", err)
		}
	}
	wg.Wait()
	if p := k.MirrorPosition(); p.Seq != 4000 || k.index.Len() != 1500 {
		t.Errorf("at %+v with %d cells", p, k.index.Len())
	}
}

// A cutShort state ends the context in its middle.
type cutShort struct {
	bridge.State
	cancel func()
}

func (s cutShort) Cells(wanted func(uint64) bool) iter.Seq[*crdt.Cell] {
	return func(yield func(*crdt.Cell) bool) {
		n := 0
		for c := range s.State.Cells(wanted) {
			if n++; n == 600 {
				s.cancel()
			}
			if !yield(c) {
				return
			}
		}
	}
}

// Feeding that was given up leaves nothing behind that counts, and can begin again.
func TestMirrorFeedingGivenUp(t *testing.T) {
	k, src := openMirror(t, testEnv()), &strongSource{t, machine.New()}
	for i := range 2000 {
		src.put(fmt.Sprint(i), "v")
	}
	ctx, cancel := context.WithCancel(t.Context())
	st := bridge.StateOf(mirrorOrigin, src.m.View())
	if err := k.FeedState(ctx, cutShort{st, cancel}); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	if p := k.MirrorPosition(); p.Seq != 0 || k.Met() {
		t.Errorf("at %d, met: %v", p.Seq, k.Met())
	}
	if err := k.FeedState(t.Context(), st); err != nil {
		t.Fatal(err)
	}
	if p := k.MirrorPosition(); p.Seq != 2000 || !k.Met() || k.index.Len() != 2000 {
		t.Errorf("at %d, met: %v, %d cells", p.Seq, k.Met(), k.index.Len())
	}
}
