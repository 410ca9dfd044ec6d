package node_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/node"
)

// testWriter sends a node's log to the test's.
type testWriter struct{ t *testing.T }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

func start(t *testing.T, cfg node.Config) *node.Node {
	t.Helper()
	if cfg.Bind == "" {
		cfg.Bind = "127.0.0.1:0"
	}
	if cfg.HTTP == "" {
		cfg.HTTP = "off"
	}
	cfg.Logger = slog.New(slog.NewTextHandler(testWriter{t}, nil))
	n, err := node.Start(t.Context(), cfg)
	if err != nil {
		t.Fatalf("start %s: %v", cfg.Name, err)
	}
	t.Cleanup(func() { stop(t, n) })
	return n
}

func stop(t *testing.T, n *node.Node) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := n.Stop(ctx); err != nil {
		t.Errorf("stop %s: %v", n.Name(), err)
	}
}

// cluster starts count nodes that join the first.
func cluster(t *testing.T, count int) []*node.Node {
	t.Helper()
	var nodes []*node.Node
	for i := range count {
		cfg := node.Config{Name: fmt.Sprintf("n%d", i+1), DataDir: filepath.Join(t.TempDir(), "data")}
		if i > 0 {
			cfg.Join = []string{nodes[0].MeshAddr()}
		}
		nodes = append(nodes, start(t, cfg))
	}
	return nodes
}

// until waits for cond; the condition is what is waited for, the tick only says
// how often it is asked.
func until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline := time.After(2 * time.Minute) // a machine may be busy
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-deadline:
			t.Fatalf("never: %s", what)
		case <-tick.C:
		}
	}
}

func open(t *testing.T, n *node.Node, name string) client.Keyspace {
	t.Helper()
	ks, err := n.Keyspace(t.Context(), name)
	if err != nil {
		t.Fatalf("open %s: %v", name, err)
	}
	return ks
}

func digest(t *testing.T, n *node.Node, name string) client.Digest {
	t.Helper()
	d, err := open(t, n, name).Digest(t.Context())
	if err != nil {
		t.Fatalf("digest: %v", err)
	}
	return d
}

func equal(t *testing.T, name string, nodes ...*node.Node) {
	t.Helper()
	until(t, "digests equal", func() bool {
		first := digest(t, nodes[0], name)
		for _, n := range nodes[1:] {
			if digest(t, n, name) != first {
				return false
			}
		}
		return true
	})
}

func value(ks client.Keyspace, key string) string {
	e, err := ks.Get(context.Background(), key, nil)
	if err != nil {
		return "error: " + err.Error()
	}
	return string(e.Value)
}

func mustPut(t *testing.T, ks client.Keyspace, key, value string, o *client.PutOptions) {
	t.Helper()
	if _, err := ks.Put(t.Context(), key, []byte(value), o); err != nil {
		t.Fatalf("put %s: %v", key, err)
	}
}

func TestPutIsReadEverywhere(t *testing.T) {
	nodes := cluster(t, 3)
	for i, n := range nodes {
		mustPut(t, open(t, n, "ks"), fmt.Sprintf("k%d", i), n.Name(), nil)
	}
	for i, writer := range nodes {
		for _, reader := range nodes {
			until(t, "put readable", func() bool { return value(open(t, reader, "ks"), fmt.Sprintf("k%d", i)) == writer.Name() })
		}
	}
	until(t, "origin has a name", func() bool {
		e, err := open(t, nodes[2], "ks").Get(t.Context(), "k0", nil)
		return err == nil && e.Origin == "n1"
	})
	if _, err := open(t, nodes[1], "ks").Delete(t.Context(), "k0", nil); err != nil {
		t.Fatal(err)
	}
	equal(t, "ks", nodes...)
	for _, n := range nodes {
		if v := value(open(t, n, "ks"), "k0"); v != "error: not found" {
			t.Errorf("%s still has the deleted key: %s", n.Name(), v)
		}
	}
}

