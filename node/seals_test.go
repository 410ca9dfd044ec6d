package node_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/node"
)

func keyspaceStatus(t *testing.T, n *node.Node, name string) client.KeyspaceStatus {
	t.Helper()
	st, err := n.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, ks := range st.Keyspaces {
		if ks.Name == name {
			return ks
		}
	}
	return client.KeyspaceStatus{}
}

// quick are lifetimes that a test can wait for.
func quick(cfg node.Config) node.Config {
	cfg.SealAfter, cfg.RetireAfter = 300*time.Millisecond, time.Millisecond
	return cfg
}

// A node starts again and again, and each start leaves an incarnation behind.
// They are sealed at all members and, without values, forgotten. A directory from
// before that brings nothing back, and says what it lost.
func TestF4IncarnationsAreForgotten(t *testing.T) {
	// The directory of a node that wrote before all others, and never met them.
	stale := filepath.Join(t.TempDir(), "stale")
	lone := start(t, node.Config{Name: "n3", DataDir: stale})
	mustPut(t, open(t, lone, "ks"), "lone", "v", nil)
	stop(t, lone)
	if err := os.Remove(filepath.Join(stale, "members.known")); err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}

	configs := []node.Config{
		quick(node.Config{Name: "n1", DataDir: filepath.Join(t.TempDir(), "n1")}),
		quick(node.Config{Name: "n2", DataDir: filepath.Join(t.TempDir(), "n2")}),
	}
	first := start(t, configs[0])
	configs[1].Join = []string{first.MeshAddr()}
	second := start(t, configs[1])
	config := quick(node.Config{Name: "n3", DataDir: filepath.Join(t.TempDir(), "n3"), Join: []string{first.MeshAddr()}})
	var third *node.Node
	for i := range 4 {
		if third != nil {
			stop(t, third)
		}
		third = start(t, config)
		mustPut(t, open(t, third, "ks"), fmt.Sprintf("start%d", i%2), fmt.Sprint(i), nil)
		mustPut(t, open(t, third, "ks"), "bound", "v", &client.PutOptions{Ephemeral: true})
		until(t, "it is heard", func() bool { return value(open(t, first, "ks"), fmt.Sprintf("start%d", i%2)) == fmt.Sprint(i) })
	}
	nodes := []*node.Node{first, second, third}
	for _, n := range nodes {
		until(t, n.Name()+" has sealed them", func() bool {
			ks := keyspaceStatus(t, n, "ks")
			return ks.ClockClosed == 3 && ks.ClockSealed == 3
		})
	}
	// The horizon is below every incarnation that lives: the others go on, too.
	for i, cfg := range configs {
		stop(t, nodes[i])
		cfg.Bind = nodes[i].MeshAddr()
		nodes[i] = start(t, cfg)
	}
	first = nodes[0]
	for _, n := range nodes {
		// Of the third: the third start, whose value lives, and the fourth.
		until(t, n.Name()+" has forgotten them", func() bool {
			ks := keyspaceStatus(t, n, "ks")
			return ks.ClockEntries <= 3 && ks.ClockClosed == 1 && ks.ClockSealed == 1 // the horizon is an entry
		})
		until(t, n.Name()+" has forgotten them in the directory", func() bool {
			ks := keyspaceStatus(t, n, "_members")
			return ks.ClockEntries == 4 && ks.ClockClosed == 0
		})
	}
	equal(t, "ks", nodes...)

	stop(t, third)
	back := start(t, quick(node.Config{Name: "n3", DataDir: stale, Join: []string{first.MeshAddr()}}))
	nodes[2] = back
	until(t, "it has what it missed", func() bool { return value(open(t, back, "ks"), "start1") == "3" })
	equal(t, "ks", nodes...)
	for _, n := range nodes {
		if _, err := open(t, n, "ks").Get(t.Context(), "lone", nil); err == nil {
			t.Errorf("%s: a value below the horizon is back", n.Name())
		}
	}
	st, err := back.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := st.Drops["rejected_cell"]; got < 2 { // and its entry of the catalog, which others had made too
		t.Errorf("got %d rejected cells, want 2 or more", got)
	}
	if got := keyspaceStatus(t, back, "ks").Rejected; got != 1 {
		t.Errorf("keyspace: got %d rejected cells, want 1", got)
	}
	mustPut(t, open(t, back, "ks"), "lone", "again", nil)
	for _, n := range nodes {
		until(t, "it may be put again", func() bool { return value(open(t, n, "ks"), "lone") == "again" })
	}
}
