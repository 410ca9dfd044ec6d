//go:build linux

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/meshkv/meshkv/client"
)

// Thousands watch a strong keyspace, most of them a prefix of their own and some all of it, while a server is
// killed and comes back. Each is shown everything that concerns it, in order and once, and goes on at
// another node. Servers keep no queue for them: what they need is bounded. MESH_LONG=1 takes 10,000
// watchers, 20 times the events and a kill of each server.
func TestThousandsOfWatchers(t *testing.T) {
	prefixes, all, rounds, kills := 1990, 10, 2, 1
	if os.Getenv("MESH_LONG") != "" {
		prefixes, all, rounds, kills = 9980, 20, 5, 3
	}
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	binary, err := program()
	if err != nil {
		t.Fatal(err)
	}
	c, err := newCluster(3, false, binary, t.TempDir())
	defer func() {
		if err := c.close(); err != nil {
			t.Error(err)
		}
	}()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.start(ctx, keyspaceName); err != nil {
		t.Fatal(err)
	}
	before, begin := residents(t, c), time.Now()

	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	w := newWrites()
	var watchers []*watcher
	var following sync.WaitGroup
	defer following.Wait()
	follow, stop := context.WithCancel(ctx)
	defer stop()
	for i := range prefixes + all {
		x := &watcher{name: fmt.Sprintf("watch %d", i), c: c, keyspace: keyspaceName, last: lastKey, cursor: "1"}
		if i < prefixes {
			x.prefix = fmt.Sprintf("p/%05d/", i)
			x.last = x.prefix + "end"
		}
		watchers = append(watchers, x)
		following.Go(func() { x.run(follow, rand.New(rand.NewPCG(seed, uint64(i)))) })
	}

	// write puts keys in transactions, each of prefixes of its own, until all are acknowledged.
	write := func(writer int, key func(prefix int) string, round int) {
		h, err := c.nodes[writer].client.Strong(ctx, keyspaceName)
		if err != nil {
			t.Error(err)
			return
		}
		const together = 30
		for first := writer * together; first < prefixes; first += len(c.nodes) * together {
			for attempt := 0; ctx.Err() == nil; attempt++ {
				var txn client.Txn
				var changes []change
				for i := first; i < min(first+together, prefixes); i++ {
					for _, k := range []string{key(i), key(i) + "+"}[:1+i%2] { // some change two keys under one prefix
						value := fmt.Sprintf("%d.%d", round, attempt)
						w.tried(k, value)
						changes = append(changes, change{0, k, value})
						txn.Then = append(txn.Then, client.TxnOp{Put: &client.TxnPut{Key: k, Value: []byte(value)}})
					}
				}
				limit := 5 * time.Second
				if round == rounds {
					limit = time.Minute
				}
				bounded, cancel := context.WithTimeout(ctx, limit)
				r, err := h.Txn(bounded, &txn)
				cancel()
				if err != nil && round == rounds { // a watch may have ended with it
					t.Errorf("last round: %v", err)
					return
				}
				if err != nil {
					pause(ctx, 20*time.Millisecond) // its server is away
					continue
				}
				for i := range changes {
					changes[i].revision = r.Revision
				}
				w.applied(changes...)
				break
			}
		}
	}
	var writing sync.WaitGroup
	for i := range c.nodes {
		writing.Go(func() {
			for round := range rounds {
				write(i, func(p int) string { return fmt.Sprintf("p/%05d/%d", p, round%3) }, round)
			}
		})
	}
	for i := range kills {
		s := c.nodes[i]
		awaitWatched(ctx, watchers)
		if err := s.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		<-s.end
		s.end = nil
		pause(ctx, time.Second)
		if err := c.launch(s); err != nil {
			t.Fatal(err)
		}
		if err := c.awaitServing(ctx, keyspaceName); err != nil {
			t.Fatal(err)
		}
	}
	writing.Wait()
	for i := range c.nodes {
		writing.Go(func() { write(i, func(p int) string { return fmt.Sprintf("p/%05d/end", p) }, rounds) })
	}
	writing.Wait()
	h, err := c.nodes[0].client.Strong(ctx, keyspaceName)
	if err != nil {
		t.Fatal(err)
	}
	w.tried(lastKey, "end")
	v, err := h.Put(ctx, lastKey, []byte("end"), nil)
	if err != nil {
		t.Fatal(err)
	}
	w.applied(change{v.Seq, lastKey, "end"})

	written := w.done
	for _, x := range watchers {
		for !x.over() && ctx.Err() == nil {
			pause(ctx, 10*time.Millisecond)
		}
	}
	after := residents(t, c)
	stop()
	following.Wait()
	events, bad := 0, 0
	for i, x := range watchers {
		own := &writes{tries: w.tries}
		for _, d := range written {
			if strings.HasPrefix(d.key, x.prefix) {
				own.done = append(own.done, d)
			}
		}
		found := own.problems(x.name, x.shown)
		if !x.ended || x.broken != "" {
			found = append(found, fmt.Sprintf("%s of %q: %d changes, cursor %s, %s", x.name, x.prefix, len(x.shown), x.cursor, x.broken))
		}
		for _, s := range x.shown {
			if !strings.HasPrefix(s.key, x.prefix) {
				found = append(found, fmt.Sprintf("%s of %q was shown %s", x.name, x.prefix, s.key))
			}
		}
		if i > prefixes {
			if d := firstDifference(watchers[prefixes].shown, x.shown); d != "" {
				found = append(found, fmt.Sprintf("%s and %s differ: %s", watchers[prefixes].name, x.name, d))
			}
		}
		if bad += len(found); len(found) > 0 && bad < 20 {
			t.Error(strings.Join(found, "\n"))
		}
		events += len(x.shown)
	}
	t.Logf("%d watchers, %d changes, %d events, by %v", len(watchers), len(written), events, time.Since(begin).Round(time.Millisecond))
	// A watch is some goroutines and buffers; all may be at one server. 2,000 took 19 MiB at most.
	bound := 32<<20 + len(watchers)*16<<10
	for i, s := range c.nodes {
		t.Logf("%s: %d MiB resident before, %d MiB with the watchers", s.name, before[i]>>20, after[i]>>20)
		if after[i] > before[i]+bound {
			t.Errorf("%s grew from %d to %d MiB, the bound is %d more", s.name, before[i]>>20, after[i]>>20, bound>>20)
		}
	}
}

// awaitWatched waits until every watcher has shown something: it is being served.
func awaitWatched(ctx context.Context, watchers []*watcher) {
	for _, x := range watchers {
		for ctx.Err() == nil {
			x.mu.Lock()
			shown := len(x.shown) > 0
			x.mu.Unlock()
			if shown {
				break
			}
			pause(ctx, 10*time.Millisecond)
		}
	}
}

// residents are the resident bytes of the servers.
func residents(t *testing.T, c *cluster) (all []int) {
	t.Helper()
	for _, s := range c.nodes {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", s.cmd.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		pages, err := strconv.Atoi(strings.Fields(string(text))[1])
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, pages*os.Getpagesize())
	}
	return all
}
