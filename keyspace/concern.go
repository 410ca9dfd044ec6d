package keyspace

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/crdt"
	"github.com/meshkv/meshkv/gossip"
)

const (
	// maxWaiting bounds the writes of one keyspace that wait for acknowledgements.
	// More are refused before they are made; those that are being made at that
	// moment are let through.
	maxWaiting = 16_384
	// ackTimeout is how long a write waits whose context has no deadline.
	ackTimeout = 10 * time.Second
	// ackMargin is how much of the time that is left, and at most how much, is kept
	// for the answer: it says how many members acknowledged, where a late one would
	// say that the outcome is not known.
	ackMargin    = 10 // a tenth
	ackMarginMax = 250 * time.Millisecond
)

// MembersFunc gives the names of all members that are registered for a keyspace,
// failed ones and this one included. Not known: this node may not have heard of all
// yet. It is called without locks, often, and must not block.
type MembersFunc func(keyspace string) (names []string, known bool)

// A concern is what a write asks for.
type concern struct {
	acks    client.AckPolicy
	durable bool
}

// A waiting write.
type waiting struct {
	concern
	dot  crdt.Dot
	done chan struct{} // closed when it is acknowledged
}

// waits are the writes that wait for acknowledgements, and what is acknowledged.
// Safe for concurrent use; its mutex is a leaf.
type waits struct {
	mu    sync.Mutex // protects the fields below
	queue []*waiting // of one incarnation ascending by seq
	rows  map[crdt.Inc][]gossip.Ack
	ended chan struct{} // closed when the keyspace is
	over  bool
}

func newWaits() *waits {
	return &waits{rows: make(map[crdt.Inc][]gossip.Ack), ended: make(chan struct{})}
}

// add has a write wait.
func (s *waits) add(d crdt.Dot, c concern) *waiting {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := &waiting{concern: c, dot: d, done: make(chan struct{})}
	s.queue = append(s.queue, w)
	return w
}

// full reports whether too many writes wait.
func (s *waits) full() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.queue) >= maxWaiting
}

// remove has w, which may be nil, wait no more.
func (s *waits) remove(w *waiting) {
	if w == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queue = slices.DeleteFunc(s.queue, func(x *waiting) bool { return x == w })
	s.tidy()
}

// tidy forgets the rows that nobody waits for. They come again if they are needed.
func (s *waits) tidy() {
	if len(s.queue) == 0 {
		clear(s.rows)
	}
}

// end wakes all that wait, for good.
func (s *waits) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.over {
		s.over = true
		close(s.ended)
	}
}

// lowest is, of each incarnation with writes that wait, the lowest of them.
func (s *waits) lowest() map[crdt.Inc]uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) == 0 {
		return nil
	}
	low := make(map[crdt.Inc]uint64, 1)
	for _, w := range s.queue {
		if _, found := low[w.dot.Inc]; !found {
			low[w.dot.Inc] = w.dot.Seq
		}
	}
	return low
}

// busy reports whether a write waits.
func (s *waits) busy() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.queue) > 0
}

// note takes over what the members acknowledged of inc.
func (s *waits) note(inc crdt.Inc, rows []gossip.Ack) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) > 0 {
		s.rows[inc] = rows
	}
}

// release ends the waiting of all writes that have what they ask for. The calls of
// one keyspace may overtake one another: what one does not see, another does, since
// rows and members are read under the mutex and whoever changes them calls after.
func (s *waits) release(o *Owners, self string, members []string, known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !known || len(s.queue) == 0 {
		return
	}
	type limit struct {
		concern
		inc crdt.Inc
	}
	limits := make(map[limit]uint64)
	s.queue = slices.DeleteFunc(s.queue, func(w *waiting) bool {
		key := limit{w.concern, w.dot.Inc}
		upTo, found := limits[key]
		if !found {
			upTo = acknowledged(s.rows[w.dot.Inc], o, self, members, w.durable, w.acks.Need(len(members)))
			limits[key] = upTo
		}
		if w.dot.Seq > upTo {
			return false
		}
		close(w.done)
		return true
	})
	s.tidy()
}

