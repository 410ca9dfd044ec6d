package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
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

// postKeyspace creates: {"mode":"strong","voters":3,"quota":bytes}; joins or leaves:
// {"join":true}, or {"leave":true,"force":bool}; or overrides the fuse:
// {"allow_drops":"1m"}.
func (s *Server) postKeyspace(ctx context.Context, w http.ResponseWriter, r *http.Request, c *call, q *query) error {
	if err := q.finish(); err != nil {
		return err
	}
	var body struct {
		Join, Leave, Force bool
		AllowDrops         string `json:"allow_drops"`
		Mode               string
		Voters             int
		Quota              uint64
	}
	d := json.NewDecoder(io.LimitReader(r.Body, 4<<10))
	d.DisallowUnknownFields()
	if err := d.Decode(&body); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: the body is {\"mode\":\"strong\",\"voters\":3}, {\"join\":true} or {\"leave\":true}: %w", client.ErrBadRequest, err)
	}
	if body.Mode != "" {
		if body.Join || body.Leave || body.Force || body.AllowDrops != "" {
			return fmt.Errorf("%w: mode stands with voters and quota alone", client.ErrBadRequest)
		}
		return s.createKeyspace(ctx, w, client.KeyspaceSpec{Name: c.keyspace, Mode: body.Mode, Voters: body.Voters, Quota: body.Quota})
	}
	a, err := s.admin()
	if err != nil {
		return err
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
		err = fmt.Errorf("%w: the body is {\"mode\":\"strong\",\"voters\":3}, {\"join\":true} or {\"leave\":true}; an eventual keyspace comes into being at its first use", client.ErrBadRequest)
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

// routeKeyspaces finds the calls on keyspaces as such.
func (s *Server) routeKeyspaces(r *http.Request, rest string) (*call, error) {
	other := &call{op: opOther}
	if rest == "" {
		return byMethod(r, map[string]*call{http.MethodGet: {op: opKeyspaces, serve: s.getKeyspaces}})
	}
	name, rest, sub := strings.Cut(rest, "/")
	ks, err := unescapeSegment(name)
	if err != nil {
		return other, err
	}
	if !sub {
		return byMethod(r, map[string]*call{
			http.MethodGet:    {op: opInfo, keyspace: ks, serve: s.getInfo},
			http.MethodPost:   {op: opOther, keyspace: ks, serve: s.postKeyspace},
			http.MethodDelete: {op: opOther, keyspace: ks, serve: s.deleteKeyspace},
		})
	}
	switch what, server, _ := strings.Cut(rest, "/"); {
	case rest == "strong":
		return byMethod(r, map[string]*call{http.MethodGet: {op: opAdmin, keyspace: ks, serve: s.getStrong}})
	case rest == "settings":
		return byMethod(r, map[string]*call{
			http.MethodGet:  {op: opAdmin, keyspace: ks, serve: s.getSettings},
			http.MethodPost: {op: opAdmin, keyspace: ks, serve: s.postSettings},
		})
	case rest == "recover":
		return byMethod(r, map[string]*call{http.MethodPost: {op: opAdmin, keyspace: ks, serve: s.postRecover}})
	case what == "voters":
		if server, err = url.PathUnescape(server); err != nil || server == "" {
			return other, fmt.Errorf("%w: the path is /v1/keyspaces/KEYSPACE/voters/SERVER", client.ErrBadRequest)
		}
		return byMethod(r, map[string]*call{
			http.MethodPost:   {op: opAdmin, keyspace: ks, key: server, serve: s.postVoter},
			http.MethodDelete: {op: opAdmin, keyspace: ks, key: server, serve: s.deleteVoter},
		})
	}
	return other, fmt.Errorf("%w: no such path; the name of a keyspace has no slash", client.ErrNotFound)
}

func (s *Server) createKeyspace(ctx context.Context, w http.ResponseWriter, spec client.KeyspaceSpec) error {
	b, err := s.strongBackend()
	if err != nil {
		return err
	}
	if spec.Voters < 0 {
		return fmt.Errorf("%w: a keyspace has 1, 3 or 5 voters", client.ErrBadRequest)
	}
	if err := b.CreateKeyspace(ctx, spec); err != nil {
		return adminFailure(err)
	}
	return writeJSON(w, map[string]any{"name": spec.Name, "mode": spec.Mode})
}

func (s *Server) getStrong(ctx context.Context, w http.ResponseWriter, _ *http.Request, c *call, q *query) error {
	if err := q.finish(); err != nil {
		return err
	}
	b, err := s.strongBackend()
	if err != nil {
		return err
	}
	info, err := b.StrongInfo(ctx, c.keyspace)
	if err != nil {
		return err
	}
	return writeJSON(w, info)
}

func (s *Server) postVoter(ctx context.Context, w http.ResponseWriter, _ *http.Request, c *call, q *query) error {
	return s.changeServers(ctx, w, q, StrongBackend.AddVoter, c, map[string]any{"name": c.keyspace, "added": c.key})
}

func (s *Server) deleteVoter(ctx context.Context, w http.ResponseWriter, _ *http.Request, c *call, q *query) error {
	return s.changeServers(ctx, w, q, StrongBackend.RemoveVoter, c, map[string]any{"name": c.keyspace, "removed": c.key})
}

func (s *Server) postDecommission(ctx context.Context, w http.ResponseWriter, _ *http.Request, c *call, q *query) error {
	decommission := func(b StrongBackend, ctx context.Context, _, server string) error { return b.Decommission(ctx, server) }
	return s.changeServers(ctx, w, q, decommission, c, map[string]any{"decommissioned": c.key})
}

func (s *Server) changeServers(ctx context.Context, w http.ResponseWriter, q *query, change func(b StrongBackend, ctx context.Context, keyspace, server string) error,
	c *call, answer map[string]any) error {
	if err := q.finish(); err != nil {
		return err
	}
	b, err := s.strongBackend()
	if err != nil {
		return err
	}
	if err := change(b, ctx, c.keyspace, c.key); err != nil {
		return adminFailure(err)
	}
	return writeJSON(w, answer)
}

// postRecover begins a group anew with the replica of one server.
func (s *Server) postRecover(ctx context.Context, w http.ResponseWriter, r *http.Request, c *call, q *query) error {
	if err := q.finish(); err != nil {
		return err
	}
	b, err := s.strongBackend()
	if err != nil {
		return err
	}
	var body struct{ Survivor string }
	release, err := s.readJSON(w, r, &body, `{"survivor":"SERVER"}`)
	if err != nil {
		return err
	}
	defer release()
	if body.Survivor == "" {
		return fmt.Errorf("%w: survivor names the server whose replica is the new beginning; what only others had is lost", client.ErrBadRequest)
	}
	report, err := b.RecoverKeyspace(ctx, c.keyspace, body.Survivor)
	if err != nil {
		return adminFailure(err)
	}
	return writeJSON(w, report)
}
