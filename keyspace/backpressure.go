package keyspace

import (
	"context"
	"sync/atomic"
	"time"
)

const (
	// queueBytes bounds what waits for peers, over all keyspaces and links of the
	// node. Beyond, the fullest queues are dropped and repaired by sessions.
	queueBytes = 64 << 20
	// stopBacklog is what may wait for the disk before links are not read any
	// more. Peers are asked to hold their ops back long before: it is for those
	// that do not, and more than all that may be under way when they are asked.
	stopBacklog = 96 << 20
)

// budget is the gossip.Budget of a node.
type budget struct{ bytes atomic.Int64 }

// Add implements gossip.Budget.
func (b *budget) Add(n int) (over bool) { return b.bytes.Add(int64(n)) > queueBytes }

// Throttle is called after each received frame. While too much waits for the
// disk it asks the peers for a pause; if they go on nevertheless it waits, so
// that the stream itself holds them back.
func (k *Keyspace) Throttle(ctx context.Context) error {
	if k.env.Writer == nil || !k.env.Writer.Overloaded() {
		return nil
	}
	now := time.Now()
	k.drive(now, func() { k.rep.SetChoked(now, true) })
	if bytes, _ := k.env.Writer.Backlog(); bytes < stopBacklog {
		return nil
	}
	k.mu.Lock()
	ticket := k.ticket
	k.mu.Unlock()
	return k.env.Writer.Wait(ctx, ticket)
}

// unchoke ends the pause once the disk has caught up. The mutex is held.
func (k *Keyspace) unchoke(now time.Time) {
	if k.rep.Choked() && !k.env.Writer.Overloaded() {
		k.rep.SetChoked(now, false)
	}
}
