package node_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/node"
)

func drops(t *testing.T, n *node.Node, reason string) uint64 {
	t.Helper()
	st, err := n.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return st.Drops[reason]
}

func holds(t *testing.T, n *node.Node, name string) bool {
	t.Helper()
	infos, err := n.Keyspaces(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, info := range infos {
		if info.Name == name {
			return true
		}
	}
	return false
}

// A node outside a keyspace gets nothing of it, and reads and writes it all the
// same.
func TestNonMember(t *testing.T) {
	nodes := cluster(t, 3)
	out := start(t, node.Config{Name: "out", DataDir: filepath.Join(t.TempDir(), "data"), Join: []string{nodes[0].MeshAddr()}, Keyspaces: []string{"a"}})
	mustPut(t, open(t, nodes[0], "a"), "k", "shared", nil)
	until(t, "the keyspace that it holds reaches it", func() bool { return value(open(t, out, "a"), "k") == "shared" })
	before := received(t, out)

	b := open(t, nodes[1], "b")
	payload := strings.Repeat("x", 1000)
	for i := range 2000 {
		mustPut(t, b, fmt.Sprintf("k%04d", i), payload, nil)
	}
	equal(t, "b", nodes...)
	if holds(t, out, "b") {
		t.Error("the node holds the keyspace")
	}
	if n := drops(t, out, "keyspace_not_held"); n != 0 {
		t.Errorf("%d frames of the keyspace reached the node", n)
	}
	if got := received(t, out) - before; got > 200_000 {
		t.Errorf("%d bytes reached the node while 2 MB were written to the keyspace", got)
	}

	remote := open(t, out, "b")
	until(t, "read at a member", func() bool { return value(remote, "k0001") == payload })
	mustPut(t, remote, "from-out", "1", nil)
	if v := value(remote, "from-out"); v != "1" {
		t.Errorf("own write: %s", v)
	}
	for _, n := range nodes {
		until(t, "the write reaches all members", func() bool { return value(open(t, n, "b"), "from-out") == "1" })
	}
	if d, err := remote.Delete(t.Context(), "from-out", nil); err != nil || !d.Deleted {
		t.Errorf("delete: %+v, %v", d, err)
	}
	if d, err := remote.Digest(t.Context()); err != nil || d.Entries != 2000 {
		t.Errorf("digest: %+v, %v", d, err)
	}
	count := 0
	for _, err := range remote.List(t.Context(), "k", nil) {
		if err != nil {
			t.Fatal(err)
		}
		count++
	}
	if count != 2000 {
		t.Errorf("listed %d keys", count)
	}
}

func received(t *testing.T, n *node.Node) (bytes uint64) {
	t.Helper()
	st, err := n.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range st.Links {
		bytes += l.RecvBytes
	}
	return bytes
}

// A watch at a non-member survives the member that serves it, and has no gap.
func TestForwardedWatchMoves(t *testing.T) {
	nodes := cluster(t, 3)
	out := start(t, node.Config{Name: "out", Join: []string{nodes[0].MeshAddr()}, Keyspaces: []string{"none"}})
	mustPut(t, open(t, nodes[0], "b"), "k1", "1", nil)
	equal(t, "b", nodes...)
	remote := open(t, out, "b")
	var w client.Watch
	until(t, "watch opened", func() (ok bool) {
		var err error
		w, err = remote.Watch(t.Context(), "", nil)
		return err == nil
	})
	defer w.Close()
	shown := make(map[string]string)
	follow := func(key, want string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		for shown[key] != want {
			ev, err := w.Next(ctx)
			if err != nil {
				t.Fatalf("%s: %v", key, err)
			}
			switch ev.Type {
			case client.EventPut:
				shown[ev.Entry.Key] = string(ev.Entry.Value)
			case client.EventDelete:
				delete(shown, ev.Entry.Key)
			case client.EventResync:
				clear(shown)
			}
		}
	}
	follow("k1", "1")
	for i, n := range nodes[:2] { // the one that serves it is one of the three; the last goes on
		stop(t, n)
		key := fmt.Sprintf("after-%d", i)
		mustPut(t, open(t, nodes[2], "b"), key, "2", nil)
		follow(key, "2")
	}
	follow("k1", "1")
}

// Where no member can be reached, the error says so and what to do.
func TestForwardNobody(t *testing.T) {
	n := start(t, node.Config{Name: "out", Keyspaces: []string{"a"}})
	_, err := open(t, n, "b").Put(t.Context(), "k", nil, nil)
	if !errors.Is(err, client.ErrUnavailable) || !strings.Contains(err.Error(), "--keyspaces b") {
		t.Errorf("got %v", err)
	}
	if _, err := open(t, n, "b").Get(t.Context(), "k", nil); !errors.Is(err, client.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
}

func TestSystemKeyspacesAreReadOnly(t *testing.T) {
	nodes := cluster(t, 2)
	until(t, "the directory is everywhere", func() bool {
		return strings.Contains(value(open(t, nodes[0], "_members"), "n2"), `"keyspaces":["*"]`)
	})
	mustPut(t, open(t, nodes[0], "ks"), "k", "v", nil)
	until(t, "the catalog is everywhere", func() bool {
		return strings.HasPrefix(value(open(t, nodes[1], "_keyspaces"), "ks"), "{")
	})
	if _, err := open(t, nodes[0], "_members").Put(t.Context(), "n1", nil, nil); !errors.Is(err, client.ErrDenied) {
		t.Errorf("put: %v", err)
	}
	if _, err := open(t, nodes[0], "_keyspaces").Delete(t.Context(), "ks", nil); !errors.Is(err, client.ErrDenied) {
		t.Errorf("delete: %v", err)
	}
}

// Where a keyspace does not exist yet, or was removed, a node that is to hold it
// makes it for the others.
func TestForwardMakesKeyspace(t *testing.T) {
	holder := start(t, node.Config{Name: "holder", Keyspaces: []string{"b"}})
	out := start(t, node.Config{Name: "out", Join: []string{holder.MeshAddr()}, Keyspaces: []string{"none"}})
	remote := open(t, out, "b")
	for range 2 {
		until(t, "put at the member", func() bool {
			_, err := remote.Put(t.Context(), "k", []byte("1"), nil)
			return err == nil
		})
		if v := value(open(t, holder, "b"), "k"); v != "1" {
			t.Errorf("at the member: %s", v)
		}
		if err := holder.RemoveKeyspace(t.Context(), "b"); err != nil {
			t.Fatal(err)
		}
	}
}
