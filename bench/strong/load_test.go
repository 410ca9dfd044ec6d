package main

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestNoTwoClientsShareAKey(t *testing.T) {
	for _, clients := range []int{1, 64, 250, 256} {
		owner := make(map[string]int)
		for i := range clients {
			for n := range 2 * keys / clients {
				k := key(i, clients, n)
				if other, ok := owner[k]; ok && other != i {
					t.Fatalf("%d clients: %s is used by %d and %d", clients, k, other, i)
				}
				owner[k] = i
			}
		}
		if got, least := len(owner), keys-clients; got < least || got > keys {
			t.Errorf("%d clients: %d keys, want %d to %d", clients, got, least, keys)
		}
	}
}

func TestLongestGap(t *testing.T) {
	at := func(seconds ...int) (times []time.Time) {
		for _, s := range seconds {
			times = append(times, time.Unix(int64(s), 0))
		}
		return times
	}
	for _, c := range []struct {
		name  string
		times []time.Time
		want  time.Duration
	}{
		{"none", nil, 0},
		{"one", at(5), 0},
		{"the kill is within the gap", at(8, 9, 13, 14), 4 * time.Second},
		{"what was before the kill does not count", at(1, 8, 9, 11, 12), 2 * time.Second},
		{"not in order", at(14, 8, 13, 9), 4 * time.Second},
	} {
		if got := longestGap(c.times, time.Unix(10, 0)); got != c.want {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
}

// A queue is a lock that is given to the first or the last waiter.
type queue struct {
	lastFirst bool
	mu        sync.Mutex // protects the fields below
	held      bool
	waiting   []chan struct{}
}

func (q *queue) lock(context.Context, string) (func(context.Context) error, error) {
	q.mu.Lock()
	if !q.held {
		q.held = true
		q.mu.Unlock()
		return q.unlock, nil
	}
	mine := make(chan struct{})
	q.waiting = append(q.waiting, mine)
	q.mu.Unlock()
	<-mine
	return q.unlock, nil
}

func (q *queue) unlock(context.Context) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) == 0 {
		q.held = false
		return nil
	}
	i := 0
	if q.lastFirst {
		i = len(q.waiting) - 1
	}
	close(q.waiting[i])
	q.waiting = slices.Delete(q.waiting, i, i+1)
	return nil
}

func (q *queue) close() {}

func TestFIFO(t *testing.T) {
	for _, c := range []struct {
		name      string
		lastFirst bool
		want      int
	}{{"first first", false, 0}, {"last first", true, 6}} {
		synctest.Test(t, func(t *testing.T) {
			q := &queue{lastFirst: c.lastFirst}
			all := make([]locker, 8)
			for i := range all {
				all[i] = q
			}
			if got, err := fifo(t.Context(), all); err != nil || got != c.want {
				t.Errorf("%s: got %d, %v, want %d", c.name, got, err, c.want)
			}
		})
	}
}
