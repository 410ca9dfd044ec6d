package overlay

import (
	"bytes"
	"context"
	"maps"
	"sync"

	"github.com/meshkv/meshkv/client"
)

// fakeStrong is the keyspace of addresses: blocks are given out upwards, and a session
// ends when a test says so.
type fakeStrong struct {
	client.Strong // not used beyond the methods below
	c             *fakeCluster

	mu       sync.Mutex // protects the fields below
	next     int        // 10.99.next.0/24 is given out next
	token    client.FencingToken
	sessions []*fakeSession
	exact    []uint64 // what was asked for by At
	taken    bool     // a block that is asked for by At is another's
	held     map[uint64]client.FencingToken
}

// keys is where its records are.
func (s *fakeStrong) keys() *fakeKeyspace { return s.c.space(IPAMKeyspace) }

func (c *fakeCluster) CreateKeyspace(context.Context, client.KeyspaceSpec) error { return nil }

func (c *fakeCluster) Strong(context.Context, string) (client.Strong, error) { return &c.ipam, nil }

func (s *fakeStrong) Name() string { return IPAMKeyspace }

func (s *fakeStrong) Watch(ctx context.Context, prefix string, o *client.WatchOptions) (client.Watch, error) {
	return s.keys().Watch(ctx, prefix, o)
}

func (s *fakeStrong) NewSession(context.Context, *client.SessionOptions) (client.Session, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := &fakeSession{s: s, id: client.SessionID(len(s.sessions) + 1), lost: make(chan struct{}), blocks: map[client.FencingToken]bool{}}
	s.sessions = append(s.sessions, x)
	return x, nil
}

func (s *fakeStrong) Allocator(string) client.Allocator { return fakePool{s: s} }

func (s *fakeStrong) Lock(context.Context, string, *client.LockOptions) (client.Held, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.token++
	return fakeHeld{token: s.token + 100}, nil
}

// Txn knows absent, guards and equal values, and puts or deletes.
func (s *fakeStrong) Txn(ctx context.Context, txn *client.Txn) (client.TxnResult, error) {
	keys := s.keys()
	for _, c := range txn.Compares {
		keys.mu.Lock()
		e, there := keys.entries[c.Key]
		keys.mu.Unlock()
		if c.Target == client.TargetVersion && there || c.Target == client.TargetValue && !bytes.Equal(e.Value, c.Value) {
			return client.TxnResult{}, nil
		}
	}
	if d := txn.Then[0].Delete; d != nil {
		keys.remove(d.Key, client.ReasonDeleted)
		return client.TxnResult{Succeeded: true}, nil
	}
	put := txn.Then[0].Put
	keys.Put(ctx, put.Key, put.Value, nil)
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.sessions[put.Session-1]
	x.keys = append(x.keys, put.Key)
	return client.TxnResult{Succeeded: true}, nil
}

type fakeSession struct {
	client.Session
	s      *fakeStrong
	id     client.SessionID
	lost   chan struct{}
	once   sync.Once
	keys   []string // belongs to s, as blocks does
	blocks map[client.FencingToken]bool
}

func (x *fakeSession) ID() client.SessionID  { return x.id }
func (x *fakeSession) Lost() <-chan struct{} { return x.lost }

func (x *fakeSession) Close(context.Context) error {
	x.once.Do(func() {
		close(x.lost)
		x.s.mu.Lock()
		keys := x.keys
		maps.DeleteFunc(x.s.held, func(_ uint64, token client.FencingToken) bool { return x.blocks[token] })
		x.s.mu.Unlock()
		for _, key := range keys {
			x.s.keys().remove(key, client.ReasonExpired)
		}
	})
	return nil
}

type fakePool struct {
	client.Allocator
	s *fakeStrong
}

func (p fakePool) Define(context.Context, uint64, uint64) error { return nil }

func (p fakePool) Allocate(_ context.Context, o *client.AllocateOptions) (client.Allocation, error) {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	first := o.At
	if o.Exact {
		p.s.exact = append(p.s.exact, first)
		if p.s.taken || p.s.held[first] != 0 {
			return client.Allocation{}, client.ErrPoolExhausted
		}
	} else {
		first = number(testPool.Addr()) + uint64(p.s.next)*blockSize
		p.s.next++
	}
	p.s.token++
	p.s.held[first] = p.s.token
	p.s.sessions[o.Session-1].blocks[p.s.token] = true
	return client.Allocation{First: first, Size: o.Size, Token: p.s.token, Session: o.Session}, nil
}

func (p fakePool) Free(_ context.Context, first uint64, token client.FencingToken) error {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	if p.s.held[first] != token {
		return client.ErrNotHeld
	}
	delete(p.s.held, first)
	return nil
}

type fakeHeld struct {
	client.Held
	token client.FencingToken
}

func (h fakeHeld) Token() client.FencingToken   { return h.token }
func (h fakeHeld) Unlock(context.Context) error { return nil }