func TestRestartKeepsWhatWasWritten(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	n := start(t, node.Config{Name: "n1", DataDir: dir})
	for i := range 100 {
		mustPut(t, open(t, n, "ks"), fmt.Sprintf("k%03d", i), "v", nil)
	}
	before := digest(t, n, "ks")
	inc := n.Inc()
	stop(t, n)
	n = start(t, node.Config{Name: "n1", DataDir: dir})
	if after := digest(t, n, "ks"); after.Digest != before.Digest || after.Entries != 100 {
		t.Errorf("after the restart %+v, before %+v", after, before)
	}
	if n.Inc() == inc {
		t.Error("the incarnation is the same after a restart")
	}
}

// A node that misses writes catches up by a session, and a value that its
// former incarnation bound to itself is gone for ever.
func TestRestartCatchesUp(t *testing.T) {
	nodes := cluster(t, 2)
	dir := filepath.Join(t.TempDir(), "data")
	third := start(t, node.Config{Name: "n3", DataDir: dir, Join: []string{nodes[0].MeshAddr()}})
	mustPut(t, open(t, third, "ks"), "mine", "v", &client.PutOptions{Ephemeral: true})
	until(t, "ephemeral key shown elsewhere", func() bool { return value(open(t, nodes[0], "ks"), "mine") == "v" })
	stop(t, third)
	for i := range 500 {
		mustPut(t, open(t, nodes[0], "ks"), fmt.Sprintf("k%03d", i), "v", nil)
	}
	third = start(t, node.Config{Name: "n3", DataDir: dir, Join: []string{nodes[0].MeshAddr()}})
	until(t, "ephemeral key of the former incarnation hidden", func() bool {
		return strings.HasPrefix(value(open(t, nodes[0], "ks"), "mine"), "error") && strings.HasPrefix(value(open(t, third, "ks"), "mine"), "error")
	})
	equal(t, "ks", nodes[0], nodes[1], third)
	until(t, "the ephemeral cell is collected", func() bool { return digest(t, third, "ks").Entries == 500 })
}

