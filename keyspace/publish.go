package keyspace

import (
	"maps"
	"slices"
	"time"

	"github.com/meshkv/meshkv/crdt"
	"github.com/meshkv/meshkv/gossip"
	"github.com/meshkv/meshkv/storage"
)

// aftermath is what is left to do when the mutex is free again.
type aftermath struct {
	ticket storage.Ticket
	closed []crdt.Inc
	lost   bool // the writing incarnation must be renewed
	// rejected cells are gone: see Env.Rejected.
	rejected []*crdt.Cell
	acked    bool         // members acknowledged something
	judged   []*crdt.Cell // to be held against the settings
	err      error
}

// settle hands what the replicator changed to the store, the lifetimes and the
// change log. It is called after every call that may change the replica, with
// k.mu held.
func (k *Keyspace) settle(now time.Time) (after aftermath) {
	k.nowMs = now.UnixMilli()
	ch := k.rep.Changes()
	if !ch.Empty() {
		k.surveyed = false
		clock := k.rep.Replica().Clock()
		if k.env.Writer != nil {
			after.ticket, after.err = k.env.Writer.Append(k.id, ch, clock)
			k.ticket = after.ticket
			k.diskFailed = k.diskFailed || after.err != nil
		}
		for _, inc := range ch.Clock {
			if k.origin == 0 && inc != k.rep.Replica().Inc() && clock.Entry(inc).Closed {
				after.closed = append(after.closed, inc)
			}
		}
		k.publish(ch, now.UnixMilli())
		k.register(ch, now.UnixMilli())
		after.rejected = slices.Clone(ch.Rejected)
		after.judged = k.toJudge(ch.Added)
		ch.Reset()
		k.signal()
	}
	if r := k.rep.Replica(); r.Inc() < r.Clock().Horizon() && !k.rep.Lost() {
		k.rep.CloseInc(r.Inc()) // what it writes would count as known, and dead
	}
	after.lost = k.rep.Lost() && !k.lost
	k.lost = k.rep.Lost()
	k.rep.TakeAcks(func(inc crdt.Inc, rows []gossip.Ack) {
		k.waits.note(inc, rows)
		after.acked = true
	})
	if dots := k.rep.TakeUnsynced(); len(dots) > 0 && k.env.Syncer != nil && !k.diskFailed {
		k.env.Syncer.add(k, dots, k.ticket)
	}
	for _, p := range k.rep.TakeWakes() { // valid only until the next call of rep
		k.env.Waker.Wake(k.id, p)
	}
	return after
}

func (k *Keyspace) finish(after aftermath) {
	k.env.Doze.Stir()
	if after.acked {
		k.release()
	}
	if len(after.judged) > 0 {
		k.judge(after.judged)
	}
	if len(after.closed) > 0 {
		k.env.Closed(after.closed)
	}
	if n := len(after.rejected); n > 0 {
		k.rejected.Add(uint64(n))
		k.env.Logger.Warn("values rejected: this node was away for so long that nobody can tell whether they were deleted",
			"keyspace", k.name, "cells", n)
		if k.env.Rejected != nil {
			k.env.Rejected(k.name, after.rejected)
		}
	}
	if after.lost && k.env.Lost != nil {
		k.env.Lost()
	}
}

// register keeps account of what this process bound to itself.
func (k *Keyspace) register(ch *crdt.Changes, nowMs int64) {
	inc := k.rep.Replica().Inc()
	for _, c := range ch.Added {
		if c.Dot.Inc == inc {
			k.mine.add(c)
		}
	}
	for _, c := range ch.Removed {
		k.mine.remove(c, k.local, nowMs)
	}
}

