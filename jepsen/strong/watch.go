//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"github.com/meshkv/meshkv/client"
)

const lastKey = "w/end"

// A watcher follows the keys under a prefix, at one node after another, by its cursor.
type watcher struct {
	name     string
	c        *cluster
	keyspace string
	prefix   string
	last     string        // key whose change is the last that it waits for
	stay     time.Duration // at one node, on average; 0: until it has no more to tell

	mu     sync.Mutex // protects the fields below
	cursor client.Cursor
	shown  []shownChange
	group  []client.Event // of a transaction whose end has not come
	moves  int
	broken string // why it cannot go on: an anomaly
	ended  bool   // it has seen last
}

// run follows until last is written, an anomaly is found or ctx ends.
func (w *watcher) run(ctx context.Context, rng *rand.Rand) {
	for ctx.Err() == nil && !w.over() {
		s := w.c.nodes[rng.IntN(len(w.c.nodes))]
		stay, cancel := context.WithCancel(ctx)
		if w.stay > 0 {
			stay, cancel = context.WithTimeout(ctx, w.stay/4+time.Duration(rng.Int64N(int64(3*w.stay/2))))
		}
		w.visit(stay, s)
		cancel()
		pause(ctx, 20*time.Millisecond)
	}
}

func (w *watcher) over() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.ended || w.broken != ""
}

// visit watches at one node until ctx ends or the node has no more to tell.
func (w *watcher) visit(ctx context.Context, s *server) {
	ks, err := s.client.Strong(ctx, w.keyspace)
	if err != nil {
		return
	}
	w.mu.Lock()
	w.group = nil // it comes again as a whole
	o := &client.WatchOptions{From: w.cursor, Exact: true}
	w.mu.Unlock()
	watch, err := ks.Watch(ctx, w.prefix, o)
	if err != nil {
		w.failed(s, err)
		return
	}
	defer watch.Close()
	for {
		ev, err := watch.Next(ctx)
		if err != nil {
			w.failed(s, err)
			return
		}
		if !w.take(s, ev) {
			return
		}
	}
}

// failed notes an error that no watch may end with: nothing is compacted while it runs.
func (w *watcher) failed(s *server, err error) {
	if errors.Is(err, client.ErrCompacted) {
		w.breaks(fmt.Sprintf("%s at %s: %v, but nothing was compacted", w.name, s.name, err))
	}
}

func (w *watcher) breaks(why string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.broken = why
}

// take notes one event, and reports whether the watch goes on.
func (w *watcher) take(s *server, ev client.Event) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch ev.Type {
	case client.EventSynced:
		w.cursor = ev.Cursor
		w.moves++
		return true
	case client.EventResync:
		w.broken = fmt.Sprintf("%s at %s: a resync, which an exact watch does not have", w.name, s.name)
		return false
	case client.EventPut, client.EventDelete:
	default:
		return true
	}
	w.group = append(w.group, ev)
	if ev.More {
		return true
	}
	revision, err := strconv.ParseUint(string(ev.Cursor), 10, 64)
	if err != nil {
		w.broken = fmt.Sprintf("%s at %s: the cursor %q of a change is no revision", w.name, s.name, ev.Cursor)
		return false
	}
	for i, e := range w.group {
		c := change{revision, e.Entry.Key, string(e.Entry.Value)}
		if e.Type == client.EventPut && e.Entry.Version.Seq != revision {
			w.broken = fmt.Sprintf("%s at %s: version %d in revision %d of %s", w.name, s.name, e.Entry.Version.Seq, revision, c.key)
			return false
		}
		if e.Type == client.EventDelete {
			c.value = ""
		}
		w.shown = append(w.shown, shownChange{c, i == len(w.group)-1})
		w.ended = w.ended || c.key == w.last
	}
	w.cursor, w.group = ev.Cursor, nil
	w.moves++
	return !w.ended
}

