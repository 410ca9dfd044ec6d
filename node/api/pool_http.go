package api

import (
	"context"
	"fmt"
	"net/http"

	"github.com/meshkv/meshkv/client"
)

func (s *Server) putPool(ctx context.Context, w http.ResponseWriter, r *http.Request, c *call, q *query) error {
	id := q.requestID()
	if err := q.finish(); err != nil {
		return err
	}
	var body struct {
		First *uint64 `json:"first"`
		Last  *uint64 `json:"last"`
	}
	release, err := s.readJSON(w, r, &body, `{"first":10,"last":99}`)
	if err != nil {
		return err
	}
	defer release()
	if body.First == nil || body.Last == nil || *body.First > *body.Last {
		return fmt.Errorf("%w: a pool is {\"first\":10,\"last\":99}, both included", client.ErrBadRequest)
	}
	call := &client.StrongCall{Kind: client.CallDefinePool, Request: id, Name: c.key, First: *body.First, Last: *body.Last}
	if _, err := s.callStrong(ctx, c.keyspace, call); err != nil {
		return err
	}
	return writeJSON(w, map[string]any{"name": c.key, "first": *body.First, "last": *body.Last})
}

func (s *Server) postPool(ctx context.Context, w http.ResponseWriter, r *http.Request, c *call, q *query) error {
	id := q.requestID()
	if err := q.finish(); err != nil {
		return err
	}
	var body struct {
		Size    uint64       `json:"size"`
		Align   uint64       `json:"align"`
		At      *uint64      `json:"at"`
		Session sessionParam `json:"session"`
		Label   string       `json:"label"`
	}
	release, err := s.readJSON(w, r, &body, `{"size":1,"align":1,"at":10,"session":"7","label":"text"}`)
	if err != nil {
		return err
	}
	defer release()
	call := &client.StrongCall{
		Kind: client.CallAllocate, Request: id, Name: c.key, Size: max(body.Size, 1), Align: max(body.Align, 1),
		Session: client.SessionID(body.Session), Label: body.Label,
	}
	if body.At != nil {
		call.First, call.Exact = *body.At, true
	}
	if len(body.Label) > 1024 {
		return fmt.Errorf("%w: a label has at most 1024 bytes", client.ErrBadRequest)
	}
	reply, err := s.callStrong(ctx, c.keyspace, call)
	if err != nil {
		return err
	}
	return writeJSON(w, client.Allocation{First: reply.First, Size: call.Size, Token: reply.Token, Session: call.Session, Label: call.Label})
}

// deletePool frees the block that begins at first, or without that removes the pool.
func (s *Server) deletePool(ctx context.Context, w http.ResponseWriter, _ *http.Request, c *call, q *query) error {
	call := &client.StrongCall{Kind: client.CallRemovePool, Request: q.requestID(), Name: c.key}
	first, free := q.number("first")
	token, fenced := q.number("token")
	if err := q.finish(); err != nil {
		return err
	}
	if free != fenced {
		return fmt.Errorf("%w: a block is freed by both first and token; without them the pool is removed", client.ErrBadRequest)
	}
	if free {
		call.Kind, call.First, call.Token = client.CallFree, first, client.FencingToken(token)
	}
	if _, err := s.callStrong(ctx, c.keyspace, call); err != nil {
		return err
	}
	if free {
		return writeJSON(w, map[string]any{"name": c.key, "freed": first})
	}
	return writeJSON(w, map[string]any{"name": c.key, "removed": true})
}

func (s *Server) getPool(ctx context.Context, w http.ResponseWriter, _ *http.Request, c *call, q *query) error {
	if err := q.finish(); err != nil {
		return err
	}
	b, err := s.strongBackend()
	if err != nil {
		return err
	}
	h := client.NewStrong(b, strongName{name: c.keyspace})
	defer h.Close(ctx) // it has no sessions
	all, err := h.Allocator(c.key).List(ctx)
	if err != nil {
		return err
	}
	if all == nil {
		all = []client.Allocation{}
	}
	return writeJSON(w, map[string]any{"name": c.key, "allocations": all})
}
