package node

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/puzpuzpuz/xsync/v4"

	"github.com/meshkv/meshkv/crdt"
	"github.com/meshkv/meshkv/gossip"
	"github.com/meshkv/meshkv/keyspace"
	"github.com/meshkv/meshkv/storage"
)

func TestSplitFrame(t *testing.T) {
	long := strings.Repeat("n", 255)
	for _, c := range []struct {
		name    string
		frame   []byte
		ks      string
		payload []byte
		err     error
	}{
		{"empty", nil, "", nil, errFrame},
		{"short", []byte("\x03ab"), "", nil, errFrame},
		{"no payload", []byte("\x02ab"), "ab", []byte{}, nil},
		{"payload", []byte("\x02abcd"), "ab", []byte("cd"), nil},
		{"longest name", append([]byte{255}, long+"p"...), long, []byte("p"), nil},
		{"longest name missing", append([]byte{255}, long[1:]...), "", nil, errFrame},
	} {
		t.Run(c.name, func(t *testing.T) {
			ks, payload, err := splitFrame(c.frame)
			if ks != c.ks || !bytes.Equal(payload, c.payload) || !errors.Is(err, c.err) {
				t.Errorf("got %q, %q, %v", ks, payload, err)
			}
		})
	}
}

type noWaker struct{}

func (noWaker) Wake(string, gossip.PeerID) {}

// What a session sends does not wait for a slot: a bootstrap would take one for each
// answer. Ops do, and so does what the peer is to be told.
func TestSessionsWaitForNoSlot(t *testing.T) {
	now := time.Now()
	open := func(name string, inc crdt.Inc) *keyspace.Keyspace {
		env := &keyspace.Env{
			Name: name, Inc: inc, Self: gossip.PeerID(name), Clock: keyspace.NewClock(0), Owners: keyspace.NewOwners(),
			Waker: noWaker{}, Closed: func([]crdt.Inc) {}, Logger: slog.New(slog.DiscardHandler),
		}
		return keyspace.Open("data", env, storage.KeyspaceState{}, now)
	}
	a, b := open("a", 1<<22), open("b", 2<<22)
	for i := range 1000 {
		if _, err := a.Put(t.Context(), fmt.Sprint(i), make([]byte, 1000), nil); err != nil {
			t.Fatal(err)
		}
	}
	n := &Node{holdings: xsync.NewMap[string, *holding]()}
	n.holdings.Store("data", &holding{id: keyspaceID{Name: "data"}, ks: a})
	p := newPeer("b", nil)
	check := func(when string, want bool) {
		t.Helper()
		if got := n.hurries(p); got != want {
			t.Errorf("%s: hurries is %v", when, got)
		}
	}
	check("nothing is marked", true)
	p.announce()
	check("an announcement", false)
	p.due.Store(false)
	p.mark("data")
	check("no link", false)
	a.LinkUp(now, "b", gossip.RoleDirect)
	b.LinkUp(now, "a", gossip.RoleDirect)
	check("no session", false)

	move := func(from *keyspace.Keyspace, to gossip.PeerID, dest *keyspace.Keyspace, name gossip.PeerID) bool {
		frame, ok := from.NextFrame(now, to, nil, maxFrame)
		if ok {
			if err := dest.Step(now, name, frame); err != nil {
				t.Fatal(err)
			}
		}
		return ok
	}
	hurried := 0
	for range 100 {
		now = now.Add(tickEvery)
		a.Tick(now)
		b.Tick(now)
		for moved := true; moved; {
			moved = move(a, "b", b, "a")
			moved = move(b, "a", a, "b") || moved
			if n.hurries(p) {
				hurried++
			}
		}
	}
	if info, _ := b.Info(t.Context()); info.Keys != 1000 || hurried < 5 {
		t.Errorf("%d keys, %d times in a hurry", info.Keys, hurried)
	}
	check("the session is over", false)
}
