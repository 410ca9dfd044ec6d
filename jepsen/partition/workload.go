//go:build linux

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// A side is one side of the partition and its clients.
type side struct {
	index int // 0 or 1
	nodes []*agent
}

// A workload runs clients on both sides and writes down what they did.
type workload struct {
	history  *history
	served   *served
	patience time.Duration // how long a node may take to show another's write
	stalls   stalls
}

// stalls are the times at which a node did not show, within its time limit,
// what another node of its own side had acknowledged. Safe for concurrent use.
type stalls struct {
	mu   sync.Mutex
	list []string
}

func (s *stalls) add(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = append(s.list, text)
}

// client works on the given keys, each of which no other client of its side
// touches, and between them on keys of its own, until ctx ends. The
// operations on a key form one causal chain, over random nodes of the side:
// each node is first awaited to show what the one before did.
func (w *workload) client(ctx context.Context, s side, id int, keys []string, rng *rand.Rand) {
	fresh := 0
	for ctx.Err() == nil {
		var key string
		if len(keys) > 0 && rng.IntN(3) > 0 {
			key, keys = keys[0], keys[1:]
		} else {
			key = fmt.Sprintf("fresh/%d/%d/%d", s.index, id, fresh)
			fresh++
		}
		w.chain(ctx, s, key, rng)
	}
}

// chain does one to four operations on a key.
func (w *workload) chain(ctx context.Context, s side, key string, rng *rand.Rand) {
	w.history.mu.Lock()
	shown := w.history.key(key).base
	w.history.mu.Unlock()
	last := -1
	for i := range 1 + rng.IntN(4) {
		at := rng.IntN(len(s.nodes))
		a := s.nodes[at]
		if last >= 0 && at != last && !w.awaitValue(ctx, a, key, shown) {
			return
		}
		last = at
		f := final{kind: deleted}
		if shown == "" || rng.IntN(2) == 0 {
			f = final{put, fmt.Sprintf("%s at %s %d %08x", key, a.name, i, rng.Uint32())}
		}
		if w.write(ctx, s, a, key, f) != ok {
			return // the chain is no longer known to be one
		}
		shown = f.value
		pause(ctx, time.Duration(20+rng.IntN(40))*time.Millisecond)
		if ctx.Err() != nil {
			return
		}
	}
}

// write does one put or delete and notes it. It is not cut short by ctx, so
// that the end of the workload leaves no unknown outcomes.
func (w *workload) write(ctx context.Context, s side, a *agent, key string, f final) outcome {
	ctx = context.WithoutCancel(ctx)
	start := time.Now()
	var err error
	if f.kind == put {
		err = a.put(ctx, key, f.value)
	} else {
		err = a.delete(ctx, key)
	}
	o := writeOutcome(err)
	w.history.apply(s.index, key, f, o)
	w.served.note(a.name, writes, start, time.Now(), err)
	return o
}

// awaitValue waits until a shows value under key ("" is nothing).
func (w *workload) awaitValue(ctx context.Context, a *agent, key, value string) bool {
	begin := time.Now()
	for {
		start := time.Now()
		got, err := a.get(context.WithoutCancel(ctx), key)
		w.served.note(a.name, reads, start, time.Now(), err)
		if err == nil && got == value {
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		if time.Since(begin) > w.patience {
			w.stalls.add(fmt.Sprintf("%s shows %q for %s after %v, a node of its side had acknowledged %q (%v)", a.name, got, key, w.patience, value, err))
			return false
		}
		pause(ctx, 5*time.Millisecond)
	}
}

// probe writes to one node and reads back, steadily, so that a node that
// stops serving for a moment is seen.
func (w *workload) probe(ctx context.Context, s side, a *agent) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	key := func(i int) string { return fmt.Sprintf("probe/%s/%d", a.name, i) }
	for i := 0; ; i++ {
		value := fmt.Sprintf("probe %d", i)
		if w.write(ctx, s, a, key(i), final{put, value}) == ok {
			start := time.Now()
			got, err := a.get(context.WithoutCancel(ctx), key(i))
			if err == nil && got != value {
				err = fmt.Errorf("reads %q after writing %q there", got, value)
			}
			w.served.note(a.name, reads, start, time.Now(), err)
		}
		if i%3 == 2 {
			w.write(ctx, s, a, key(i-1), final{kind: deleted})
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// run runs the clients until ctx ends. Each side deals three quarters of the
// keys to its clients, so that some are touched on one side only.
func (w *workload) run(ctx context.Context, sides [2]side, keys []string, seed uint64) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, s := range sides {
		rng := rand.New(rand.NewPCG(seed, uint64(s.index)))
		mine := slices.Clone(keys)
		rng.Shuffle(len(mine), func(i, j int) { mine[i], mine[j] = mine[j], mine[i] })
		mine = mine[:len(mine)*3/4]
		clients := 3 * len(s.nodes)
		for id := range clients {
			hand := mine[id*len(mine)/clients : (id+1)*len(mine)/clients]
			own := rand.New(rand.NewPCG(seed, uint64(1000*(s.index+1)+id)))
			wg.Go(func() { w.client(ctx, s, id, hand, own) })
		}
		for _, a := range s.nodes {
			wg.Go(func() { w.probe(ctx, s, a) })
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
