package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	keys       = 10_000 // of every set of clients
	valueBytes = 100
	// attempt bounds each operation of the load.
	attempt = 5 * time.Second
	// maxErrors is how many errors of all clients end a run.
	maxErrors = 1000
)

// A figure is one measured number of one run.
type figure struct {
	name  string
	value float64
	unit  string
}

// load lets clients repeat op for the length of a run, after a warm-up, and tells
// operations by second, their latency, and the CPU time of the members and of this process for each.
// op is given the number of the client and of its call.
func (r *runner) load(ctx context.Context, c *cluster, clients int, what string, op func(ctx context.Context, client, n int) error) ([]figure, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var counting atomic.Bool
	var failed atomic.Int64
	var last atomic.Pointer[error]
	took := make([][]float64, clients)
	var wg sync.WaitGroup
	defer wg.Wait()
	for i := range clients {
		wg.Go(func() {
			for n := 0; ctx.Err() == nil && failed.Load() < maxErrors; n++ {
				opCtx, done := context.WithTimeout(ctx, attempt)
				counted, begin := counting.Load(), time.Now()
				err := op(opCtx, i, n)
				done()
				switch {
				case err != nil && ctx.Err() == nil:
					failed.Add(1)
					last.Store(&err)
					pause(ctx, 10*time.Millisecond) // ended early: so is the loop
				case err == nil && counted && counting.Load():
					took[i] = append(took[i], ms(time.Since(begin)))
				}
			}
		})
	}
	if err := pause(ctx, r.warm); err != nil {
		return nil, err
	}
	before, err := c.cpu()
	if err != nil {
		return nil, err
	}
	ownBefore, err := ownCPU()
	if err != nil {
		return nil, err
	}
	begin := time.Now()
	counting.Store(true)
	if err := pause(ctx, r.length); err != nil {
		return nil, err
	}
	counting.Store(false)
	window := time.Since(begin)
	after, err := c.cpu()
	if err != nil {
		return nil, err
	}
	ownAfter, err := ownCPU()
	if err != nil {
		return nil, err
	}
	cancel()
	wg.Wait()
	all := slices.Concat(took...)
	if n := failed.Load(); n > 0 && (len(all) == 0 || n >= maxErrors) {
		return nil, fmt.Errorf("%d errors, the last: %w", n, *last.Load())
	}
	if len(all) == 0 {
		return nil, errors.New("nothing was done in time")
	}
	slices.Sort(all)
	figures := []figure{
		{what, float64(len(all)) / window.Seconds(), "1/s"},
		{"p50", quantile(all, 0.50), "ms"},
		{"p99", quantile(all, 0.99), "ms"},
		{"CPU of the members for each", float64(after-before) / 1e3 / float64(len(all)), "µs"},
		{"CPU of the client for each", float64(ownAfter-ownBefore) / 1e3 / float64(len(all)), "µs"},
	}
	if n := failed.Load(); n > 0 {
		figures = append(figures, figure{"errors", float64(n), ""})
	}
	return figures, nil
}

func ms(d time.Duration) float64 { return float64(d) / 1e6 }

