package node

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/meshkv/meshkv/client"
)

// A strongSpace is a strong keyspace as this node serves it: from its own replica, or by a node
// that has one. It implements client.Keyspace.
type strongSpace struct {
	n      *Node
	name   string
	member bool // it serves other nodes, which chose this one: it forwards nothing
}

var _ client.Keyspace = strongSpace{}

// Name implements client.Keyspace.
func (s strongSpace) Name() string { return s.name }

// do carries out op at this node's replica or at another's.
func (s strongSpace) do(ctx context.Context, kind forwardKind, op func(context.Context, client.Keyspace) error) error {
	if local, ok := s.n.strongs.local(s.name); ok {
		return op(ctx, local)
	}
	if err := s.elsewhere(); err != nil {
		return err
	}
	return s.n.forward.do(ctx, s.name, kind, op)
}

// elsewhere is why the keyspace cannot be served by another node, or nil.
func (s strongSpace) elsewhere() error {
	switch {
	case s.member:
		return errNotHeld
	case !s.n.strongs.is(s.name):
		return fmt.Errorf("%w: strong keyspace %s", client.ErrNotFound, s.name)
	}
	return nil
}

// copy is the mirror, where this node has no replica and it can be read.
func (s strongSpace) copy() (client.Keyspace, bool) {
	if _, ok := s.n.strongs.local(s.name); ok {
		return nil, false
	}
	return s.n.mirror(s.name)
}

// Put implements client.Keyspace.
func (s strongSpace) Put(ctx context.Context, key string, value []byte, o *client.PutOptions) (v client.Version, err error) {
	err = s.do(ctx, forwardWrite, func(ctx context.Context, ks client.Keyspace) (err error) {
		v, err = ks.Put(ctx, key, value, o)
		return err
	})
	return v, err
}

// Delete implements client.Keyspace.
func (s strongSpace) Delete(ctx context.Context, key string, o *client.DeleteOptions) (d client.Deletion, err error) {
	err = s.do(ctx, forwardWrite, func(ctx context.Context, ks client.Keyspace) (err error) {
		d, err = ks.Delete(ctx, key, o)
		return err
	})
	return d, err
}

// Get implements client.Keyspace.
func (s strongSpace) Get(ctx context.Context, key string, o *client.GetOptions) (e client.Entry, err error) {
	if o != nil && o.Local && !o.Linearizable && o.Revision == 0 && o.After == "" {
		if mirror, ok := s.copy(); ok {
			return mirror.Get(ctx, key, o)
		}
	}
	err = s.do(ctx, forwardLong, func(ctx context.Context, ks client.Keyspace) (err error) {
		e, err = ks.Get(ctx, key, o)
		return err
	})
	return e, err
}

// List implements client.Keyspace. All entries are of one revision, even if another node goes on.
func (s strongSpace) List(ctx context.Context, prefix string, o *client.ListOptions) iter.Seq2[client.Entry, error] {
	if local, ok := s.n.strongs.local(s.name); ok {
		return local.List(ctx, prefix, o)
	}
	if o != nil && o.Local && o.Revision == 0 {
		if mirror, ok := s.copy(); ok {
			return mirror.List(ctx, prefix, o)
		}
	}
	return func(yield func(client.Entry, error) bool) {
		if err := s.elsewhere(); err != nil {
			yield(client.Entry{}, err)
			return
		}
		began := false
		err := s.n.forward.do(ctx, s.name, forwardLong, func(ctx context.Context, ks client.Keyspace) error {
			if began {
				return errListCut
			}
			for e, err := range ks.List(ctx, prefix, o) {
				if err != nil {
					return err
				}
				began = true
				if !yield(e, nil) {
					return errListEnded
				}
			}
			return nil
		})
		if err != nil && !errors.Is(err, errListEnded) {
			yield(client.Entry{}, err)
		}
	}
}

var (
	errListEnded = errors.New("its reader has enough")
	errListCut   = fmt.Errorf("%w: the node that listed the keyspace is gone: list again", client.ErrNotFound)
)

