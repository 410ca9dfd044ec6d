package main

import (
	"context"
	"fmt"
	"time"

	"github.com/meshkv/meshkv/bench/peer/voter"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// A natsStore has a connection to each member, and for each the buckets.
type natsStore struct {
	specs   []voter.Spec
	conns   []*nats.Conn
	js      []jetstream.JetStream
	buckets []map[string]jetstream.KeyValue // by member, then name
}

func connectNATS(ctx context.Context, specs []voter.Spec) (store, error) {
	s := &natsStore{specs: specs}
	for _, spec := range specs {
		c, err := connectOneNATS(ctx, spec)
		if err != nil {
			s.close()
			return nil, err
		}
		s.conns = append(s.conns, c)
		js, err := jetstream.New(c)
		if err != nil {
			s.close()
			return nil, err
		}
		s.js = append(s.js, js)
		s.buckets = append(s.buckets, make(map[string]jetstream.KeyValue))
	}
	return s, nil
}

func connectOneNATS(ctx context.Context, spec voter.Spec) (*nats.Conn, error) {
	for {
		c, err := nats.Connect("nats://"+spec.Client, nats.DontRandomize(), nats.IgnoreDiscoveredServers(), nats.MaxReconnects(-1),
			nats.ReconnectWait(100*time.Millisecond), nats.ReconnectBufSize(-1), nats.Timeout(time.Second))
		if err == nil {
			return c, nil
		}
		if pause(ctx, 20*time.Millisecond) != nil {
			return nil, err
		}
	}
}

// create makes buckets of three replicas, whose reads go to the leader: with the
// default, any replica answers with what it has.
func (s *natsStore) create(ctx context.Context, spaces []string) error {
	for _, space := range spaces {
		cfg := jetstream.StreamConfig{
			Name: "KV_" + space, Subjects: []string{"$KV." + space + ".>"}, Storage: jetstream.FileStorage, Replicas: members,
			MaxMsgsPerSubject: 1, Discard: jetstream.DiscardNew, AllowRollup: true, DenyDelete: true, MaxMsgs: -1, MaxBytes: -1, MaxConsumers: -1,
		}
		for {
			attempt, cancel := context.WithTimeout(ctx, 10*time.Second)
			_, err := s.js[0].CreateOrUpdateStream(attempt, cfg)
			cancel()
			if err == nil {
				break
			}
			if pause(ctx, 50*time.Millisecond) != nil { // the servers have not met yet
				return fmt.Errorf("bucket %s: %w", space, err)
			}
		}
		for i, js := range s.js {
			kv, err := js.KeyValue(ctx, space)
			if err != nil {
				return fmt.Errorf("bucket %s: %w", space, err)
			}
			s.buckets[i][space] = kv
		}
	}
	return nil
}

func (s *natsStore) put(ctx context.Context, at place, key string, value []byte) error {
	_, err := s.buckets[at.member][at.space].Put(ctx, key, value)
	return err
}

func (s *natsStore) get(ctx context.Context, at place, key string) ([]byte, error) {
	e, err := s.buckets[at.member][at.space].Get(ctx, key)
	if err != nil {
		return nil, err
	}
	return e.Value(), nil
}

func (s *natsStore) leader(ctx context.Context) (int, error) {
	stream, err := s.js[0].Stream(ctx, "KV_"+mainSpace)
	if err != nil {
		return 0, err
	}
	if cl := stream.CachedInfo().Cluster; cl != nil {
		for i, spec := range s.specs {
			if spec.Name == cl.Leader {
				return i, nil
			}
		}
	}
	return 0, errNoLeader
}

func (s *natsStore) locker(context.Context, int) (locker, error) { return nil, errNotOffered }

func (s *natsStore) close() {
	for _, c := range s.conns {
		c.Close()
	}
}
