package node_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/gossip/faultnet"
	"github.com/meshkv/meshkv/node"
)

func memberStatus(t *testing.T, n *node.Node, name string) (s client.MemberStatus) {
	t.Helper()
	members, err := n.Members(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range members {
		if m.Name == name {
			return m.Status
		}
	}
	return ""
}

// A node is cut off until the others have forgotten it, and closed its
// incarnation for ever. When the partition ends it is back without a restart,
// under another incarnation, with all that it had bound to itself.
func TestF6ClosedWhileItLived(t *testing.T) {
	net := faultnet.New(1)
	var nodes []*node.Node
	var dirs []string
	for i := range 3 {
		dirs = append(dirs, filepath.Join(t.TempDir(), "data"))
		name := fmt.Sprintf("n%d", i+1)
		cfg := node.Config{
			Name: name, DataDir: dirs[i], Network: net.Node(name), ReapAfter: time.Second,
		}
		if i > 0 {
			cfg.Join = []string{nodes[0].MeshAddr()}
		}
		nodes = append(nodes, start(t, cfg))
	}
	cut, others := nodes[2], nodes[:2]
	mustPut(t, open(t, nodes[0], "ks"), "of-n1", "v", &client.PutOptions{Ephemeral: true})
	mustPut(t, open(t, cut, "ks"), "bound", "v", &client.PutOptions{Ephemeral: true})
	mustPut(t, open(t, cut, "ks"), "plain", "v", nil)
	for _, n := range nodes {
		until(t, "both are everywhere", func() bool {
			ks := open(t, n, "ks")
			return value(ks, "bound") == "v" && value(ks, "of-n1") == "v" && value(ks, "plain") == "v"
		})
	}
	former := cut.Inc()

	if err := net.Partition([]string{"n1", "n2"}, []string{"n3"}); err != nil {
		t.Fatal(err)
	}
	for _, n := range others {
		until(t, "n3 is forgotten", func() bool { return memberStatus(t, n, "n3") == "" })
		until(t, "its cells are collected", func() bool {
			info, err := open(t, n, "ks").Info(t.Context())
			return err == nil && info.Cells == 2
		})
	}
	mustPut(t, open(t, cut, "ks"), "during", "v", nil)
	if got := value(open(t, cut, "ks"), "bound"); got != "v" {
		t.Errorf("its own cell, at itself: %s", got)
	}
	net.Heal()
	for _, n := range nodes {
		ks := open(t, n, "ks")
		until(t, n.Name()+" has all", func() bool {
			for _, key := range []string{"bound", "of-n1", "plain", "during"} {
				if value(ks, key) != "v" {
					return false
				}
			}
			return true
		})
	}
	if cut.Inc() == former {
		t.Error("it writes under the incarnation that was closed")
	}
	until(t, "it writes", func() bool {
		_, err := open(t, cut, "ks").Put(t.Context(), "after", []byte("v"), nil)
		return err == nil
	})
	for _, n := range others {
		until(t, "what it writes arrives", func() bool { return value(open(t, n, "ks"), "after") == "v" })
		until(t, "the directory shows it", func() bool {
			e, err := open(t, n, "_members").Get(t.Context(), "n3", nil)
			return err == nil && memberStatus(t, n, "n3") == client.MemberAlive && strings.Contains(string(e.Value), cut.Inc())
		})
	}
	equal(t, "ks", nodes...)
	equal(t, "_members", nodes...)

	// It was written down before it was used: a start knows what to close.
	last := cut.Inc()
	stop(t, cut)
	b, err := os.ReadFile(filepath.Join(dirs[2], "incarnation"))
	if err != nil || string(b) != "n3 "+last+"\n" {
		t.Errorf("file: got %q, %v, want that of %s", b, err, last)
	}
}

// A node that lives for long takes a new incarnation from time to time, and
// nobody sees a difference.
func TestRenewedWhenOld(t *testing.T) {
	first := start(t, node.Config{Name: "n1"})
	old := start(t, node.Config{Name: "n2", Join: []string{first.MeshAddr()}, RenewAfter: 3 * time.Second})
	born := old.Inc()
	mustPut(t, open(t, old, "ks"), "bound", "v", &client.PutOptions{Ephemeral: true})
	ks := open(t, first, "ks")
	until(t, "it is there", func() bool { return value(ks, "bound") == "v" })
	until(t, "a new incarnation", func() bool { return old.Inc() != born })
	until(t, "known to the other", func() bool {
		e, err := ks.Get(t.Context(), "bound", nil)
		return err == nil && fmt.Sprintf("%016x", e.Version.Inc) != born
	})
	until(t, "it writes", func() bool {
		_, err := open(t, old, "ks").Put(t.Context(), "plain", []byte("v"), nil)
		return err == nil
	})
	until(t, "and is heard", func() bool { return value(ks, "plain") == "v" })
}