// Watch implements client.Keyspace.
func (s strongSpace) Watch(ctx context.Context, prefix string, o *client.WatchOptions) (client.Watch, error) {
	if s.member { // the node that forwards looks for another one
		return s.watch(ctx, prefix, o)
	}
	open := func(ctx context.Context, o *client.WatchOptions) (client.Watch, error) {
		return s.watch(ctx, prefix, o)
	}
	return newStrongWatch(ctx, open, o)
}

// watch opens a watch where the keyspace is served now.
func (s strongSpace) watch(ctx context.Context, prefix string, o *client.WatchOptions) (client.Watch, error) {
	if local, ok := s.n.strongs.local(s.name); ok {
		return local.Watch(ctx, prefix, o)
	}
	if err := s.elsewhere(); err != nil {
		return nil, err
	}
	return s.n.forward.watch(ctx, s.name, prefix, o)
}

// Info implements client.Keyspace.
func (s strongSpace) Info(ctx context.Context) (info client.KeyspaceInfo, err error) {
	err = s.do(ctx, forwardQuick, func(ctx context.Context, ks client.Keyspace) (err error) {
		info, err = ks.Info(ctx)
		return err
	})
	if e, ok := s.n.strongs.entries.Load(s.name); ok && err == nil {
		info.Members = nil
		for _, m := range e.Keyspace.Members {
			info.Members = append(info.Members, m.Server)
		}
	}
	return info, err
}

// Digest implements client.Keyspace.
func (s strongSpace) Digest(ctx context.Context) (d client.Digest, err error) {
	err = s.do(ctx, forwardQuick, func(ctx context.Context, ks client.Keyspace) (err error) {
		d, err = ks.Digest(ctx)
		return err
	})
	return d, err
}

// call carries out a primitive call.
func (s strongSpace) call(ctx context.Context, c *client.StrongCall) (reply client.StrongReply, err error) {
	if local, ok := s.n.strongs.local(s.name); ok {
		return local.Call(ctx, c)
	}
	if err := s.elsewhere(); err != nil {
		return client.StrongReply{}, err
	}
	kind := forwardLong
	if c.Changes() {
		kind = forwardWrite
	}
	err = s.n.forward.try(ctx, s.name, kind, func(ctx context.Context, fc *forwarded) (err error) {
		reply, err = fc.client.StrongCall(ctx, s.name, c)
		return err
	})
	return reply, err
}

// Strong implements client.Cluster. The handle is the node's: its default session ends with it.
func (n *Node) Strong(_ context.Context, name string) (client.Strong, error) {
	if err := checkKeyspaceName(name); err != nil {
		return nil, err
	}
	s := n.strongs
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, client.ErrDraining
	}
	h := s.handles[name]
	if h == nil {
		h = client.NewStrong(n, strongSpace{n: n, name: name})
		s.handles[name] = h
	}
	return h, nil
}

// StrongCall implements client.StrongCaller.
func (n *Node) StrongCall(ctx context.Context, keyspace string, c *client.StrongCall) (client.StrongReply, error) {
	return n.strongCall(ctx, keyspace, c, false)
}

func (n *Node) strongCall(ctx context.Context, keyspace string, c *client.StrongCall, member bool) (client.StrongReply, error) {
	if err := checkKeyspaceName(keyspace); err != nil {
		return client.StrongReply{}, err
	}
	if !n.strongs.is(keyspace) && !member {
		if n.held(keyspace) != nil {
			return client.StrongReply{}, fmt.Errorf("%w: %s is eventual: transactions, sessions, locks and elections need a keyspace that was created with mode strong", client.ErrNeedsStrong, keyspace)
		}
		return client.StrongReply{}, fmt.Errorf("%w: strong keyspace %s: create it with mode strong", client.ErrNotFound, keyspace)
	}
	return strongSpace{n, keyspace, member}.call(ctx, c)
}

// IsStrong implements api.StrongBackend.
func (n *Node) IsStrong(keyspace string) bool { return n.strongs.is(keyspace) }

// StrongCall implements client.StrongCaller.
func (b backend) StrongCall(ctx context.Context, keyspace string, c *client.StrongCall) (client.StrongReply, error) {
	return b.strongCall(ctx, keyspace, c, b.member)
}
