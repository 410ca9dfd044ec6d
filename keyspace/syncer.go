package keyspace

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/meshkv/meshkv/crdt"
	"github.com/meshkv/meshkv/storage"
)

// A Syncer tells the keyspaces of a node when what they are to acknowledge is on
// disk. Safe for concurrent use.
type Syncer struct {
	writer *storage.Writer
	wake   chan struct{} // of capacity 1

	mu  sync.Mutex        // protects due
	due map[*Keyspace]due // at most one of a keyspace, however much it has
}

// due is what is to be acknowledged when a commit is done.
type due struct {
	dots   []crdt.Dot
	ticket storage.Ticket
}

// NewSyncer waits for commits of w. Nothing is acknowledged until Run is called.
func NewSyncer(w *storage.Writer) *Syncer {
	return &Syncer{writer: w, wake: make(chan struct{}, 1), due: make(map[*Keyspace]due)}
}

// add has k told of dots when the commit of t is done. The dots of an incarnation
// stand for all below them, so those of earlier calls need no commit of their own:
// commits are done in order. Called with the mutex of k held.
func (s *Syncer) add(k *Keyspace, dots []crdt.Dot, t storage.Ticket) {
	s.mu.Lock()
	earlier := s.due[k]
	for _, d := range dots { // of an incarnation the newest is enough, however long the disk takes
		if i := slices.IndexFunc(earlier.dots, func(o crdt.Dot) bool { return o.Inc == d.Inc }); i >= 0 {
			earlier.dots[i] = d
		} else {
			earlier.dots = append(earlier.dots, d)
		}
	}
	s.due[k] = due{dots: earlier.dots, ticket: t}
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Run works until ctx ends.
func (s *Syncer) Run(ctx context.Context) {
	for {
		select {
		case <-s.wake:
		case <-ctx.Done():
			return
		}
		s.mu.Lock()
		all := s.due
		s.due = make(map[*Keyspace]due, len(all))
		s.mu.Unlock()
		for k, d := range all {
			if s.writer.Wait(ctx, d.ticket) != nil {
				return // the node stops, or its disk failed and it does, too
			}
			now := time.Now()
			k.drive(now, func() { k.rep.Synced(now, d.dots) })
		}
	}
}