// quantile of ascending values; 0 of none.
func quantile(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

// key of the n-th call of a client: no two clients have one in common.
func key(client, clients, n int) string {
	return fmt.Sprintf("key/%05d", (client+n%(keys/clients)*clients)%keys)
}

// value does not compress to nothing.
func value(seed int) []byte {
	b := make([]byte, valueBytes)
	x := uint64(seed)*0x9e3779b97f4a7c15 + 1
	for i := range b {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b[i] = byte(x)
	}
	return b
}

// writes: puts by a number of clients that each wait for theirs.
func (r *runner) writes(ctx context.Context, c *cluster, clients int) ([]figure, error) {
	return r.load(ctx, c, clients, "writes", func(ctx context.Context, i, n int) error {
		return c.store.put(ctx, place{i % members, mainSpace}, key(i, clients, n), value(n))
	})
}

// reads: linearizable gets, of keys that are there.
func (r *runner) reads(ctx context.Context, c *cluster, clients int) ([]figure, error) {
	if err := fillKeys(ctx, c); err != nil {
		return nil, err
	}
	return r.load(ctx, c, clients, "reads", func(ctx context.Context, i, n int) error {
		v, err := c.store.get(ctx, place{i % members, mainSpace}, key(i, clients, n))
		if err == nil && len(v) != valueBytes {
			err = fmt.Errorf("a value of %d bytes", len(v))
		}
		return err
	})
}

// fillKeys puts every key once, unless that was done.
func fillKeys(ctx context.Context, c *cluster) error {
	if c.filled {
		return nil
	}
	const writers = 250
	ctx, cancel := context.WithTimeoutCause(ctx, 2*time.Minute, errors.New("the keys could not be loaded in two minutes"))
	defer cancel()
	errs := make(chan error, writers)
	for i := range writers {
		go func() {
			var err error
			for n := 0; n < keys/writers && err == nil; n++ {
				err = c.store.put(ctx, place{i % members, mainSpace}, key(i, writers, n), value(n))
			}
			errs <- err
		}()
	}
	var all []error
	for range writers {
		all = append(all, <-errs)
	}
	err := errors.Join(all...)
	c.filled = err == nil
	return err
}

// memory: what the members hold resident after the load before.
func (r *runner) memory(ctx context.Context, c *cluster) ([]figure, error) {
	if err := fillKeys(ctx, c); err != nil {
		return nil, err
	}
	return resident(c)
}

func resident(c *cluster) ([]figure, error) {
	all, err := c.rss()
	if err != nil {
		return nil, err
	}
	slices.Sort(all)
	sum := 0.0
	for _, b := range all {
		sum += b
	}
	return []figure{{"RSS of all members", sum / (1 << 20), "MiB"}, {"RSS of the largest", all[len(all)-1] / (1 << 20), "MiB"}}, nil
}

// many: 50 keyspaces written at once, and one by as many clients.
func (r *runner) many(ctx context.Context, c *cluster) ([]figure, error) {
	spaces, err := makeSpaces(ctx, c)
	if err != nil {
		return nil, err
	}
	const clients = 256
	one, err := r.writes(ctx, c, clients)
	if err != nil {
		return nil, err
	}
	all, err := r.load(ctx, c, clients, "writes to 50 keyspaces", func(ctx context.Context, i, n int) error {
		return c.store.put(ctx, place{i % members, spaces[i%len(spaces)]}, key(i, clients, n), value(n))
	})
	if err != nil {
		return nil, err
	}
	one[0].name = "writes to one keyspace"
	return append(all, one[0], figure{"50 to one", all[0].value / one[0].value, ""}), nil
}

// makeSpaces makes 50 keyspaces and waits until each serves at every member.
func makeSpaces(ctx context.Context, c *cluster) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	spaces := make([]string, 50)
	for i := range spaces {
		spaces[i] = fmt.Sprintf("many-%02d", i)
	}
	if err := c.store.create(ctx, spaces); err != nil {
		return nil, err
	}
	for _, space := range spaces {
		for i := range c.members {
			if err := c.ready(ctx, place{i, space}); err != nil {
				return nil, err
			}
		}
	}
	return spaces, nil
}

// idle: what 50 keyspaces cost that nobody uses.
func (r *runner) idle(ctx context.Context, c *cluster) ([]figure, error) {
	if _, err := makeSpaces(ctx, c); err != nil {
		return nil, err
	}
	if err := pause(ctx, 10*time.Second); err != nil { // what making them began ends
		return nil, err
	}
	before, err := c.cpu()
	if err != nil {
		return nil, err
	}
	begin := time.Now()
	if err := pause(ctx, r.rest); err != nil {
		return nil, err
	}
	after, err := c.cpu()
	if err != nil {
		return nil, err
	}
	figures, err := resident(c)
	return append([]figure{{"CPU of all members", 100 * float64(after-before) / float64(time.Since(begin)), "% of a core"}}, figures...), err
}
