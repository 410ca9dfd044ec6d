package api

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/client/wire"
)

// executeUpdate carries out the body of an Update.
func (s *Server) executeUpdate(ctx context.Context, keyspace string, body []byte, reply *wire.Reply) error {
	var u wire.UpdateCall
	if err := wire.DecodeUpdate(body, &u); err != nil {
		return fmt.Errorf("%w: update: %w", client.ErrBadRequest, err)
	}
	if u.After != "" {
		return fmt.Errorf("%w: not available yet: an update with after", client.ErrBadRequest)
	}
	changes := make([]client.Change, len(u.Changes))
	for i := range u.Changes {
		c := &u.Changes[i]
		changes[i] = client.Change{
			Verb: client.Verb(c.Verb), Key: c.Key, Path: c.Path, Value: c.Value, N: c.N, Bound: c.Bound, To: c.To, TTL: c.TTL,
			Ephemeral: c.Flags.Has(wire.Ephemeral),
		}
	}
	v, err := s.update(ctx, keyspace, changes, &client.UpdateOptions{Durable: u.Flags.Has(wire.Durable), Acks: client.AcksOf(u.Acks)})
	reply.Type, reply.Version = wire.Written, wireVersion(v)
	return err
}

// update makes the keyspace if it has to.
func (s *Server) update(ctx context.Context, keyspace string, changes []client.Change, o *client.UpdateOptions) (client.Version, error) {
	if err := client.CheckChanges(changes); err != nil {
		return client.Version{}, err // before a keyspace is made for them
	}
	ks, err := s.backend.Keyspace(ctx, keyspace)
	if err != nil {
		return client.Version{}, err
	}
	return ks.Update(ctx, changes, o)
}

func executeView(ctx context.Context, ks contents, body []byte, reply *wire.Reply) error {
	var call wire.ViewCall
	if err := wire.DecodeViewCall(body, &call); err != nil {
		return fmt.Errorf("%w: view: %w", client.ErrBadRequest, err)
	}
	v, err := ks.View(ctx, call.Key, &client.GetOptions{After: client.Token(call.After)})
	if err != nil {
		return err
	}
	reply.Type = wire.Document
	reply.Body = wire.AppendView(nil, &wire.KeyView{
		Type: string(v.Type), Version: wireVersion(v.Version), Modified: nanos(v.Modified), Len: uint64(v.Len), Number: v.Number,
		Enabled: v.Enabled, Bound: v.Bound, Rights: v.Rights,
	})
	return nil
}

func executeElements(ctx context.Context, ks contents, body []byte, reply *wire.Reply) error {
	var call wire.ElementsCall
	if err := wire.DecodeElementsCall(body, &call); err != nil {
		return fmt.Errorf("%w: elements: %w", client.ErrBadRequest, err)
	}
	elements, more, err := takeElements(ctx, ks, call.Key, client.ElementsOptions{
		Type: client.Type(call.Type), Under: call.Under, After: client.Position(call.After),
		Limit: int(min(call.Limit, math.MaxInt32)), Seen: client.Token(call.Seen),
	})
	if err != nil {
		return err
	}
	page := wire.ElementsPage{More: more, Elements: make([]wire.Element, len(elements))}
	for i := range elements {
		e := &elements[i]
		page.Elements[i] = wire.Element{
			Path: e.Path, Value: e.Value, Position: string(e.Position), Version: wireVersion(e.Version), Origin: e.Origin,
			Modified: nanos(e.Modified), Expires: nanos(e.Expires), Ephemeral: e.Ephemeral,
		}
	}
	reply.Type, reply.Body = wire.Document, wire.AppendElements(nil, &page)
	return nil
}

// takeElements collects elements until pageBytes or o.Limit, and reports whether there may
// be others after the last of them. With one value of the largest size that is less than
// 1.5 MiB.
func takeElements(ctx context.Context, ks contents, key string, o client.ElementsOptions) ([]client.Element, bool, error) {
	var elements []client.Element
	size := 0
	for e, err := range ks.Elements(ctx, key, &o) {
		if err != nil {
			return nil, false, err
		}
		elements = append(elements, e)
		if size += elementSize(&e); size >= pageBytes {
			return elements, o.Limit <= 0 || len(elements) < o.Limit, nil
		}
	}
	return elements, false, nil
}

func elementSize(e *client.Element) int {
	n := 64 + len(e.Value) + len(e.Position)
	for _, p := range e.Path {
		n += len(p) + 2
	}
	return n
}

// View finds nothing, like Get.
func (a absent) View(ctx context.Context, key string, o *client.GetOptions) (client.View, error) {
	if err := checkKey(key); err != nil {
		return client.View{}, err
	}
	if o.After == "" {
		return client.View{}, client.ErrNotFound
	}
	ks, err := a.arrival(ctx, o.After)
	if err != nil {
		return client.View{}, err
	}
	return ks.View(ctx, key, o)
}

// Elements finds nothing, like Get.
func (a absent) Elements(ctx context.Context, key string, o *client.ElementsOptions) iter.Seq2[client.Element, error] {
	return func(yield func(client.Element, error) bool) {
		_, err := a.View(ctx, key, &client.GetOptions{})
		if o.Seen == "" || errors.Is(err, client.ErrBadRequest) {
			yield(client.Element{}, err)
			return
		}
		ks, err := a.arrival(ctx, o.Seen)
		if err != nil {
			yield(client.Element{}, err)
			return
		}
		ks.Elements(ctx, key, o)(yield)
	}
}
