package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// lockers begins a session for each client.
func lockers(ctx context.Context, c *cluster, clients int) (all []locker, end func(), err error) {
	end = func() {
		var wg sync.WaitGroup
		for _, l := range all {
			wg.Go(l.close)
		}
		wg.Wait()
	}
	for i := range clients {
		attemptCtx, cancel := context.WithTimeout(ctx, attempt)
		l, err := c.store.locker(attemptCtx, i%members)
		cancel()
		if err != nil {
			end()
			return nil, nil, err
		}
		all = append(all, l)
	}
	return all, end, nil
}

// locks: each client takes and gives up a lock of its own.
func (r *runner) locks(ctx context.Context, c *cluster, clients int) ([]figure, error) {
	all, end, err := lockers(ctx, c, clients)
	if err != nil {
		return nil, err
	}
	defer end()
	return r.load(ctx, c, clients, "lock and unlock", func(ctx context.Context, i, _ int) error {
		unlock, err := all[i].lock(ctx, fmt.Sprintf("own/%03d", i))
		if err != nil {
			return err
		}
		return unlock(ctx)
	})
}

// contended: all clients want one lock, again and again.
func (r *runner) contended(ctx context.Context, c *cluster, clients int) ([]figure, error) {
	all, end, err := lockers(ctx, c, clients)
	if err != nil {
		return nil, err
	}
	defer end()
	overtaken, err := fifo(ctx, all)
	if err != nil {
		return nil, err
	}
	figures, err := r.load(ctx, c, clients, "handovers", func(ctx context.Context, i, _ int) error {
		unlock, err := all[i].lock(ctx, "contended")
		if err != nil {
			return err
		}
		return unlock(ctx)
	})
	return append(figures, figure{"served out of order, of " + fmt.Sprint(clients-1), float64(overtaken), ""}), err
}

// fifo lets the lockers queue one after another behind the first, and returns how
// many were served before one that had come earlier.
func fifo(ctx context.Context, all []locker) (overtaken int, err error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	unlock, err := all[0].lock(ctx, "fifo")
	if err != nil {
		return 0, err
	}
	var mu sync.Mutex // protects the fields below
	var order []int
	var failed error
	var wg sync.WaitGroup
	for i, l := range all[1:] {
		wg.Go(func() {
			unlock, err := l.lock(ctx, "fifo")
			mu.Lock()
			order = append(order, i) // before it is given up: nobody else can be here
			mu.Unlock()
			if err == nil {
				err = unlock(ctx)
			}
			if err != nil {
				mu.Lock()
				failed = err
				mu.Unlock()
				cancel()
			}
		})
		if err := pause(ctx, 25*time.Millisecond); err != nil { // it is in the queue then
			break
		}
	}
	err = unlock(ctx)
	if err != nil {
		cancel()
	}
	wg.Wait()
	if err != nil || failed != nil {
		return 0, fmt.Errorf("queue: %w", errors.Join(failed, err))
	}
	for i := range order {
		if slices.Max(order[:i+1]) > order[i] {
			overtaken++
		}
	}
	return overtaken, nil
}