// transactions writes three keys at once, until ctx ends.
func transactions(ctx context.Context, c *cluster, keyspace string, w *writes, rng *rand.Rand) error {
	for n := 0; ctx.Err() == nil; n++ {
		h, err := c.nodes[rng.IntN(len(c.nodes))].client.Strong(ctx, keyspace)
		if err != nil {
			return err
		}
		var txn client.Txn
		var changes []change
		for _, key := range [...]string{"w/a", "w/b", "w/c"} {
			value := fmt.Sprintf("%s %d", key, n)
			w.tried(key, value)
			changes = append(changes, change{0, key, value})
			txn.Then = append(txn.Then, client.TxnOp{Put: &client.TxnPut{Key: key, Value: []byte(value)}})
		}
		attempt, cancel := context.WithTimeout(context.WithoutCancel(ctx), opTimeout)
		r, err := h.Txn(attempt, &txn)
		cancel()
		if err == nil {
			for i := range changes {
				changes[i].revision = r.Revision
			}
			w.applied(changes...)
		}
		pause(ctx, 50*time.Millisecond)
	}
	return nil
}

// finish writes the last key, awaits that every watch has come to it, and judges.
func finishWatches(ctx context.Context, c *cluster, keyspace string, w *writes, watchers []*watcher, running *sync.WaitGroup, stop func()) (found []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	defer running.Wait()
	defer stop()
	h, err := c.nodes[0].client.Strong(ctx, keyspace)
	if err != nil {
		return nil, err
	}
	w.tried(lastKey, "end")
	v, err := h.Put(ctx, lastKey, []byte("end"), nil)
	if err != nil {
		return nil, fmt.Errorf("last write: %w", err)
	}
	w.applied(change{v.Seq, lastKey, "end"})
	waiting, stopWaiting := context.WithTimeout(ctx, 10*time.Second) // one that has lost it never comes
	defer stopWaiting()
	for _, x := range watchers {
		for !x.over() && waiting.Err() == nil {
			pause(waiting, 10*time.Millisecond)
		}
	}
	left := make(map[string]string)
	for e, err := range h.List(ctx, "", nil) {
		if err != nil {
			return nil, fmt.Errorf("list at the end: %w", err)
		}
		left[e.Key] = string(e.Value)
	}
	for i, x := range watchers {
		x.mu.Lock()
		switch {
		case x.broken != "":
			found = append(found, x.broken)
		case !x.ended:
			found = append(found, fmt.Sprintf("%s did not come to the last change: %d changes, cursor %s", x.name, len(x.shown), x.cursor))
		}
		found = append(found, w.problems(x.name, x.shown)...)
		if d := firstDifference(watchers[0].shown, x.shown); i > 0 && d != "" {
			found = append(found, fmt.Sprintf("%s and %s differ: %s", watchers[0].name, x.name, d))
		}
		if x.ended && !maps.Equal(left, state(x.shown)) {
			found = append(found, fmt.Sprintf("%s does not lead to the contents at the end: %d and %d keys", x.name, len(state(x.shown)), len(left)))
		}
		x.mu.Unlock()
	}
	return append(found, afterCompaction(ctx, c, keyspace, v.Seq)...), nil
}

// afterCompaction compacts, and expects that old cursors are refused by name everywhere.
func afterCompaction(ctx context.Context, c *cluster, keyspace string, revision uint64) (found []string) {
	if _, err := c.nodes[0].client.StrongCall(ctx, keyspace, &client.StrongCall{Kind: client.CallCompact, Revision: revision}); err != nil {
		return []string{fmt.Sprintf("compact: %v", err)}
	}
	for _, s := range c.nodes {
		h, err := s.client.Strong(ctx, keyspace)
		if err != nil {
			return append(found, err.Error())
		}
		// A read that is linearizable makes the node come to the compaction.
		if _, err := h.Get(ctx, lastKey, nil); err != nil {
			found = append(found, fmt.Sprintf("get at %s: %v", s.name, err))
		}
		watch, err := h.Watch(ctx, "", &client.WatchOptions{From: "2", Exact: true})
		if err == nil {
			_, err = watch.Next(ctx)
			watch.Close()
		}
		if !errors.Is(err, client.ErrCompacted) {
			found = append(found, fmt.Sprintf("a watch at %s from before the compaction: %v, want ErrCompacted", s.name, err))
		}
	}
	return found
}
