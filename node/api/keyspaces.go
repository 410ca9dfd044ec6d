package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/meshkv/meshkv/client"
)

// A KeyspaceAdmin is a backend that can change which keyspaces there are, and
// which of them it holds.
type KeyspaceAdmin interface {
	// JoinKeyspace makes the node hold the keyspace from now on.
	JoinKeyspace(ctx context.Context, name string) error
	// LeaveKeyspace makes it hold the keyspace no longer, once a member has all
	// that it has, or at once by force.
	LeaveKeyspace(ctx context.Context, name string, force bool) error
	// RemoveKeyspace removes the keyspace at every node.
	RemoveKeyspace(ctx context.Context, name string) error
	// AllowDrops lets reconciliations drop any number of values of the keyspace at
	// this node, for a while.
	AllowDrops(ctx context.Context, name string, d time.Duration) error
}

func (s *Server) admin() (KeyspaceAdmin, error) {
	if a, ok := s.backend.(KeyspaceAdmin); ok {
		return a, nil
	}
	return nil, fmt.Errorf("%w: not available yet: changing keyspaces here", client.ErrBadRequest)
}

// postKeyspace joins or leaves: {"join":true}, or {"leave":true,"force":bool}; or
// it overrides the fuse: {"allow_drops":"1m"}.
func (s *Server) postKeyspace(ctx context.Context, w http.ResponseWriter, r *http.Request, c *call, q *query) error {
	if err := q.finish(); err != nil {
		return err
	}
	a, err := s.admin()
	if err != nil {
		return err
	}
	var body struct {
		Join, Leave, Force bool
		AllowDrops         string `json:"allow_drops"`
	}
	d := json.NewDecoder(io.LimitReader(r.Body, 4<<10))
	d.DisallowUnknownFields()
	if err := d.Decode(&body); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: the body is {\"join\":true} or {\"leave\":true}: %w", client.ErrBadRequest, err)
	}
	switch {
	case body.AllowDrops != "":
		d, perr := time.ParseDuration(body.AllowDrops)
		if perr != nil || body.Join || body.Leave || body.Force {
			return fmt.Errorf("%w: the body is {\"allow_drops\":\"1m\"}, with nothing else", client.ErrBadRequest)
		}
		if err := a.AllowDrops(ctx, c.keyspace, d); err != nil {
			return err
		}
		return writeJSON(w, map[string]any{"name": c.keyspace, "allow_drops_seconds": d.Seconds()})
	case body.Join && !body.Leave && !body.Force:
		err = a.JoinKeyspace(ctx, c.keyspace)
	case body.Leave && !body.Join:
		err = a.LeaveKeyspace(ctx, c.keyspace, body.Force)
	default:
		err = fmt.Errorf("%w: the body is {\"join\":true} or {\"leave\":true}; an eventual keyspace comes into being at its first use", client.ErrBadRequest)
	}
	if err != nil {
		return err
	}
	return writeJSON(w, map[string]any{"name": c.keyspace, "joined": body.Join, "left": body.Leave})
}

func (s *Server) deleteKeyspace(ctx context.Context, w http.ResponseWriter, _ *http.Request, c *call, q *query) error {
	if err := q.finish(); err != nil {
		return err
	}
	a, err := s.admin()
	if err != nil {
		return err
	}
	if err := a.RemoveKeyspace(ctx, c.keyspace); err != nil {
		return writeFailure(err)
	}
	return writeJSON(w, map[string]any{"name": c.keyspace, "removed": true})
}
