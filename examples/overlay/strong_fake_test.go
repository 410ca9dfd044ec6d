package overlay

import (
	"context"
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
	x := &fakeSession{s: s, id: client.SessionID(len(s.sessions) + 1), lost: make(chan struct{})}
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

// Txn knows absent and guards, and puts.
func (s *fakeStrong) Txn(ctx context.Context, txn *client.Txn) (client.TxnResult, error) {
	keys := s.keys()
	for _, c := range txn.Compares {
		keys.mu.Lock()
		_, there := keys.entries[c.Key]
		keys.mu.Unlock()
		if c.Target == client.TargetVersion && there {
			return client.TxnResult{}, nil
		}
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
	s    *fakeStrong
	id   client.SessionID
	lost chan struct{}
	once sync.Once
	keys []string // belongs to s
}

func (x *fakeSession) ID() client.SessionID  { return x.id }
func (x *fakeSession) Lost() <-chan struct{} { return x.lost }

func (x *fakeSession) Close(context.Context) error {
	x.once.Do(func() {
		close(x.lost)
		x.s.mu.Lock()
		keys := x.keys
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
		if p.s.taken {
			return client.Allocation{}, client.ErrPoolExhausted
		}
	} else {
		first = number(testPool.Addr()) + uint64(p.s.next)*blockSize
		p.s.next++
	}
	p.s.token++
	return client.Allocation{First: first, Size: o.Size, Token: p.s.token, Session: o.Session}, nil
}

type fakeHeld struct {
	client.Held
	token client.FencingToken
}

func (h fakeHeld) Token() client.FencingToken   { return h.token }
func (h fakeHeld) Unlock(context.Context) error { return nil }
