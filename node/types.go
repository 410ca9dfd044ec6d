package node

import (
	"context"
	"fmt"
	"iter"

	"github.com/meshkv/meshkv/client"
)

// Update implements client.Keyspace.
func (h *handle) Update(ctx context.Context, changes []client.Change, o *client.UpdateOptions) (client.Version, error) {
	if err := client.CheckChanges(changes); err != nil {
		return client.Version{}, err
	}
	var v client.Version
	err := h.write(ctx, func(ctx context.Context, ks client.Keyspace) (err error) {
		v, err = ks.Update(ctx, changes, o)
		return err
	})
	return v, err
}

// View implements client.Keyspace.
func (h *handle) View(ctx context.Context, key string, o *client.GetOptions) (v client.View, err error) {
	if ks := h.here(); ks != nil {
		return ks.View(ctx, key, o)
	}
	if h.absent() {
		return v, client.ErrNotFound
	}
	kind := forwardQuick
	if o != nil && o.After != "" {
		kind = forwardLong // it may wait for what is on its way
	}
	err = h.remote(ctx, kind, func(ctx context.Context, ks client.Keyspace) (err error) {
		v, err = ks.View(ctx, key, o)
		return err
	})
	return v, h.joiningError(err)
}

// joiningError is err, with the reason if the keyspace is on its way here. A view of a part
// of a key's elements would be wrong, unlike a value that is there: so none is tried.
func (h *handle) joiningError(err error) error {
	if err != nil && unreached(err) && h.joins() != nil && !h.member {
		return joining(h.name, err)
	}
	return err
}

// Elements implements client.Keyspace.
func (h *handle) Elements(ctx context.Context, key string, o *client.ElementsOptions) iter.Seq2[client.Element, error] {
	if ks := h.here(); ks != nil {
		return ks.Elements(ctx, key, o)
	}
	var opts client.ElementsOptions
	if o != nil {
		opts = *o
	}
	return func(yield func(client.Element, error) bool) {
		if h.absent() {
			yield(client.Element{}, client.ErrNotFound)
			return
		}
		stopped := false
		err := h.remote(ctx, forwardLong, func(ctx context.Context, ks client.Keyspace) error {
			// Where a member fails in the middle, the next goes on from there.
			for e, err := range ks.Elements(ctx, key, &opts) {
				if err != nil {
					return err
				}
				if !yield(e, nil) {
					stopped = true
					return nil
				}
				opts.After = e.Position
				if opts.Limit > 0 {
					if opts.Limit--; opts.Limit == 0 {
						stopped = true
						return nil
					}
				}
			}
			return nil
		})
		if err != nil && opts.Seen != "" && ctx.Err() != nil { // before a member could say so
			err = fmt.Errorf("%w: %w", client.ErrNotCaughtUp, err)
		}
		if err != nil && !stopped {
			yield(client.Element{}, h.joiningError(err))
		}
	}
}

// Update implements client.Keyspace: it is refused.
func (s strongSpace) Update(context.Context, []client.Change, *client.UpdateOptions) (client.Version, error) {
	return client.Version{}, client.ErrTypes(s.name)
}

// View implements client.Keyspace: it is refused.
func (s strongSpace) View(context.Context, string, *client.GetOptions) (client.View, error) {
	return client.View{}, client.ErrTypes(s.name)
}

// Elements implements client.Keyspace: it is refused.
func (s strongSpace) Elements(context.Context, string, *client.ElementsOptions) iter.Seq2[client.Element, error] {
	return func(yield func(client.Element, error) bool) { yield(client.Element{}, client.ErrTypes(s.name)) }
}
