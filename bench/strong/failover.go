package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

const (
	failoverClients = 16
	// failoverAttempt bounds each write.
	failoverAttempt = 500 * time.Millisecond
	// failoverLimit is the longest wait for writes after a kill.
	failoverLimit = 30 * time.Second
)

// failover kills the leader under writes, some times, and tells of each the longest
// time without a success: of all clients together, and of the unluckiest. A
// client whose attempt has failed turns to the next member.
func (r *runner) failover(ctx context.Context, c *cluster) ([]figure, error) {
	var figures []figure
	for range r.kills {
		leader, err := c.store.leader(ctx)
		if err != nil {
			return figures, fmt.Errorf("find the leader: %w", err)
		}
		all, worst, err := killLeader(ctx, c, c.members[leader])
		if err != nil {
			return figures, err
		}
		figures = append(figures, figure{"no write succeeds for", ms(all), "ms"}, figure{"the unluckiest client waits", ms(worst), "ms"})
		if err := c.members[leader].start(); err != nil {
			return figures, err
		}
		readyCtx, cancel := context.WithTimeout(ctx, time.Minute)
		err = c.ready(readyCtx, place{leader, mainSpace})
		cancel()
		if err != nil {
			return figures, fmt.Errorf("after the restart: %w", err)
		}
		if err := pause(ctx, 3*time.Second); err != nil { // it catches up
			return figures, err
		}
	}
	return figures, nil
}

// killLeader returns the longest gaps between successes, from shortly before the kill
// until every client has written again.
func killLeader(ctx context.Context, c *cluster, leader *member) (all, worst time.Duration, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var mu sync.Mutex // protects the fields below
	var killed time.Time
	successes := make([][]time.Time, failoverClients)
	again := make(chan struct{}) // closed when every client has succeeded after the kill
	back := make(map[int]bool)

	var wg sync.WaitGroup
	defer wg.Wait()
	for i := range failoverClients {
		wg.Go(func() {
			at := i % members
			for n := 0; ctx.Err() == nil; n++ {
				begin := time.Now()
				opCtx, done := context.WithTimeout(ctx, failoverAttempt)
				err := c.store.put(opCtx, place{at, mainSpace}, fmt.Sprintf("failover/%02d", i), value(n))
				done()
				if err != nil {
					at = (at + 1) % members
					pause(ctx, 10*time.Millisecond) // ended early: so is the loop
					continue
				}
				mu.Lock()
				successes[i] = append(successes[i], time.Now())
				if !killed.IsZero() && begin.After(killed) && !back[i] {
					if back[i] = true; len(back) == failoverClients {
						close(again)
					}
				}
				mu.Unlock()
			}
		})
	}
	if err := pause(ctx, 2*time.Second); err != nil {
		return 0, 0, err
	}
	leader.kill()
	mu.Lock()
	killed = time.Now()
	mu.Unlock()
	limit := time.NewTimer(failoverLimit)
	defer limit.Stop()
	select {
	case <-again:
	case <-limit.C:
		return 0, 0, fmt.Errorf("a client could not write for %v after the leader was killed", failoverLimit)
	case <-ctx.Done():
		return 0, 0, ctx.Err()
	}
	if err := pause(ctx, time.Second); err != nil {
		return 0, 0, err
	}
	cancel()
	wg.Wait()
	from := killed.Add(-100 * time.Millisecond)
	for _, times := range successes {
		worst = max(worst, longestGap(times, from))
	}
	if worst == 0 {
		return 0, 0, errors.New("no writes around the kill")
	}
	return longestGap(slices.Concat(successes...), from), worst, nil
}

// longestGap between two times that follow each other, the later one after from.
func longestGap(times []time.Time, from time.Time) (gap time.Duration) {
	slices.SortFunc(times, time.Time.Compare)
	for i := 1; i < len(times); i++ {
		if times[i].After(from) {
			gap = max(gap, times[i].Sub(times[i-1]))
		}
	}
	return gap
}