// count is how many members have acknowledged what w waits for, this one among them.
func (s *waits) count(w *waiting, o *Owners, self string, members []string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 1
	for _, seq := range seqs(s.rows[w.dot.Inc], o, self, members, w.durable) {
		if seq >= w.dot.Seq {
			n++
		}
	}
	return n
}

// acknowledged is up to which dot need members, this one among them, have all.
func acknowledged(rows []gossip.Ack, o *Owners, self string, members []string, durable bool, need int) uint64 {
	others := need - 1
	if others <= 0 {
		return 1<<64 - 1
	}
	all := seqs(rows, o, self, members, durable)
	if len(all) < others {
		return 0
	}
	return all[others-1]
}

// seqs is up to where each other member has acknowledged, highest first. A member
// that started anew meanwhile has two incarnations and counts once. Members are
// ascending.
func seqs(rows []gossip.Ack, o *Owners, self string, members []string, durable bool) []uint64 {
	best := make(map[string]uint64, len(rows))
	for _, row := range rows {
		name := o.Name(row.Member)
		if _, registered := slices.BinarySearch(members, name); !registered || name == self {
			continue
		}
		seq := row.Applied
		if durable {
			seq = row.Synced
		}
		best[name] = max(best[name], seq)
	}
	all := make([]uint64, 0, len(best))
	for _, seq := range best {
		all = append(all, seq)
	}
	slices.Sort(all)
	slices.Reverse(all)
	return all
}

// members are the registered members, ascending.
func (k *Keyspace) members() (names []string, known bool) {
	if k.env.Members == nil { // this node is all that there is
		return []string{k.env.Name}, true
	}
	return k.env.Members(k.name)
}

// checkConcern refuses what can never be acknowledged, before anything is written.
func (k *Keyspace) checkConcern(c concern) error {
	if err := c.acks.Check(); err != nil {
		return err
	}
	if c.durable && k.env.Writer == nil {
		return fmt.Errorf("%w: this node keeps nothing on disk, so nothing can be durable", client.ErrBadRequest)
	}
	if !c.acks.Waits() {
		return nil
	}
	if members, known := k.members(); known && int(c.acks) > len(members) {
		return fmt.Errorf("%w: acks=%s, and keyspace %s has %d members: nothing was written; ask for fewer, for quorum, or for all",
			client.ErrBadRequest, c.acks, k.name, len(members))
	}
	if k.waits.full() {
		return fmt.Errorf("%w: %d writes wait for acknowledgements of other nodes", client.ErrOverloaded, maxWaiting)
	}
	return nil
}

// release has writes end their waiting that have what they asked for.
func (k *Keyspace) release() {
	if k.waits.busy() {
		members, known := k.members()
		k.waits.release(k.env.Owners, k.env.Name, members, known)
	}
}

// ask has the write of d wait for what others acknowledge. Called with k.mu held,
// in the same hold as the write.
func (k *Keyspace) ask(now time.Time, d crdt.Dot, c concern) *waiting {
	w := k.waits.add(d, c)
	k.rep.AskAcks(now, d.Seq, c.durable)
	return w
}

// awaitAcks returns when w is acknowledged, or says by how many it was not.
func (k *Keyspace) awaitAcks(ctx context.Context, w *waiting) error {
	limit := ackTimeout
	if deadline, ok := ctx.Deadline(); ok {
		left := time.Until(deadline)
		limit = left - min(left/ackMargin, ackMarginMax)
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	k.release() // what came before it waited, and where nobody else is asked for
	select {
	case <-w.done:
		return nil
	case <-timer.C:
	case <-ctx.Done():
	case <-k.waits.ended:
	}
	members, known := k.members()
	err := &client.WriteConcernError{Acked: k.waits.count(w, k.env.Owners, k.env.Name, members)}
	switch {
	case known:
		err.Want = w.acks.Need(len(members))
	case w.acks > 0:
		err.Want = int(w.acks)
	}
	k.waits.remove(w)
	select {
	case <-w.done: // in the last moment
		return nil
	default:
		return err
	}
}