// publish tells the change log what the keys show now.
func (k *Keyspace) publish(ch *crdt.Changes, nowMs int64) {
	if k.plain(ch) {
		for i, added := range ch.Added {
			var before *crdt.Cell
			if len(ch.Removed) > 0 {
				if k.life.shown(ch.Removed[i]) {
					before = ch.Removed[i]
				}
				k.life.remove(ch.Removed[i])
			}
			k.life.add(added, nowMs, k.ownerOf(added))
			k.restated(added.Key, before, before != nil)
		}
		return
	}
	if key, one := ch.Key(); one {
		k.publishKey(key, ch.Added, ch.Removed, nowMs)
		return
	}
	added, removed := byKey(ch.Added), byKey(ch.Removed)
	keys := slices.Collect(maps.Keys(added))
	for key := range removed {
		if added[key] == nil {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	for _, key := range keys {
		k.publishKey(key, added[key], removed[key], nowMs)
	}
}

func byKey(cells []*crdt.Cell) map[string][]*crdt.Cell {
	keys := make(map[string][]*crdt.Cell)
	for _, c := range cells {
		keys[c.Key] = append(keys[c.Key], c)
	}
	return keys
}

// publishKey tells the change log what key shows since these of its cells came and went.
func (k *Keyspace) publishKey(key string, added, removed []*crdt.Cell, nowMs int64) {
	before := k.shownBefore(key, added, removed)
	sum := k.index.sum(key)
	for _, c := range added {
		sum = sum.minus(sumOf(c.Dot))
	}
	for _, c := range removed {
		sum = sum.plus(sumOf(c.Dot))
	}
	was := summary(before, sum.minus(k.life.veiled[key]))
	for _, c := range added {
		k.life.add(c, nowMs, k.ownerOf(c))
	}
	for _, c := range removed {
		k.life.remove(c)
	}
	k.restated(key, was, before != nil && k.index.ByDot(before.Dot) == nil)
}

// shownBefore is the highest cell that key showed before these came and went.
func (k *Keyspace) shownBefore(key string, added, removed []*crdt.Cell) (before *crdt.Cell) {
	isNew := func(c *crdt.Cell) bool { return slices.Contains(added, c) }
	if len(added) > 16 {
		dots := make(map[crdt.Dot]struct{}, len(added))
		for _, c := range added {
			dots[c.Dot] = struct{}{}
		}
		isNew = func(c *crdt.Cell) bool {
			_, ok := dots[c.Dot]
			return ok
		}
	}
	k.index.Descend(key, func(c *crdt.Cell) bool {
		if isNew(c) || !k.life.shown(c) {
			return true
		}
		before = c
		return false
	})
	for _, c := range removed {
		if (before == nil || c.Compare(before) > 0) && !isNew(c) && k.life.shown(c) {
			before = c
		}
	}
	return before
}

// plain reports whether ch is only new keys, or only overwrites, one of each key, as
// nearly always: then the cells of one key are one pair at most.
func (k *Keyspace) plain(ch *crdt.Changes) bool {
	if len(ch.Removed) > 0 && len(ch.Removed) != len(ch.Added) {
		return false
	}
	for i, added := range ch.Added {
		if k.index.top(added.Key) != added || !k.index.alone(added.Key) {
			return false
		}
		if added.Kind != crdt.KindRegister || len(ch.Removed) > 0 && (ch.Removed[i].Key != added.Key || ch.Removed[i].Kind != crdt.KindRegister) {
			return false
		}
	}
	return true
}

func (k *Keyspace) ownerOf(c *crdt.Cell) crdt.OwnerState {
	if !c.Ephemeral() {
		return crdt.OwnerAlive
	}
	if k.rep.Replica().Clock().Entry(c.Dot.Inc).Closed {
		return crdt.OwnerClosed
	}
	return k.env.Owners.Get(c.Dot.Inc).State
}

// shownOf is what watches are told that key shows, or nil: a cell, or a summary of cells.
func (k *Keyspace) shownOf(key string) *crdt.Cell {
	top := k.index.top(key)
	if top == nil || top.Kind == crdt.KindRegister && k.life.shown(top) {
		return top
	}
	return k.summaryOf(k.shownCell(key))
}

// shownCell is the highest cell of key that is shown, or nil.
func (k *Keyspace) shownCell(key string) (shown *crdt.Cell) {
	k.index.Descend(key, func(c *crdt.Cell) bool {
		if k.life.shown(c) {
			shown = c
		}
		return shown == nil
	})
	return shown
}

// restate updates whether key counts as dark.
func (k *Keyspace) restate(key string) (shown *crdt.Cell) {
	shown = k.shownOf(key)
	if shown == nil && k.index.top(key) != nil {
		k.dark[key] = struct{}{}
	} else if len(k.dark) > 0 {
		delete(k.dark, key)
	}
	return shown
}

// restated appends what key shows now to the change log, unless it is what it
// showed before, which may be gone.
func (k *Keyspace) restated(key string, before *crdt.Cell, gone bool) {
	next := k.restate(key)
	if before == nil && next == nil || before != nil && next != nil && before.Dot == next.Dot {
		return
	}
	c := change{prev: before, next: next, mine: k.local, gone: gone, at: k.nowMs}
	if next == nil {
		if top := k.index.top(key); top != nil {
			c.why = k.life.hidden[top.Dot]
		}
	}
	n := k.log.add(c)
	k.hub.touch(key, n, k.log.oldest())
	k.log.publish(n)
}

// signal wakes whoever waits for a change.
func (k *Keyspace) signal() {
	if k.changed != nil {
		close(k.changed)
		k.changed = nil
	}
}

// awaitChange is closed at the next change. Called with k.mu held.
func (k *Keyspace) awaitChange() <-chan struct{} {
	if k.changed == nil {
		k.changed = make(chan struct{})
	}
	return k.changed
}
