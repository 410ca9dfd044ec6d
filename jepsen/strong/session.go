//go:build linux

package main

import (
	"context"
	"fmt"
	"time"

	"github.com/meshkv/meshkv/client"
)

const sessionTTL = 15 * time.Second

// A livingSession must never end while its client lives, whoever leads.
type livingSession struct {
	server  *server
	session client.Session
	key     string
}

// beginSessions makes a session at each node, and a key that ends with it.
func beginSessions(ctx context.Context, c *cluster, keyspace string, w *writes) (sessions []livingSession, err error) {
	for _, s := range c.nodes {
		h, err := s.client.Strong(ctx, keyspace)
		if err != nil {
			return nil, err
		}
		session, err := h.NewSession(ctx, &client.SessionOptions{TTL: sessionTTL})
		if err != nil {
			return nil, fmt.Errorf("session at %s: %w", s.name, err)
		}
		l := livingSession{s, session, "s/" + s.name}
		w.tried(l.key, "alive")
		w.tried(l.key, "") // it goes at the end of the session
		v, err := h.Put(ctx, l.key, []byte("alive"), &client.PutOptions{Session: session.ID()})
		if err != nil {
			return nil, fmt.Errorf("key of a session at %s: %w", s.name, err)
		}
		w.applied(change{v.Seq, l.key, "alive"})
		sessions = append(sessions, l)
	}
	return sessions, nil
}

// sessionProblems are the sessions that were lost.
func sessionProblems(ctx context.Context, sessions []livingSession, keyspace string) (found []string) {
	for _, l := range sessions {
		select {
		case <-l.session.Lost():
			found = append(found, fmt.Sprintf("the session at %s was lost while its client lived", l.server.name))
			continue
		default:
		}
		if _, err := l.server.client.StrongCall(ctx, keyspace, &client.StrongCall{Kind: client.CallKeepAlive, Session: l.session.ID()}); err != nil {
			found = append(found, fmt.Sprintf("the session at %s: %v", l.server.name, err))
		}
		h, err := l.server.client.Strong(ctx, keyspace)
		if err == nil {
			_, err = h.Get(ctx, l.key, nil)
		}
		if err != nil {
			found = append(found, fmt.Sprintf("the key of the session at %s: %v", l.server.name, err))
		}
	}
	return found
}
