package keyspace

import (
	"slices"
	"time"

	"github.com/meshkv/meshkv/crdt"
	"github.com/meshkv/meshkv/gossip"
)

// sweepEvery is how often cells of closed incarnations are looked for, besides
// the moment at which one is closed.
const sweepEvery = 10 * time.Second

// LinkUp tells the replicator of a new stream to peer.
func (k *Keyspace) LinkUp(now time.Time, peer gossip.PeerID, role gossip.Role) {
	k.drive(now, func() { k.rep.LinkUp(now, peer, role) })
}

// SetRole tells the replicator that the stream to peer has another role now.
func (k *Keyspace) SetRole(now time.Time, peer gossip.PeerID, role gossip.Role) {
	k.drive(now, func() { k.rep.SetRole(peer, role) })
}

// LinkDown tells the replicator that the stream to peer has ended.
func (k *Keyspace) LinkDown(now time.Time, peer gossip.PeerID) {
	k.drive(now, func() { k.rep.LinkDown(peer) })
}

// Step takes one received frame. An error means that the peer does not speak
// our protocol: the link must be closed.
func (k *Keyspace) Step(now time.Time, peer gossip.PeerID, frame []byte) (err error) {
	k.drive(now, func() {
		err = k.rep.Step(now, peer, frame)
		k.env.Clock.Observe(now, k.rep.MaxHLC())
	})
	return err
}

// NextFrame appends the next frame for peer to buf, if there is one.
func (k *Keyspace) NextFrame(now time.Time, peer gossip.PeerID, buf []byte, max int) (frame []byte, ok bool) {
	k.drive(now, func() { frame, ok = k.rep.NextFrame(now, peer, buf, max) })
	return frame, ok
}

// drive runs one call of the replicator under the mutex and does what follows.
func (k *Keyspace) drive(now time.Time, call func()) {
	k.mu.Lock()
	if k.dropped { // nothing may reach the store under this name any more
		k.mu.Unlock()
		return
	}
	k.nowMs = now.UnixMilli()
	call()
	after := k.settle(now)
	k.mu.Unlock()
	k.finish(after)
}

// Tick does what is due: repair, expiry, collection. Called every 50 ms or so, but
// for those times that NextDue says may be left out.
func (k *Keyspace) Tick(now time.Time) {
	k.release() // members may have been reaped, or become known
	k.drive(now, func() {
		k.unchoke(now)
		k.rep.AwaitAcks(now, k.waits.lowest())
		k.rep.Tick(now)
		k.expire(now)
		k.mine.tick(now.UnixMilli())
		if !now.Before(k.sweepAt) {
			k.sweepAt = now.Add(sweepEvery)
			k.sweep(now)
			k.settleSiblings(now)
		}
	})
}

// expire hides what has expired and collects what expired a while ago.
func (k *Keyspace) expire(now time.Time) {
	nowMs := now.UnixMilli()
	expired, collect := k.life.tick(nowMs)
	for _, c := range expired {
		k.hide(c, crdt.HiddenExpired)
	}
	if len(collect) == 0 {
		return
	}
	chosen := k.chosen()
	var dots []crdt.Dot
	for _, c := range collect {
		switch {
		case c.Dot.Inc == k.rep.Replica().Inc(), chosen && k.env.Owners.Get(c.Dot.Inc).State == crdt.OwnerClosed:
			dots = append(dots, c.Dot)
		default: // its origin's to collect, or the chosen member's
			k.life.again(c, nowMs+collectAfter.Milliseconds())
		}
	}
	k.remove(now, dots)
}

// hide records that c is hidden, or shown again, and tells watches.
func (k *Keyspace) hide(c *crdt.Cell, v crdt.Visibility) {
	before := k.shownOf(c.Key)
	if k.life.set(c, v) {
		k.restated(c.Key, before, false)
		k.signal()
	}
}

// OwnerChanged re-examines the ephemeral cells of inc after its state changed.
func (k *Keyspace) OwnerChanged(now time.Time, inc crdt.Inc) {
	k.drive(now, func() {
		for _, c := range k.life.ownedBy(inc) {
			// Expired is for ever, though now may be a little before the tick that found it.
			if k.life.hidden[c.Dot] != crdt.HiddenExpired {
				k.hide(c, crdt.Visible(c, now.UnixMilli(), k.ownerOf(c)))
			}
		}
	})
}

// CloseInc records for ever that inc writes no more, and collects its ephemeral
// cells if that falls to this node.
func (k *Keyspace) CloseInc(now time.Time, inc crdt.Inc) {
	k.drive(now, func() {
		if k.origin != 0 || k.rep.Replica().Clock().Entry(inc).Max() == 0 && len(k.life.byOwner[inc]) == 0 {
			return // it never wrote here: nothing to close, and no entry to keep
		}
		k.rep.CloseInc(inc)
		k.sweep(now)
	})
}

// sweep hides the ephemeral cells of closed incarnations, and collects them if
// that falls to this node. Such cells may arrive long after the closing, whose
// bit this keyspace may not have yet.
func (k *Keyspace) sweep(now time.Time) {
	clock := k.rep.Replica().Clock()
	var dots []crdt.Dot
	for inc := range k.life.byOwner {
		if k.env.Owners.Get(inc).State == crdt.OwnerClosed {
			k.rep.CloseInc(inc)
		}
		if clock.Entry(inc).Closed {
			for _, c := range k.life.ownedBy(inc) {
				k.hide(c, crdt.HiddenOwnerClosed)
				dots = append(dots, c.Dot)
			}
		}
	}
	slices.SortFunc(dots, crdt.Dot.Compare)
	if len(dots) > 0 && k.chosen() {
		k.remove(now, dots)
	}
}

func (k *Keyspace) remove(now time.Time, dots []crdt.Dot) {
	if len(dots) == 0 {
		return
	}
	if _, err := k.rep.Remove(now, dots, k.env.Clock.Now(now)); err != nil {
		k.env.Logger.Warn("cells not collected", "keyspace", k.name, "err", err)
	}
}

// Queued reports whether ops wait to be sent to a peer.
func (k *Keyspace) Queued() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.ContainsFunc(k.rep.Links(), func(l gossip.LinkStats) bool { return l.QueuedOps > 0 })
}

// Reconciling reports whether a session with peer is under way.
func (k *Keyspace) Reconciling(peer gossip.PeerID) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.rep.Reconciling(peer)
}

// SetRTT tells the replicator how far away a peer is.
func (k *Keyspace) SetRTT(peer gossip.PeerID, rtt time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.rep.SetRTT(peer, rtt)
}

// Met reports whether this replica has ever been found equal to a peer's, or
// been made so by a session.
func (k *Keyspace) Met() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.met {
		k.met = k.rep.Stats().SessionsDone > 0 ||
			slices.ContainsFunc(k.rep.Links(), func(l gossip.LinkStats) bool { return l.InSync })
	}
	return k.met
}

// Close ends watches and refuses further calls. Reads go on.
func (k *Keyspace) Close() {
	k.mu.Lock()
	k.done = true
	k.waits.end()
	k.signal()
	k.hub.close()
	k.mu.Unlock()
	k.hub.wait()
}
