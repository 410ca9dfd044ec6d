package node

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"sync/atomic"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/keyspace"
)

// A handle is a keyspace as this node serves it: from its own replica; from a
// member where it holds none, or where its own is joining. It outlives leaving,
// removal and joining. It implements client.Keyspace.
type handle struct {
	n    *Node
	name string
	// member: it serves other nodes, which chose this one as a member. It
	// forwards nothing, or requests would go round in circles.
	member bool
	cur    atomic.Pointer[holding] // may be of the past
}

// here is the replica if it answers reads, or nil.
func (h *handle) here() *keyspace.Keyspace {
	if cur := h.cur.Load(); cur != nil && cur.serves.Load() {
		return cur.ks
	}
	if cur := h.n.held(h.name); cur != nil {
		h.cur.Store(cur)
		if cur.serves.Load() {
			return cur.ks
		}
	}
	return nil
}

// joins reports whether this node holds the keyspace and is joining it.
func (h *handle) joins() *keyspace.Keyspace {
	if cur := h.n.held(h.name); cur != nil && !cur.serves.Load() {
		return cur.ks
	}
	return nil
}

// Name implements client.Keyspace.
func (h *handle) Name() string { return h.name }

// Put implements client.Keyspace.
func (h *handle) Put(ctx context.Context, key string, value []byte, o *client.PutOptions) (client.Version, error) {
	var v client.Version
	err := h.write(ctx, func(ctx context.Context, ks client.Keyspace) (err error) {
		v, err = ks.Put(ctx, key, value, o)
		return err
	})
	return v, err
}

// Delete implements client.Keyspace.
func (h *handle) Delete(ctx context.Context, key string, o *client.DeleteOptions) (client.Deletion, error) {
	var d client.Deletion
	err := h.write(ctx, func(ctx context.Context, ks client.Keyspace) (err error) {
		d, err = ks.Delete(ctx, key, o)
		return err
	})
	return d, err
}

// write carries out a write at this node, or where it does not hold the keyspace
// at a member. While it joins it takes writes at once.
func (h *handle) write(ctx context.Context, op func(context.Context, client.Keyspace) error) error {
	if isSystem(h.name) {
		return checkUserKeyspace(h.name)
	}
	for range 3 { // a keyspace may be removed, and made again, under our hands
		cur := h.cur.Load()
		if cur == nil || cur.gone.Load() {
			if !h.n.wanted.wants(h.name) {
				return h.remote(ctx, forwardWrite, op)
			}
			var err error
			if cur, err = h.n.open(h.name); err != nil {
				return err
			}
			h.cur.Store(cur)
		}
		if cur.leaving.Load() {
			return fmt.Errorf("%w: this node is leaving keyspace %s", client.ErrUnavailable, h.name)
		}
		err := op(ctx, cur.ks)
		if !unreached(err) || !cur.gone.Load() {
			return err
		}
	}
	return fmt.Errorf("%w: keyspace %s is being removed again and again", client.ErrUnavailable, h.name)
}

// remote carries out op at a member, or says why that cannot be.
func (h *handle) remote(ctx context.Context, kind forwardKind, op func(context.Context, client.Keyspace) error) error {
	if h.member {
		if h.joins() != nil {
			return client.ErrJoining
		}
		return errNotHeld
	}
	return h.n.forward.do(ctx, h.name, kind, op)
}

// Get implements client.Keyspace.
func (h *handle) Get(ctx context.Context, key string, o *client.GetOptions) (client.Entry, error) {
	if cur := h.cur.Load(); cur != nil && cur.serves.Load() {
		return cur.ks.Get(ctx, key, o)
	}
	return h.get(ctx, key, o)
}

func (h *handle) get(ctx context.Context, key string, o *client.GetOptions) (e client.Entry, err error) {
	if ks := h.here(); ks != nil {
		return ks.Get(ctx, key, o)
	}
	if h.absent() {
		return e, client.ErrNotFound
	}
	kind := forwardQuick
	if o != nil && o.After != "" {
		kind = forwardLong // it may wait for what is on its way
	}
	err = h.remote(ctx, kind, func(ctx context.Context, ks client.Keyspace) (err error) {
		e, err = ks.Get(ctx, key, o)
		return err
	})
	if err == nil || !unreached(err) {
		return e, err
	}
	if ks := h.joins(); ks != nil && !h.member {
		// Nobody could tell. What is here already is better than nothing; what is
		// not may be at a member.
		if e, lerr := ks.Get(ctx, key, o); !errors.Is(lerr, client.ErrNotFound) {
			return e, lerr
		}
		err = joining(h.name, err)
	}
	return e, err
}

// absent reports whether the keyspace is this node's to hold and does not exist.
func (h *handle) absent() bool { return h.n.held(h.name) == nil && h.n.wanted.wants(h.name) }

func joining(name string, cause error) error {
	return fmt.Errorf("%w: keyspace %s is not here yet, and no member could be asked: %w", client.ErrJoining, name, cause)
}

