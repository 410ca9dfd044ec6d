package keyspace

import (
	"testing"
	"time"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/gossip"
)

// A keyspace that lost a cell begins anew, and a session gives it back. What only
// it holds is not lost with that, here, at the peer or on disk; what was deleted
// while it was damaged does not come back; and what it bound to itself stays its
// own.
func TestReopenAfterDamage(t *testing.T) {
	p := newPair(t)
	store := withStore(t, p.a.env)
	for _, key := range []string{"lost", "kept", "deleted"} {
		put(t, p.a, key, "1", nil)
	}
	put(t, p.a, "bound", "1", &client.PutOptions{Ephemeral: true})
	p.run(3 * time.Second)
	p.a.mu.Lock()
	p.a.index.Remove(p.a.index.top("lost"))
	p.a.mu.Unlock()
	p.run(16 * time.Minute)
	if !p.a.Damaged() || p.b.Damaged() {
		t.Fatalf("damaged: a %v, b %v", p.a.Damaged(), p.b.Damaged())
	}
	p.check("the peer", map[string]string{"kept": "1"})
	if got := get(t, p.b, "lost"); got != "1" {
		t.Fatal("the peer lost it, too")
	}
	p.cut()
	last := put(t, p.a, "alone", "2", nil)
	if _, err := p.b.Delete(t.Context(), "deleted", nil); err != nil {
		t.Fatal(err)
	}

	former := p.a
	next, err := former.Reopen(p.now)
	if err != nil {
		t.Fatal(err)
	}
	p.a = next
	if _, err := former.Put(t.Context(), "late", nil, nil); err == nil {
		t.Error("the former one takes writes")
	}
	if v := put(t, p.a, "next", "3", &client.PutOptions{Durable: true}); v.Seq != last.Seq+1 {
		t.Errorf("got seq %d, want %d", v.Seq, last.Seq+1)
	}
	st, err := store.Load(t.Context())
	if err != nil || len(st.Keyspaces["ks"].Cells) != 5 {
		t.Fatalf("%d cells on disk, %v: want kept, deleted, bound, alone and next", len(st.Keyspaces["ks"].Cells), err)
	}
	p.link()
	p.run(30 * time.Second)
	p.check("after", map[string]string{
		"lost": "1", "kept": "1", "deleted": "", "bound": "1", "alone": "2", "next": "3",
	})
	if p.a.Damaged() || len(p.a.mine.cells) != 1 {
		t.Errorf("damaged %v, %d cells bound", p.a.Damaged(), len(p.a.mine.cells))
	}
	for _, l := range []gossip.LinkStats{p.a.Links()[0], p.b.Links()[0]} {
		if !l.InSync {
			t.Errorf("not in sync with %s", l.Peer)
		}
	}
}
