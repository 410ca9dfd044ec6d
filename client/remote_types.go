package client

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/meshkv/meshkv/client/wire"
)

// Update implements Keyspace.
func (k *remoteKeyspace) Update(ctx context.Context, changes []Change, o *UpdateOptions) (Version, error) {
	if err := CheckChanges(changes); err != nil { // so it fits into a frame
		return Version{}, err
	}
	u := wire.UpdateCall{Changes: make([]wire.Change, len(changes))}
	if o != nil {
		if err := o.Acks.Check(); err != nil {
			return Version{}, err
		}
		u.Flags, u.Acks = flag(o.Durable, wire.Durable), acksNumber(o.Acks)
	}
	for i := range changes {
		c := &changes[i]
		u.Changes[i] = wire.Change{
			Verb: uint8(c.Verb), Key: c.Key, Path: c.Path, Value: c.Value, N: c.N, Bound: c.Bound, To: c.To, TTL: c.TTL,
			Flags: flag(c.Ephemeral, wire.Ephemeral),
		}
	}
	reply, err := k.c.do(ctx, &wire.Request{Type: wire.Update, Keyspace: k.name, Value: wire.AppendUpdate(nil, &u)})
	if err != nil {
		return Version{}, err
	}
	return versionOf(reply.Version), nil
}

// View implements Keyspace.
func (k *remoteKeyspace) View(ctx context.Context, key string, o *GetOptions) (View, error) {
	call := wire.ViewCall{Key: key}
	if o != nil {
		if err := checkViewOptions(o); err != nil {
			return View{}, err
		}
		call.After = string(o.After)
	}
	r := wire.Request{Type: wire.View, Keyspace: k.name, Value: wire.AppendViewCall(nil, &call)}
	if err := k.checkSize(&r); err != nil {
		return View{}, err
	}
	reply, err := k.c.do(ctx, &r)
	if err != nil {
		return View{}, notCaughtUp(call.After, err)
	}
	var v wire.KeyView
	if err := wire.DecodeView(reply.Body, &v); err != nil {
		return View{}, fmt.Errorf("malformed answer: %w", err)
	}
	return View{
		Key: key, Type: Type(v.Type), Version: versionOf(v.Version), Modified: timeOf(v.Modified), Len: int(v.Len),
		Number: v.Number, Enabled: v.Enabled, Bound: v.Bound, Rights: v.Rights,
	}, nil
}

// checkViewOptions refuses what no view has: the data types are not of strong keyspaces.
func checkViewOptions(o *GetOptions) error {
	if o.Linearizable || o.Revision != 0 {
		return fmt.Errorf("%w: a view is of an eventual keyspace, which has neither linearizable reads nor revisions", ErrNeedsStrong)
	}
	return nil
}

// notCaughtUp is the error of a read that waited for a token.
func notCaughtUp(token string, err error) error {
	if token != "" && (errors.Is(err, ErrTimeout) || errors.Is(err, context.Canceled)) {
		return fmt.Errorf("%w: %w", ErrNotCaughtUp, err)
	}
	return err
}

// Elements implements Keyspace. It reads page by page; the Timeout of DialOptions holds
// for each.
func (k *remoteKeyspace) Elements(ctx context.Context, key string, o *ElementsOptions) iter.Seq2[Element, error] {
	var opts ElementsOptions
	if o != nil {
		opts = *o
	}
	return func(yield func(Element, error) bool) {
		if opts.Limit < 0 {
			yield(Element{}, fmt.Errorf("%w: a limit cannot be negative, this one is %d", ErrBadRequest, opts.Limit))
			return
		}
		call := wire.ElementsCall{
			Key: key, Type: string(opts.Type), Under: opts.Under, After: string(opts.After), Limit: uint64(opts.Limit), Seen: string(opts.Seen),
		}
		for {
			page, err := k.elements(ctx, &call)
			if err != nil {
				yield(Element{}, err)
				return
			}
			for i := range page.Elements {
				if !yield(elementOf(&page.Elements[i]), nil) {
					return
				}
			}
			n := len(page.Elements)
			if !page.More || n == 0 {
				return
			}
			call.After, call.Seen = page.Elements[n-1].Position, ""
			if call.Limit > 0 {
				if call.Limit -= min(call.Limit, uint64(n)); call.Limit == 0 {
					return
				}
			}
		}
	}
}

func (k *remoteKeyspace) elements(ctx context.Context, call *wire.ElementsCall) (page wire.ElementsPage, err error) {
	r := wire.Request{Type: wire.Elements, Keyspace: k.name, Value: wire.AppendElementsCall(nil, call)}
	if err := k.checkSize(&r); err != nil {
		return page, err
	}
	reply, err := k.c.do(ctx, &r)
	if err != nil {
		return page, notCaughtUp(call.Seen, err)
	}
	if err := wire.DecodeElements(reply.Body, &page); err != nil {
		return page, fmt.Errorf("malformed answer: %w", err)
	}
	return page, nil
}

// elementOf shares e's values.
func elementOf(e *wire.Element) Element {
	return Element{
		Path: e.Path, Value: e.Value, Position: Position(e.Position), Version: versionOf(e.Version), Origin: e.Origin,
		Modified: timeOf(e.Modified), Expires: timeOf(e.Expires), Ephemeral: e.Ephemeral,
	}
}
