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

// nextOf reads until cond holds of an event, or the watch ends.
func nextOf(t *testing.T, w client.Watch, cond func(client.Event) bool) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for {
		ev, err := w.Next(ctx)
		if err != nil || cond(ev) {
			return err
		}
	}
}

func synced(ev client.Event) bool { return ev.Type == client.EventSynced }

// A watch of a keyspace that is removed ends as not found, wherever it is, and
// does not make the keyspace again.
func TestWatchOfRemovedKeyspace(t *testing.T) {
	nodes := cluster(t, 2)
	out := start(t, node.Config{Name: "out", HTTP: "127.0.0.1:0", Join: []string{nodes[0].MeshAddr()}, Keyspaces: []string{"none"}})
	served := start(t, node.Config{Name: "served", HTTP: "127.0.0.1:0", Join: []string{nodes[0].MeshAddr()}})
	mustPut(t, open(t, nodes[0], "ks"), "k", "1", nil)
	equal(t, "ks", nodes[0], nodes[1], served)
	var watches []client.Watch
	var cursors []client.Cursor
	opened := func(ks client.Keyspace) {
		t.Helper()
		var w client.Watch
		until(t, "watch opened", func() bool {
			var err error
			w, err = ks.Watch(t.Context(), "", nil)
			return err == nil
		})
		t.Cleanup(func() { w.Close() })
		var cursor client.Cursor
		if err := nextOf(t, w, func(ev client.Event) bool { cursor = ev.Cursor; return synced(ev) }); err != nil {
			t.Fatal(err)
		}
		watches, cursors = append(watches, w), append(cursors, cursor)
	}
	var remotes []client.Keyspace
	for _, n := range []*node.Node{served, out} {
		c, err := client.Dial(t.Context(), n.APIAddr(), nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		remotes = append(remotes, openAt(t, c, "ks"))
	}
	opened(open(t, nodes[0], "ks"))
	opened(open(t, out, "ks"))
	opened(remotes[0])
	opened(remotes[1])
	if err := nodes[1].RemoveKeyspace(t.Context(), "ks"); err != nil {
		t.Fatal(err)
	}
	for i, w := range watches {
		if err := nextOf(t, w, func(client.Event) bool { return false }); !errors.Is(err, client.ErrNotFound) {
			t.Errorf("watch %d ends with %v, want ErrNotFound", i, err)
		}
	}
	for i, ks := range append([]client.Keyspace{open(t, out, "ks")}, remotes...) {
		if _, err := ks.Watch(t.Context(), "", &client.WatchOptions{From: cursors[2]}); !errors.Is(err, client.ErrNotFound) {
			t.Errorf("watch %d that goes on: %v, want ErrNotFound", i, err)
		}
	}
	for _, n := range append(nodes, served) {
		if holds(t, n, "ks") {
			t.Errorf("%s holds it again", n.Name())
		}
	}
}

func openAt(t *testing.T, c client.Cluster, name string) client.Keyspace {
	t.Helper()
	ks, err := c.Keyspace(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return ks
}

// A watch at a node that leaves the keyspace goes on at a member.
func TestWatchGoesOnAfterLeave(t *testing.T) {
	nodes := cluster(t, 2)
	third := start(t, node.Config{Name: "n3", DataDir: filepath.Join(t.TempDir(), "data"), Join: []string{nodes[0].MeshAddr()}})
	mustPut(t, open(t, nodes[0], "ks"), "k", "1", nil)
	equal(t, "ks", nodes[0], nodes[1], third)
	w, err := open(t, third, "ks").Watch(t.Context(), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := nextOf(t, w, synced); err != nil {
		t.Fatal(err)
	}
	if err := third.LeaveKeyspace(t.Context(), "ks", true); err != nil {
		t.Fatal(err)
	}
	mustPut(t, open(t, nodes[0], "ks"), "later", "2", nil)
	resynced := false
	if err := nextOf(t, w, func(ev client.Event) bool {
		resynced = resynced || ev.Type == client.EventResync
		return ev.Entry.Key == "later"
	}); err != nil || !resynced {
		t.Errorf("after the leave: %v, resync %v", err, resynced)
	}
}
