package node

import (
	"slices"
	"time"

	"github.com/meshkv/meshkv/gossip"
)

// damagePatience is how long a damaged keyspace waits until its peers have taken
// what waits for them.
const damagePatience = 30 * time.Second

// mendDamaged begins damaged keyspaces anew that a peer can complete. One without
// a peer stays as it is: what it lost is on disk, or nowhere. So do those of the
// system, which readers of this node follow without end.
func (n *Node) mendDamaged(now time.Time) {
	for _, h := range n.allHeld() {
		if h.gone.Load() || h.leaving.Load() || !h.ks.Damaged() {
			continue
		}
		if h.damagedAt.IsZero() {
			h.damagedAt = now
			n.drops.add("keyspace_damaged")
			n.log.Error("keyspace is damaged: a value is missing in memory that its sums count: a bug, or failing memory", "keyspace", h.id.Name)
		}
		heard := slices.ContainsFunc(h.ks.Links(), func(l gossip.LinkStats) bool { return l.Heard })
		if !heard || isSystem(h.id.Name) || h.ks.Queued() && now.Sub(h.damagedAt) < damagePatience {
			continue
		}
		n.mend(now, h)
	}
}

// mend replaces h by one that begins anew, and joins.
func (n *Node) mend(now time.Time, h *holding) {
	n.linkMu.Lock()
	defer n.linkMu.Unlock()
	if n.held(h.id.Name) != h {
		return
	}
	ks, err := h.ks.Reopen(now)
	if err != nil {
		n.log.Error("damaged keyspace stays as it is", "keyspace", h.id.Name, "err", err)
		return
	}
	h.gone.Store(true)
	h.serves.Store(false)
	h.settle()
	for _, p := range n.allPeers() {
		n.disconnect(now, p, h)
	}
	n.take(now, h.id, ks, true)
	n.log.Warn("damaged keyspace begins anew, and is completed by its peers", "keyspace", h.id.Name)
}
