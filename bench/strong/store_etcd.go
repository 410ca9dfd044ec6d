package main

import (
	"context"
	"fmt"
	"time"

	"github.com/meshkv/meshkv/bench/peer/voter"
	"go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"go.uber.org/zap"
)

// An etcdStore has a client for each member.
type etcdStore struct{ clients []*clientv3.Client }

func connectEtcd(ctx context.Context, specs []voter.Spec) (store, error) {
	s := &etcdStore{}
	for _, spec := range specs {
		c, err := clientv3.New(clientv3.Config{
			Endpoints: []string{spec.Client}, DialTimeout: 5 * time.Second, Logger: zap.NewNop(), Context: context.WithoutCancel(ctx),
			BackoffWaitBetween: 25 * time.Millisecond,
		})
		if err != nil {
			s.close()
			return nil, err
		}
		s.clients = append(s.clients, c)
	}
	return s, nil
}

func (s *etcdStore) create(_ context.Context, spaces []string) error {
	if len(spaces) > 1 {
		return errNotOffered
	}
	return nil
}

func (s *etcdStore) put(ctx context.Context, at place, key string, value []byte) error {
	_, err := s.clients[at.member].Put(ctx, key, string(value))
	return err
}

func (s *etcdStore) get(ctx context.Context, at place, key string) ([]byte, error) {
	r, err := s.clients[at.member].Get(ctx, key)
	if err != nil {
		return nil, err
	}
	if len(r.Kvs) == 0 {
		return nil, fmt.Errorf("no key %s", key)
	}
	return r.Kvs[0].Value, nil
}

func (s *etcdStore) leader(ctx context.Context) (int, error) {
	for i, c := range s.clients {
		r, err := c.Status(ctx, c.Endpoints()[0])
		if err != nil {
			return 0, err
		}
		if r.Leader == r.Header.MemberId {
			return i, nil
		}
	}
	return 0, errNoLeader
}

func (s *etcdStore) locker(ctx context.Context, member int) (locker, error) {
	session, err := concurrency.NewSession(s.clients[member], concurrency.WithTTL(15), concurrency.WithContext(context.WithoutCancel(ctx)))
	if err != nil {
		return nil, err
	}
	return etcdLocker{session}, nil
}

func (s *etcdStore) close() {
	for _, c := range s.clients {
		c.Close()
	}
}

type etcdLocker struct{ session *concurrency.Session }

func (l etcdLocker) lock(ctx context.Context, name string) (func(context.Context) error, error) {
	m := concurrency.NewMutex(l.session, "lock/"+name)
	if err := m.Lock(ctx); err != nil {
		return nil, err
	}
	return m.Unlock, nil
}

func (l etcdLocker) close() { l.session.Close() }
