package keyspace

import (
	"slices"
	"time"

	"github.com/meshkv/meshkv/crdt"
	"github.com/meshkv/meshkv/storage"
)

// aftermath is what is left to do when the mutex is free again.
type aftermath struct {
	ticket storage.Ticket
	closed []crdt.Inc
	lost   bool // the writing incarnation must be renewed
	// rejected cells are gone: see Env.Rejected.
	rejected []*crdt.Cell
	err      error
}

// settle hands what the replicator changed to the store, the lifetimes and the
// change log. It is called after every call that may change the replica, with
// k.mu held.
func (k *Keyspace) settle(now time.Time) (after aftermath) {
	ch := k.rep.Changes()
	if !ch.Empty() {
		k.surveyed = false
		clock := k.rep.Replica().Clock()
		if k.env.Writer != nil {
			after.ticket, after.err = k.env.Writer.Append(k.id, ch, clock)
			k.ticket = after.ticket
		}
		for _, inc := range ch.Clock {
			if k.origin == 0 && inc != k.rep.Replica().Inc() && clock.Entry(inc).Closed {
				after.closed = append(after.closed, inc)
			}
		}
		k.publish(ch, now.UnixMilli())
		k.register(ch, now.UnixMilli())
		after.rejected = slices.Clone(ch.Rejected)
		ch.Reset()
		k.signal()
	}
	if r := k.rep.Replica(); r.Inc() < r.Clock().Horizon() && !k.rep.Lost() {
		k.rep.CloseInc(r.Inc()) // what it writes would count as known, and dead
	}
	after.lost = k.rep.Lost() && !k.lost
	k.lost = k.rep.Lost()
	for _, p := range k.rep.TakeWakes() { // valid only until the next call of rep
		k.env.Waker.Wake(k.id, p)
	}
	return after
}

func (k *Keyspace) finish(after aftermath) {
	k.env.Doze.Stir()
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
			k.restated(added.Key, before)
		}
		return
	}
	before := make(map[string]*crdt.Cell)
	added := make(map[crdt.Dot]struct{}, len(ch.Added))
	keys := make([]string, 0, len(ch.Added)+len(ch.Removed))
	for _, c := range ch.Added {
		added[c.Dot] = struct{}{}
		keys = append(keys, c.Key)
	}
	for _, c := range ch.Removed {
		keys = append(keys, c.Key)
	}
	slices.Sort(keys)
	keys = slices.Compact(keys)
	was := func(c *crdt.Cell) {
		if _, isNew := added[c.Dot]; !isNew && k.life.shown(c) && (before[c.Key] == nil || c.Compare(before[c.Key]) > 0) {
			before[c.Key] = c
		}
	}
	for _, key := range keys {
		for _, c := range k.index.all(key) {
			was(c)
		}
	}
	for _, c := range ch.Removed {
		was(c)
	}
	for _, c := range ch.Added {
		k.life.add(c, nowMs, k.ownerOf(c))
	}
	for _, c := range ch.Removed {
		k.life.remove(c)
	}
	for _, key := range keys {
		k.restated(key, before[key])
	}
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
		if len(ch.Removed) > 0 && ch.Removed[i].Key != added.Key {
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

// shownOf is what watches are told that key shows, or nil.
func (k *Keyspace) shownOf(key string) *crdt.Cell {
	top := k.index.top(key)
	if top == nil || k.life.shown(top) {
		return top
	}
	for _, c := range k.index.all(key) {
		if k.life.shown(c) {
			return c
		}
	}
	return nil
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
// showed before.
func (k *Keyspace) restated(key string, before *crdt.Cell) {
	next := k.restate(key)
	if before == nil && next == nil || before != nil && next != nil && before.Dot == next.Dot {
		return
	}
	c := change{prev: before, next: next}
	if next == nil {
		if top := k.index.top(key); top != nil {
			c.why = k.life.hidden[top.Dot]
		}
	}
	k.log.append(c)
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
