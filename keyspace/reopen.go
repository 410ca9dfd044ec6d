package keyspace

import (
	"fmt"
	"time"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/crdt"
	"github.com/meshkv/meshkv/storage"
)

// Damaged reports whether this replica lost a cell that it had acknowledged, by a
// bug or failing memory: see gossip.Replicator.Damaged. It reconciles with nobody
// any more; where others hold the keyspace, Reopen and a session with one of them
// are the cure.
func (k *Keyspace) Damaged() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.rep.Damaged()
}

// Reopen ends the keyspace as Drop does, and returns one that begins anew, here and
// in the store: it knows nothing, counts its dots on, and has the cells that are
// left. To a session these are provisional: what peers deleted goes, what only this
// node holds is offered, and what it lost comes back. What it deleted itself, and
// no peer heard of, comes back, too. The caller has peers, and links them.
func (k *Keyspace) Reopen(now time.Time) (*Keyspace, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.dropped {
		return nil, fmt.Errorf("%w: keyspace %s is not held any more", client.ErrUnavailable, k.name)
	}
	cells := k.rep.Remains()
	if err := k.end(); err != nil {
		return nil, fmt.Errorf("reopen keyspace %s: %w", k.name, err)
	}
	if k.env.Writer != nil { // one transaction with the end, or after it
		ch := crdt.Changes{Added: cells}
		if _, err := k.env.Writer.Append(k.id, &ch, crdt.NewClock()); err != nil {
			return nil, fmt.Errorf("reopen keyspace %s: %w", k.name, err)
		}
	}
	next := open(k.id, k.origin, k.env, storage.KeyspaceState{Cells: cells}, now)
	next.settleAfter = k.settleAfter
	for _, c := range cells {
		if c.Dot.Inc == next.rep.Replica().Inc() {
			next.mine.add(c)
		}
	}
	return next, nil
}
