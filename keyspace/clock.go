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

// boundAhead is how far ahead of the clock the persisted bound is set. A node
// that crashed continues at the bound, so this must be less than MaxClockDrift,
// or its peers would take it for a clock that is wrong.
const boundAhead = 4 * time.Second

// A Clock issues the HLC values of one node. Safe for concurrent use.
type Clock struct {
	last  atomic.Uint64
	bound atomic.Uint64 // persisted: nothing above it is issued
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

// next is the value that would be issued at wall time now.
func (c *Clock) next(now time.Time) crdt.HLC { return c.Last().Next(now.UnixMilli()) }

// Covered reports whether the next value is within the persisted bound.
func (c *Clock) Covered(now time.Time) bool { return uint64(c.next(now)) <= c.bound.Load() }

// Extend persists a bound ahead of the next value. Until it returns the old one
// holds.
func (c *Clock) Extend(ctx context.Context, w *storage.Writer) error {
	now := time.Now()
	// Not boundAhead beyond the last value, or quick restarts would add up.
	bound := max(crdt.HLCAt(now.Add(boundAhead).UnixMilli()), c.next(now)+crdt.HLCAt(100))
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

// ExtendDue reports whether little of the promised time is left, and something
// was issued in it. An idle node writes nothing; its next write waits for the
// disk once.
func (c *Clock) ExtendDue(now time.Time) bool {
	left := crdt.HLC(c.bound.Load()).WallMs() - c.next(now).WallMs()
	used := now.UnixMilli() - c.Last().WallMs()
	return left < boundAhead.Milliseconds()/2 && used < boundAhead.Milliseconds()
}

// Last is the newest value issued or observed.
func (c *Clock) Last() crdt.HLC { return crdt.HLC(c.last.Load()) }

// Observe takes note of a remote value, unless it is too far ahead.
func (c *Clock) Observe(now time.Time, h crdt.HLC) {
	if h.WallMs() > now.Add(MaxClockDrift).UnixMilli() {
		return // the replicator counts it
	}
	for {
		last := c.last.Load()
		if uint64(h) <= last || c.last.CompareAndSwap(last, uint64(h)) {
			return
		}
	}
}
