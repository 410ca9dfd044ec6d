package client

import "time"

// NewStrongAt is NewStrong with a wall clock that is ahead by what ahead says, and timers
// and a monotonic clock that know nothing of it: a machine that was suspended.
func NewStrongAt(caller StrongCaller, ks Keyspace, ahead func() time.Duration) StrongHandle {
	now := sinceNow()
	return newStrong(caller, ks, func() moment {
		m := now()
		m.wall = m.wall.Add(ahead())
		return m
	})
}
