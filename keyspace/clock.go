package keyspace

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/meshkv/meshkv/crdt"
	"github.com/meshkv/meshkv/storage"
)

// MaxClockDrift is how far ahead of the local wall clock a remote HLC may be
// and still pull the local one along. One that is further ahead is counted; it
// can win the display among siblings and nothing else.
const MaxClockDrift = 5 * time.Second

// boundAhead is how far ahead of the clock the persisted bound is set.
const boundAhead = time.Minute

// A Clock issues the HLC values of one node. Safe for concurrent use.
type Clock struct {
	last  atomic.Uint64
	bound atomic.Uint64 // persisted: nothing above it is issued
	ahead atomic.Uint64
}

// NewClock continues after the persisted bound: no value that was issued before
// a restart is issued again.
func NewClock(bound crdt.HLC) *Clock {
	c := &Clock{}
	c.last.Store(uint64(bound))
	return c
}

// Now issues the next value.
func (c *Clock) Now(now time.Time) crdt.HLC {
	wall := now.UnixMilli()
	for {
		last := c.last.Load()
		next := crdt.HLC(last).Next(wall)
		if c.last.CompareAndSwap(last, uint64(next)) {
			return next
		}
	}
}

// Bound is the persisted upper bound of what may be issued.
func (c *Clock) Bound() crdt.HLC { return crdt.HLC(c.bound.Load()) }

// Extend persists a bound a minute ahead of the clock. Until it returns the old
// one holds.
func (c *Clock) Extend(ctx context.Context, w *storage.Writer) error {
	bound := crdt.HLCAt(max(time.Now().UnixMilli(), c.Last().WallMs()) + boundAhead.Milliseconds())
	if err := w.Wait(ctx, w.Bound(bound)); err != nil {
		return fmt.Errorf("persist the clock's bound: %w", err)
	}
	for {
		old := c.bound.Load()
		if old >= uint64(bound) || c.bound.CompareAndSwap(old, uint64(bound)) {
			return nil
		}
	}
}

// ExtendDue reports whether less than half of the promised time is left.
func (c *Clock) ExtendDue(now time.Time) bool {
	return c.Bound() < crdt.HLCAt(now.Add(boundAhead/2).UnixMilli())
}

// Last is the newest value issued or observed.
func (c *Clock) Last() crdt.HLC { return crdt.HLC(c.last.Load()) }

// Observe takes note of a remote value, unless it is too far ahead.
func (c *Clock) Observe(now time.Time, h crdt.HLC) {
	if h.WallMs() > now.Add(MaxClockDrift).UnixMilli() {
		c.ahead.Add(1)
		return
	}
	for {
		last := c.last.Load()
		if uint64(h) <= last || c.last.CompareAndSwap(last, uint64(h)) {
			return
		}
	}
}

// Ahead is how many remote values were too far ahead.
func (c *Clock) Ahead() uint64 { return c.ahead.Load() }