func TestLeaveClosesEphemeralKeys(t *testing.T) {
	nodes := cluster(t, 2)
	mustPut(t, open(t, nodes[1], "ks"), "mine", "v", &client.PutOptions{Ephemeral: true})
	until(t, "shown", func() bool { return value(open(t, nodes[0], "ks"), "mine") == "v" })
	w, err := open(t, nodes[0], "ks").Watch(t.Context(), "", &client.WatchOptions{UpdatesOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for synced := false; !synced; { // while it joins, the watch shows what arrives
		ev, err := w.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		synced = ev.Type == client.EventSynced
	}
	if err := nodes[1].Leave(ctx); err != nil {
		t.Fatalf("leave: %v", err)
	}
	<-nodes[1].Done()
	ev, err := w.Next(ctx)
	if err != nil || ev.Type != client.EventDelete || ev.Reason != client.ReasonOwnerFailed {
		t.Errorf("got %+v, %v", ev, err)
	}
	until(t, "collected", func() bool { return digest(t, nodes[0], "ks").Entries == 0 })
}

// A directory that is put back to an older state brings nothing back that was
// deleted since, and loses nothing that others have (F4).
func TestF13CopiedDirectoryIsHarmless(t *testing.T) {
	nodes := cluster(t, 2)
	dir := filepath.Join(t.TempDir(), "data")
	cfg := node.Config{Name: "n3", DataDir: dir, Join: []string{nodes[0].MeshAddr()}}
	third := start(t, cfg)
	ks := open(t, third, "ks")
	mustPut(t, ks, "old", "1", nil)
	equal(t, "ks", nodes[0], nodes[1], third)
	stop(t, third)
	backup := filepath.Join(t.TempDir(), "backup")
	if err := os.CopyFS(backup, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	third = start(t, cfg)
	ks = open(t, third, "ks")
	if _, err := ks.Delete(t.Context(), "old", nil); err != nil {
		t.Fatal(err)
	}
	mustPut(t, ks, "new", "2", nil)
	equal(t, "ks", nodes[0], nodes[1], third)
	stop(t, third)

	cfg.DataDir = backup // as it was before the delete
	third = start(t, cfg)
	mustPut(t, open(t, third, "ks"), "newer", "3", nil)
	equal(t, "ks", nodes[0], nodes[1], third)
	for _, n := range []*node.Node{nodes[0], nodes[1], third} {
		ks := open(t, n, "ks")
		if v := value(ks, "old"); v != "error: not found" {
			t.Errorf("%s: the deleted key came back: %s", n.Name(), v)
		}
		if a, b := value(ks, "new"), value(ks, "newer"); a != "2" || b != "3" {
			t.Errorf("%s: new = %s, newer = %s", n.Name(), a, b)
		}
	}
}

func TestDamagedStoreComesBackFromPeers(t *testing.T) {
	nodes := cluster(t, 2)
	dir := filepath.Join(t.TempDir(), "data")
	cfg := node.Config{Name: "n3", DataDir: dir, Join: []string{nodes[0].MeshAddr()}}
	third := start(t, cfg)
	for i := range 200 {
		mustPut(t, open(t, third, "ks"), fmt.Sprintf("k%03d", i), strings.Repeat("v", 50), nil)
	}
	equal(t, "ks", nodes[0], nodes[1], third)
	stop(t, third)
	logs, err := filepath.Glob(filepath.Join(dir, "wal-*.log"))
	if err != nil || len(logs) == 0 {
		t.Fatalf("no log to damage: %v, %v", logs, err)
	}
	b, err := os.ReadFile(logs[0])
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(logs[0], b, 0o600); err != nil {
		t.Fatal(err)
	}
	third = start(t, cfg)
	equal(t, "ks", nodes[0], nodes[1], third)
	if d := digest(t, third, "ks"); d.Entries != 200 {
		t.Errorf("%d entries", d.Entries)
	}
	if set, _ := filepath.Glob(filepath.Join(dir, "damaged-*")); len(set) != 1 {
		t.Errorf("set aside: %v", set)
	}
}

func TestStartRefusals(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	locked := filepath.Join(t.TempDir(), "data")
	start(t, node.Config{Name: "holder", DataDir: locked})
	for _, c := range []struct {
		name string
		cfg  node.Config
		want error
		text string
	}{
		{"bad name", node.Config{Name: "a b"}, node.ErrConfig, "name"},
		{"bad bind", node.Config{Bind: "nowhere"}, node.ErrConfig, "HOST:PORT"},
		{"not loopback", node.Config{Bind: "192.0.2.1:7950"}, node.ErrConfig, "--insecure"},
		{"API not loopback", node.Config{HTTP: "0.0.0.0:7951"}, node.ErrConfig, "--insecure"},
		{"bad seed", node.Config{Join: []string{"x"}}, node.ErrConfig, "HOST:PORT"},
		{"durability without a directory", node.Config{Durability: node.DurabilityFsync}, node.ErrConfig, "--data-dir"},
		{"unknown durability", node.Config{Durability: "never"}, node.ErrConfig, "fsync"},
		{"mesh port taken", node.Config{Bind: taken.Addr().String()}, node.ErrAddrInUse, "--bind"},
		{"API port taken", node.Config{HTTP: taken.Addr().String()}, node.ErrAddrInUse, "--http"},
		{"directory is a file", node.Config{DataDir: file}, node.ErrDataDir, "--data-dir"},
		{"directory in use", node.Config{DataDir: locked}, node.ErrDataDir, "--data-dir"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.cfg.Name == "" {
				c.cfg.Name = "n1"
			}
			if c.cfg.Bind == "" {
				c.cfg.Bind = "127.0.0.1:0"
			}
			if c.cfg.HTTP == "" {
				c.cfg.HTTP = "off"
			}
			n, err := node.Start(t.Context(), c.cfg)
			if err == nil {
				stop(t, n)
			}
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v", err)
			}
		})
	}
}
