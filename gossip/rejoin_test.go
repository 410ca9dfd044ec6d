package gossip

import (
	"testing"
	"time"
)

// A node that leaves a keyspace and joins it again while the stream stays up is
// another replica: it is greeted, and filled, whichever side begins the sessions.
func TestRejoinOnTheSameStream(t *testing.T) {
	for name, names := range map[string][2]PeerID{"the one that stays begins": {"a", "b"}, "the one that rejoins begins": {"b", "a"}} {
		t.Run(name, func(t *testing.T) {
			a, b := newReplicator(names[0], 1, Limits{}), newReplicator(names[1], 2, Limits{})
			linkUp(start, a, b)
			mustPut(t, a, start, "old")
			now := run(t, start, 5*time.Second, a, b)
			b = newReplicator(names[1], 3, Limits{})
			b.LinkUp(now, a.cfg.Self, RoleDirect)
			run(t, now, 10*time.Second, a, b)
			if n := b.Stats().Cells; n != 1 {
				t.Errorf("10 s after it rejoined it has %d cells, met %v", n, b.links[a.cfg.Self].met)
			}
		})
	}
}

// The pause that a replica asked for ends with it.
func TestChokeEndsWithItsReplica(t *testing.T) {
	a, b := newReplicator("a", 1, Limits{}), newReplicator("b", 2, Limits{})
	linkUp(start, a, b)
	now := run(t, start, time.Second, a, b)
	b.SetChoked(now, true)
	pump(t, now, a, b)
	if !a.links["b"].choked {
		t.Fatal("not choked")
	}
	b = newReplicator("b", 3, Limits{})
	b.LinkUp(now, "a", RoleDirect)
	d := mustPut(t, a, now, "x")
	run(t, now, 10*time.Second, a, b)
	if !b.Replica().Clock().Contains(d) {
		t.Errorf("b lacks it after 10 s; choked at a: %v", a.links["b"].choked)
	}
}
