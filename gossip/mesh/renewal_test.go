package mesh

import (
	"errors"
	"testing"
)

// A process takes a new incarnation while it runs: all learn it, over new links and, where there is none, by gossip,
// and nobody has to see it fail.
func TestSetInc(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	a := c.start("a", 11, nil)
	b := c.start("b", 12, nil, a.Addr())
	d := c.start("d", 13, nil, a.Addr())
	meet(patience, a, b, d)
	a.Want([]string{"b"})
	d.Want([]string{"b"})
	a.until("no link to d", patience, func() bool { return a.links["d"] == nil })
	b.mu.Lock()
	former := b.links["d"]
	b.mu.Unlock()

	if err := d.SetInc(13); !errors.Is(err, ErrConfig) {
		t.Errorf("the same one: got %v, want ErrConfig", err)
	}
	if err := d.SetInc(20); err != nil {
		t.Fatal(err)
	}
	b.until("a link under the new one", patience, func() bool {
		l := b.links["d"]
		return l != nil && l.Peer.Inc == 20
	})
	if former.Err() == nil {
		t.Error("the former link goes on")
	}
	for _, n := range []*node{a, b} {
		n.knows(patience, "d", 20)
		n.until("membership", patience, func() bool {
			n.Mesh.mu.Lock()
			defer n.Mesh.mu.Unlock()
			return n.roster.records["d"].member.Inc == 20
		})
		n.mu.Lock()
		for _, e := range n.events {
			if e.Name == "d" && e.Status == StatusFailed {
				t.Errorf("%s saw it fail", n.self.name)
			}
		}
		n.mu.Unlock()
	}
	for _, m := range d.Members() {
		if m.Name == "d" && m.Inc != 20 {
			t.Errorf("it shows itself as %x", m.Inc)
		}
	}
}
