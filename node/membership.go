package node

import (
	"context"
	"slices"
	"time"

	"github.com/meshkv/meshkv/crdt"
	"github.com/meshkv/meshkv/gossip/mesh"
	"github.com/meshkv/meshkv/keyspace"
)

// membership turns what the mesh says of members into the states of the
// incarnations that write.
func (n *Node) membership(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case ev, ok := <-n.mesh.Events():
			if !ok {
				return
			}
			n.observe(ev.Member)
		}
	}
}

func (n *Node) observe(m mesh.Member) {
	inc := crdt.Inc(m.Inc)
	if inc == 0 {
		return // a stock serf node writes nothing
	}
	if m.Name == n.cfg.Name {
		return // our own state is not for others to tell
	}
	defer n.overlay.kick()
	now := time.Now()
	for _, old := range n.owners.Named(m.Name) {
		if old > inc && n.owners.Get(old).State == crdt.OwnerAlive {
			return // late news of a former one, which was closed when this one came
		}
		if old != inc {
			// Superseded by the node's next incarnation. As a rule that is the higher
			// one; but one that lives now, while the higher one does not, is the next,
			// with a clock that was set back.
			n.close(now, old, m.Name)
		}
	}
	switch m.Status {
	case mesh.StatusLeft, mesh.StatusReaped:
		n.log.Info("member gone", "peer", m.Name, "status", m.Status)
		n.directory.forget(m.Name)
		n.close(now, inc, m.Name)
		return
	case mesh.StatusFailed:
		n.log.Info("member failed", "peer", m.Name)
		n.setOwner(now, inc, keyspace.Owner{Name: m.Name, State: crdt.OwnerFailed})
	default:
		n.setOwner(now, inc, keyspace.Owner{Name: m.Name, State: crdt.OwnerAlive})
	}
}

func (n *Node) setOwner(now time.Time, inc crdt.Inc, o keyspace.Owner) {
	if !n.owners.Set(inc, o) {
		return
	}
	for _, ks := range n.sorted() {
		ks.OwnerChanged(now, inc)
	}
}

// close records for ever that inc writes no more.
func (n *Node) close(now time.Time, inc crdt.Inc, name string) {
	n.owners.Set(inc, keyspace.Owner{Name: name, State: crdt.OwnerClosed})
	for _, ks := range n.sorted() {
		ks.CloseInc(now, inc)
	}
}

// noteClosed takes note of incarnations that one keyspace's clock says are
// closed. It is called by keyspaces, from any goroutine; tick does the rest.
func (n *Node) noteClosed(incs []crdt.Inc) {
	n.closedMu.Lock()
	for _, inc := range incs {
		if n.owners.Get(inc).State != crdt.OwnerClosed && !slices.Contains(n.closed, inc) {
			n.closed = append(n.closed, inc)
		}
	}
	n.closedMu.Unlock()
	select {
	case n.closedC <- struct{}{}:
	default:
	}
}

// spreadClosed tells all keyspaces of what noteClosed took note of.
func (n *Node) spreadClosed() {
	n.closedMu.Lock()
	incs := n.closed
	n.closed = nil
	n.closedMu.Unlock()
	now := time.Now()
	for _, inc := range incs {
		n.close(now, inc, n.owners.Name(inc))
	}
}
