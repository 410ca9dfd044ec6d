package keyspace

import (
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/meshkv/meshkv/crdt"
)

// NextDue is when Tick next has something to do, if nothing else is called before:
// ticks until then may be left out without any other effect. It may be earlier
// than that, and in the past. Whatever Tick comes to do must be foreseen here.
func (k *Keyspace) NextDue(now time.Time) time.Time {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.dropped: // nothing is due any more
		return now.Add(sweepEvery)
	case k.rep.Choked(): // the disk does not say when it has caught up
		return now
	case k.waits.busy(): // who is a member may change without a call
		return now
	}
	due := k.sweepAt
	if at, ok := k.rep.NextDue(); ok {
		due = earlier(due, at)
	}
	if at, ok := k.life.nextDue(); ok {
		due = earlier(due, time.UnixMilli(at))
	}
	if at, ok := k.mine.nextDue(); ok {
		due = earlier(due, time.UnixMilli(at))
	}
	return due
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// NextExtend is when ExtendDue says so, if nothing more is issued or observed.
// False: not at all, as things stand.
func (c *Clock) NextExtend(now time.Time) (at time.Time, ok bool) {
	if c.ExtendDue(now) {
		return now, true
	}
	ms := crdt.HLC(c.bound.Load()).WallMs() - boundAhead.Milliseconds()/2 + 1
	used := ms - c.Last().WallMs()
	return time.UnixMilli(ms), ms > now.UnixMilli() && used < boundAhead.Milliseconds()
}

// A Doze lets whoever ticks the keyspaces of a node sleep until something is due.
// A call into a keyspace may bring that forward: the first one after it fell
// asleep sets a timer that wakes it some time later, and all others pay for one
// atomic load. To wake it at once would cost every op on its way a wake-up more.
// Safe for concurrent use, by one sleeper.
//
// No call is lost. Until first sets asleep and then asks each keyspace what is due,
// under the keyspace's mutex; a call first changes the keyspace, under the same
// mutex, and then looks at asleep. So if the change was too late to be seen by the
// one, its mutex was taken after that of the one, and asleep is seen by the other:
//
//	sleeper: asleep = true   lock, NextDue, unlock                        sleep
//	call:                                           lock, Put, unlock   asleep? set the timer
//
// Another call that saw it before has set the timer already, or is about to.
type Doze struct {
	asleep atomic.Bool
	after  time.Duration
	woken  *time.Timer
}

// NewDoze is a sleeper that is awake, and that sleeps on for half to all of after
// when a call came: the same op comes to all nodes at the same time, and a machine
// with many of them, or with one that writes at a round period, should not have all
// their ticks at once.
func NewDoze(after time.Duration) *Doze {
	d := &Doze{after: after, woken: time.NewTimer(time.Hour)}
	d.woken.Stop()
	return d
}

// Until is the time until which the sleeper may sleep: when due says that something
// is due, but no earlier than least and no later than most. Due is called once.
// Unless it is least, Woken tells of calls from here on, until Wake.
func (d *Doze) Until(least, most time.Time, due func() time.Time) time.Time {
	d.woken.Stop() // for an earlier call, which due sees
	d.asleep.Store(true)
	at := earlier(most, due())
	if at.After(least) {
		return at
	}
	d.asleep.Store(false)
	return least
}

// Woken says once that a call came while it slept, some time ago, so that something
// may be due. It may say so without need.
func (d *Doze) Woken() <-chan time.Time { return d.woken.C }

// Wake ends the sleep. It is to be called before Tick, whose calls count as others do.
func (d *Doze) Wake() { d.asleep.Store(false) }

// Stir has the sleeper woken, if it sleeps. It does not block. A nil Doze is nobody.
func (d *Doze) Stir() {
	if d == nil || !d.asleep.Load() || !d.asleep.CompareAndSwap(true, false) {
		return
	}
	d.woken.Reset(d.after/2 + rand.N(d.after/2))
}