// List implements client.Keyspace.
func (h *handle) List(ctx context.Context, prefix string, o *client.ListOptions) iter.Seq2[client.Entry, error] {
	if ks := h.here(); ks != nil {
		return ks.List(ctx, prefix, o)
	}
	if h.absent() {
		return func(func(client.Entry, error) bool) {}
	}
	var opts client.ListOptions
	if o != nil {
		opts = *o
	}
	return func(yield func(client.Entry, error) bool) {
		stopped := false
		err := h.remote(ctx, forwardLong, func(ctx context.Context, ks client.Keyspace) error {
			// Where a member fails in the middle, the next goes on from there.
			for e, err := range ks.List(ctx, prefix, &opts) {
				if err != nil {
					return err
				}
				if !yield(e, nil) {
					stopped = true
					return nil
				}
				opts.After = e.Key
				if opts.Limit > 0 {
					if opts.Limit--; opts.Limit == 0 {
						stopped = true
						return nil
					}
				}
			}
			return nil
		})
		if err == nil || stopped {
			return
		}
		if h.joins() != nil && unreached(err) {
			err = joining(h.name, err)
		}
		yield(client.Entry{}, err)
	}
}

// Info implements client.Keyspace. It describes this node's replica, if there is
// one, also while it joins.
func (h *handle) Info(ctx context.Context) (info client.KeyspaceInfo, err error) {
	if cur := h.n.held(h.name); cur != nil {
		info, err = cur.ks.Info(ctx)
		info.Members = h.n.memberNames(h.name)
		return info, err
	}
	if h.absent() {
		return info, fmt.Errorf("keyspace %s: %w", h.name, client.ErrNotFound)
	}
	err = h.remote(ctx, forwardQuick, func(ctx context.Context, ks client.Keyspace) (err error) {
		info, err = ks.Info(ctx)
		return err
	})
	return info, err
}

// emptyDigest is the digest, and the clock, of a keyspace without any write.
var emptyDigest = strings.Repeat("0", 24)

// Digest implements client.Keyspace, like Info.
func (h *handle) Digest(ctx context.Context) (d client.Digest, err error) {
	if cur := h.n.held(h.name); cur != nil {
		return cur.ks.Digest(ctx)
	}
	if h.absent() {
		return client.Digest{Keyspace: h.name, Digest: emptyDigest, Clock: emptyDigest}, nil
	}
	err = h.remote(ctx, forwardQuick, func(ctx context.Context, ks client.Keyspace) (err error) {
		d, err = ks.Digest(ctx)
		return err
	})
	return d, err
}

// Watch implements client.Keyspace. While this node joins, the watch shows what
// arrives; it says that it is synced when the keyspace has been joined.
func (h *handle) Watch(ctx context.Context, prefix string, o *client.WatchOptions) (client.Watch, error) {
	if h.member {
		return h.watch(ctx, prefix, o) // the node that forwards looks for another member
	}
	w := newSwitchWatch(h, prefix, o)
	// The first one now, so that a request that cannot be served is refused.
	if _, err := w.open(ctx); err != nil {
		return nil, err
	}
	return w, nil
}

// watch opens a watch where the keyspace is now. One that goes on from a cursor
// does not make the keyspace again after it was removed.
func (h *handle) watch(ctx context.Context, prefix string, o *client.WatchOptions) (client.Watch, error) {
	if !h.n.wanted.wants(h.name) {
		if h.member {
			return nil, errNotHeld
		}
		return h.n.forward.watch(ctx, h.name, prefix, o)
	}
	if o != nil && o.From != "" && h.n.held(h.name) == nil && h.n.catalog.removed(h.name) {
		return nil, errRemoved(h.name)
	}
	cur, err := h.n.open(h.name)
	if err != nil {
		return nil, err
	}
	h.cur.Store(cur)
	serves := cur.serves.Load()
	if h.member && !serves {
		return nil, client.ErrJoining
	}
	w, err := cur.ks.Watch(ctx, prefix, o)
	if err != nil {
		return nil, cur.ended(err)
	}
	if serves {
		return &heldWatch{w, cur}, nil
	}
	return &joiningWatch{Watch: &heldWatch{w, cur}, of: cur}, nil
}

// A heldWatch is a watch of a replica, which says why it ended.
type heldWatch struct {
	client.Watch
	of *holding
}

// Next implements client.Watch.
func (w *heldWatch) Next(ctx context.Context) (client.Event, error) {
	ev, err := w.Watch.Next(ctx)
	if err != nil {
		err = w.of.ended(err)
	}
	return ev, err
}

// ended is err, or why the keyspace is no longer here if that is the reason.
func (h *holding) ended(err error) error {
	switch {
	case !errors.Is(err, client.ErrDraining) || !h.gone.Load():
		return err
	case h.removed.Load():
		return errRemoved(h.id.Name)
	}
	return fmt.Errorf("%w: keyspace %s is no longer here", client.ErrUnavailable, h.id.Name)
}

func errRemoved(name string) error {
	return fmt.Errorf("%w: keyspace %s was removed", client.ErrNotFound, name)
}
