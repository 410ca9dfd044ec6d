package node

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/meshkv/meshkv/client"
)

// A keyspace that begins anew beside a peer is the same to clients: values, also
// those written before the peers heard of it, stay; dots are counted on.
func TestMendKeepsWhatIsHeld(t *testing.T) {
	var nodes []*Node
	for i := range 2 {
		cfg := Config{Name: fmt.Sprint("n", i), Bind: "127.0.0.1:0", HTTP: "off", DataDir: filepath.Join(t.TempDir(), "data")}
		if i > 0 {
			cfg.Join = []string{nodes[0].MeshAddr()}
		}
		nodes = append(nodes, started(t, cfg))
	}
	ks, err := nodes[1].Keyspace(t.Context(), "ks")
	if err != nil {
		t.Fatal(err)
	}
	const keys = 50
	var last client.Version
	for i := range keys {
		if last, err = ks.Put(t.Context(), fmt.Sprint("k", i), []byte("v"), nil); err != nil {
			t.Fatal(err)
		}
	}
	wait := func(what string, cond func() bool) {
		t.Helper()
		deadline := time.After(30 * time.Second)
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
	cells := func(n *Node) int {
		h := n.held("ks")
		if h == nil || !h.serves.Load() {
			return -1
		}
		return h.ks.Stats().Cells
	}
	wait("a link", func() bool { return cells(nodes[0]) == keys && nodes[1].held("ks").ks.Met() })

	former := nodes[1].held("ks")
	nodes[1].mend(time.Now(), former)
	now := nodes[1].held("ks")
	if now == former || !former.gone.Load() {
		t.Fatal("not begun anew")
	}
	v, err := ks.Put(t.Context(), "next", []byte("v"), nil)
	if err != nil || v.Inc != last.Inc || v.Seq != last.Seq+1 {
		t.Errorf("put: got %v, %v, after %v", v, err, last)
	}
	if _, err := ks.Get(t.Context(), "k7", nil); err != nil {
		t.Errorf("get while it joins: %v", err)
	}
	wait("both hold all", func() bool { return cells(nodes[0]) == keys+1 && cells(nodes[1]) == keys+1 })
	wait("both are equal", func() bool {
		a, err := nodes[0].held("ks").ks.Digest(t.Context())
		b, err2 := now.ks.Digest(t.Context())
		a.Keyspace, b.Keyspace = "", ""
		return err == nil && err2 == nil && a == b
	})
	nodes[1].mend(time.Now(), former) // of the past: nothing happens
	if nodes[1].held("ks") != now {
		t.Error("begun anew a second time")
	}
}
