package host_test

import (
	"errors"
	"testing"

	"github.com/meshkv/meshkv/consensus/host"
	"github.com/meshkv/meshkv/consensus/logstore"
	"github.com/meshkv/meshkv/consensus/replica"
)

// TestReplayedEntriesDeleteNothing: after a restart the catalog's log is applied again from its
// snapshot on. Entries from before a server was added must not make it delete what it acknowledged since.
func TestReplayedEntriesDeleteNothing(t *testing.T) {
	ctx := bounded(t)
	c := newCluster(t)
	names := []string{"a", "b", "c"}
	for _, name := range names {
		c.start(name, names...)
	}
	first := c.create(ctx, "a", "ks", 1).Keyspace.Members[0].Server
	var others []string
	for _, name := range names {
		if name != first {
			others = append(others, name)
		}
	}
	add := func(server string) {
		t.Helper()
		if _, err := c.hosts[first].AddVoter(ctx, "ks", server); err != nil {
			t.Fatal(err)
		}
		if err := c.hosts[first].AwaitVoter(ctx, "ks", server, true); err != nil {
			t.Fatal(err)
		}
	}
	early, late := others[0], others[1]
	add(early)
	for _, name := range names { // late is no member in the snapshots
		if err := replicaOf(t, ctx, c.hosts[name], host.System).Group().Snapshot(); err != nil {
			t.Fatal(err)
		}
	}
	add(late)
	c.stop(early) // so that the next write is acknowledged by first and late
	putKey(t, ctx, replicaOf(t, ctx, c.hosts[first], "ks"), "key", "acknowledged")
	c.stop(first)
	c.stop(late)
	c.start(late, names...)
	c.start(early, names...)
	v, err := replicaOf(t, ctx, c.hosts[early], "ks").Read(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if v.Get("key") == nil {
		t.Fatal("an acknowledged write is lost")
	}
}

// TestLogStoreIsKept: replicas never go on without the log and the votes that they have given.
func TestLogStoreIsKept(t *testing.T) {
	ctx := bounded(t)
	c := newCluster(t)
	c.start("a", "a")
	c.create(ctx, "a", "ks", 1)
	c.stop("a")
	c.logStore = logstore.BoltDB
	if _, err := c.open("a", "a"); !errors.Is(err, host.ErrIdentity) {
		t.Fatalf("with another log store: %v, want a refusal", err)
	}
}

// TestWatchEndsWithItsReplica: a watch at a replica that is closed says so.
func TestWatchEndsWithItsReplica(t *testing.T) {
	ctx := bounded(t)
	c := newCluster(t)
	c.start("a", "a")
	c.create(ctx, "a", "ks", 1)
	_, w := replicaOf(t, ctx, c.hosts["a"], "ks").WatchState("")
	if _, err := c.hosts["a"].Remove(ctx, "ks"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Next(ctx); !errors.Is(err, replica.ErrWatchClosed) {
		t.Fatalf("next: %v, want the end", err)
	}
}
