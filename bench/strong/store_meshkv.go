package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/meshkv/meshkv/bench/peer/voter"
	"github.com/meshkv/meshkv/client"
)

func meshkvArgs(s voter.Spec) []string {
	var names, others []string
	for _, p := range s.Cluster {
		names = append(names, p.Name)
		if p.Name != s.Name {
			others = append(others, p.Addr)
		}
	}
	return []string{
		"agent", "--name", s.Name, "--data-dir", s.Dir, "--bind", s.Peer, "--http", s.Client, "--join", strings.Join(others, ","),
		"--server", "--bootstrap-servers", strings.Join(names, ","),
	}
}

// A meshkvStore has a client for each member, and for each the handles.
type meshkvStore struct {
	specs   []voter.Spec
	clients []*client.Client
	handles []map[string]client.Strong // by member, then name
}

func connectMeshkv(ctx context.Context, specs []voter.Spec) (store, error) {
	s := &meshkvStore{specs: specs}
	for _, spec := range specs {
		c, err := dialMeshkv(ctx, spec)
		if err != nil {
			s.close()
			return nil, err
		}
		s.clients = append(s.clients, c)
		s.handles = append(s.handles, make(map[string]client.Strong))
	}
	return s, nil
}

// dialMeshkv waits for the agent. Calls to one that is gone fail at once, so that
// clients can turn to another.
func dialMeshkv(ctx context.Context, spec voter.Spec) (*client.Client, error) {
	for {
		c, err := client.Dial(ctx, spec.Client, &client.DialOptions{FailFast: true, MaxBackoff: 100 * time.Millisecond})
		if err == nil {
			return c, nil
		}
		if pause(ctx, 20*time.Millisecond) != nil {
			return nil, err
		}
	}
}

func (s *meshkvStore) create(ctx context.Context, spaces []string) error {
	for _, space := range spaces {
		for {
			attemptCtx, cancel := context.WithTimeout(ctx, attempt)
			err := s.clients[0].CreateKeyspace(attemptCtx, client.KeyspaceSpec{Name: space, Mode: "strong", Voters: members})
			cancel()
			if err == nil {
				break
			}
			if pause(ctx, 20*time.Millisecond) != nil { // the servers have not met yet
				return fmt.Errorf("keyspace %s: %w", space, err)
			}
		}
		for i, c := range s.clients {
			h, err := c.Strong(ctx, space)
			if err != nil {
				return fmt.Errorf("keyspace %s: %w", space, err)
			}
			s.handles[i][space] = h
		}
	}
	return nil
}

func (s *meshkvStore) put(ctx context.Context, at place, key string, value []byte) error {
	_, err := s.handles[at.member][at.space].Put(ctx, key, value, nil)
	return err
}

func (s *meshkvStore) get(ctx context.Context, at place, key string) ([]byte, error) {
	e, err := s.handles[at.member][at.space].Get(ctx, key, nil)
	return e.Value, err
}

func (s *meshkvStore) leader(ctx context.Context) (int, error) {
	info, err := s.clients[0].StrongInfo(ctx, mainSpace)
	if err != nil {
		return 0, err
	}
	for i, spec := range s.specs {
		if spec.Name == info.Leader {
			return i, nil
		}
	}
	return 0, errNoLeader
}

func (s *meshkvStore) locker(ctx context.Context, member int) (locker, error) {
	h := s.handles[member][mainSpace]
	session, err := h.NewSession(ctx, nil)
	if err != nil {
		return nil, err
	}
	return &meshkvLocker{h, session}, nil
}

func (s *meshkvStore) close() {
	for _, c := range s.clients {
		c.Close()
	}
}

type meshkvLocker struct {
	strong  client.Strong
	session client.Session
}

func (l *meshkvLocker) lock(ctx context.Context, name string) (func(context.Context) error, error) {
	held, err := l.strong.Lock(ctx, name, &client.LockOptions{Session: l.session})
	if err != nil {
		return nil, err
	}
	return held.Unlock, nil
}

func (l *meshkvLocker) close() {
	ctx, cancel := context.WithTimeout(context.Background(), attempt)
	defer cancel()
	l.session.Close(ctx) // it expires otherwise
}
