package node

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"time"

	"github.com/meshkv/meshkv/crdt"
	"github.com/meshkv/meshkv/keyspace"
)

const (
	// renewPace is the least time from one new incarnation to the next, should
	// something close each of them.
	renewPace = time.Second
	// renewFlush is how long the cells that were put again may take to the peers
	// before the links are made anew.
	renewFlush = 300 * time.Millisecond
	// maxRejectedLogged bounds the keys that are named of those rejected at once.
	maxRejectedLogged = 100
)

// noteLost takes note that a keyspace takes no writes any more: the incarnation
// of this node was closed by others while it lived, or somebody else has written
// under it. It is called by keyspaces, from any goroutine; renewals does the rest.
func (n *Node) noteLost() {
	select {
	case n.lostC <- struct{}{}:
	default:
	}
}

// noteRejected tells of cells that this node lost by its long absence.
func (n *Node) noteRejected(name string, cells []*crdt.Cell) {
	n.drops.addN("rejected_cell", len(cells))
	if isSystem(name) {
		return // what is of use there is put again without being asked for
	}
	for _, c := range cells[:min(len(cells), maxRejectedLogged)] {
		n.log.Warn("value rejected after a long absence: put it again if it is still wanted", "keyspace", name, "key", c.Key,
			"version", c.Dot.String())
	}
}

// renewals gives this node a new incarnation when the present one can write no
// more, and when it has become old.
func (n *Node) renewals(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		timer.Reset(time.Until(renewAt(n.env.Writing(), n.cfg.RenewAfter)))
		reason := "the former one is old"
		select {
		case <-ctx.Done():
			return
		case <-n.lostC:
			if !n.lost() {
				continue
			}
			reason = "the former one was taken for gone"
		case <-timer.C:
		}
		if n.draining.Load() {
			return
		}
		if err := n.renew(ctx, reason); err != nil && ctx.Err() == nil {
			n.cancel(err)
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(renewPace):
		}
	}
}

// renewAt is when inc is to give way to another: after that time, less up to an
// eighth of it, or nodes that were started together would renew together.
func renewAt(inc crdt.Inc, after time.Duration) time.Time {
	early := time.Duration(uint64(inc) % (1 << 10) * uint64(after/8) >> 10)
	return time.UnixMilli(inc.BirthMs()).Add(after - early)
}

// lost reports whether a keyspace takes no writes.
func (n *Node) lost() bool { return slices.ContainsFunc(n.sorted(), (*keyspace.Keyspace).Lost) }

// nextInc is an incarnation for this node that is later than its present one and
// than every horizon that it knows.
func (n *Node) nextInc(now time.Time) crdt.Inc {
	born := max(now.UnixMilli(), n.env.Writing().BirthMs()+1)
	for _, ks := range n.sorted() {
		born = max(born, ks.Horizon().BirthMs()+1)
	}
	return crdt.NewInc(born, rand.Uint64())
}

// renew makes this node write under a new incarnation. What it had bound to
// itself is put again. Others take it for a restart in no time: the former
// incarnation is closed for ever.
func (n *Node) renew(ctx context.Context, reason string) error {
	now := time.Now()
	old, next := n.env.Writing(), n.nextInc(now)
	if n.writer != nil { // before it is used, so that a start after a crash can close it
		path := filepath.Join(n.cfg.DataDir, "incarnation")
		if err := writeIncarnation(path, incarnation{Name: n.cfg.Name, Inc: next}); err != nil {
			return fmt.Errorf("%w: %w", ErrDataDir, err)
		}
	}
	n.owners.Set(next, keyspace.Owner{Name: n.cfg.Name, State: crdt.OwnerAlive})
	var sum keyspace.Renewal
	n.linkMu.Lock() // a keyspace is opened before, and renewed, or after, and new
	n.env.SetInc(next)
	for _, ks := range n.sorted() {
		r := ks.Renew(now, next)
		sum.Put, sum.Superseded, sum.Expired = sum.Put+r.Put, sum.Superseded+r.Superseded, sum.Expired+r.Expired
	}
	n.linkMu.Unlock()
	n.log.Info("new incarnation", "reason", reason, "former", old, "next", next,
		"put_again", sum.Put, "superseded", sum.Superseded, "expired", sum.Expired)
	n.close(now, old, n.cfg.Name)
	if err := n.register(ctx); err != nil {
		n.log.Warn("directory not up to date", "err", err) // it has the entry of the former one, put again
	}
	n.flush(ctx, renewFlush)
	return n.mesh.SetInc(uint64(next))
}

// flush waits until the peers have taken what waits for them, or the time is up.
func (n *Node) flush(ctx context.Context, limit time.Duration) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for slices.ContainsFunc(n.sorted(), (*keyspace.Keyspace).Queued) {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			return
		case <-tick.C:
		}
	}
}
