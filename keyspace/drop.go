package keyspace

import (
	"context"
	"fmt"
	"sync"

	"github.com/meshkv/meshkv/crdt"
	"github.com/meshkv/meshkv/storage"
)

// Drop ends the keyspace at this node and takes it out of the store, as a whole.
// Watches end, writes are refused, and what still comes from links is ignored. It
// returns when that is on disk. A keyspace of that name may be opened as soon as
// Drop was called, also before it returns, and begins with nothing; it counts its
// dots on, so that none is issued twice.
//
// Who only leaves must have completed a session with a member before: what no
// other node has is lost.
func (k *Keyspace) Drop(ctx context.Context) error {
	ticket, err := k.drop()
	k.hub.wait()
	if err != nil {
		return fmt.Errorf("drop keyspace %s: %w", k.name, err)
	}
	if k.env.Writer == nil {
		return nil
	}
	if err := k.env.Writer.Wait(ctx, ticket); err != nil {
		return fmt.Errorf("drop keyspace %s: %w", k.name, err)
	}
	return nil
}

func (k *Keyspace) drop() (ticket storage.Ticket, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.dropped {
		return k.ticket, nil
	}
	err = k.end()
	return k.ticket, err
}

// end takes the keyspace out of the store, for good. Called with k.mu held.
func (k *Keyspace) end() (err error) {
	r := k.rep.Replica()
	k.env.left.note(k.id, r.Inc(), r.Seq())
	k.done, k.dropped = true, true
	k.waits.end()
	for _, l := range k.rep.Links() { // what waits for peers counts no more
		k.rep.LinkDown(l.Peer)
	}
	k.signal()
	k.hub.close()
	if k.env.Writer != nil {
		k.ticket, err = k.env.Writer.Drop(k.id)
	}
	return err
}

// sequences remembers how far this process counted in keyspaces that it no longer
// holds: one number for each that it wrote to and left. Safe for concurrent use.
type sequences struct {
	mu     sync.Mutex // protects the fields below
	byName map[string]sequence
}

type sequence struct {
	inc crdt.Inc
	seq uint64
}

func (s *sequences) note(name string, inc crdt.Inc, seq uint64) {
	if seq == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byName == nil {
		s.byName = make(map[string]sequence)
	}
	s.byName[name] = sequence{inc, seq}
}

// last is the last sequence number that inc issued in the keyspace, as far as it
// was dropped since.
func (s *sequences) last(name string, inc crdt.Inc) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if q := s.byName[name]; q.inc == inc {
		return q.seq
	}
	return 0
}
