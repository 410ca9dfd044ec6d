package client

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/meshkv/meshkv/client/wire"
)

// do carries out a request: it waits for a connection, and asks again over
// another one where that does no harm.
func (c *Client) do(ctx context.Context, r *wire.Request) (wire.Reply, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.opts.Timeout)
		defer cancel()
	}
	write := false
	switch r.Type {
	case wire.Put, wire.Delete, wire.Update, wire.Leave, wire.ForceLeave:
		write = true
	}
	return c.carryOut(ctx, r, write)
}

// carryOut is do for a request of which is known whether it changes something. ctx
// has a deadline.
func (c *Client) carryOut(ctx context.Context, r *wire.Request, write bool) (wire.Reply, error) {
	for {
		if err := ctx.Err(); err != nil {
			return wire.Reply{}, ended(err)
		}
		cn, err := c.await(ctx)
		if err != nil {
			return wire.Reply{}, err
		}
		if deadline, ok := ctx.Deadline(); ok {
			r.Timeout = max(time.Until(deadline), time.Microsecond)
		}
		reply, sent, err := cn.call(ctx, r)
		switch {
		case err == nil && reply.Type == wire.Error:
			return reply, remoteError(&reply)
		case err == nil:
			return reply, nil
		case errors.Is(err, errNotSent), errors.Is(err, errLost):
			c.discard(cn)
			if c.isClosed() {
				err = ErrClosed
			} else if !sent || !write {
				continue
			}
			if sent && write {
				return reply, fmt.Errorf("%w: %w", ErrUnknownOutcome, err)
			}
			return reply, err
		case sent && write:
			return reply, fmt.Errorf("%w: %w", ErrUnknownOutcome, ended(err))
		default:
			return reply, ended(err)
		}
	}
}

// ended is the error of a call whose context ended.
func ended(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%w: %w", ErrTimeout, err)
	}
	return err
}

// ask carries out a request that is answered by a document.
func ask[T any](ctx context.Context, c *Client, r *wire.Request) (T, error) {
	var v T
	reply, err := c.do(ctx, r)
	if err != nil {
		return v, err
	}
	return v, unmarshalDocument(reply.Body, &v)
}

func unmarshalDocument(body []byte, v any) error {
	if err := msgpack.Unmarshal(body, v); err != nil {
		return fmt.Errorf("malformed answer: %w", err)
	}
	return nil
}

// Keyspace implements Cluster. It asks the node nothing.
func (c *Client) Keyspace(_ context.Context, name string) (Keyspace, error) {
	if !validName(name) {
		return nil, errName(name)
	}
	if c.isClosed() {
		return nil, ErrClosed
	}
	return &remoteKeyspace{c: c, name: name}, nil
}

func errName(name string) error {
	return fmt.Errorf("%w: keyspace %q is not [a-z0-9][a-z0-9._-]{0,62}, nor one of the system", ErrBadRequest, name)
}

func validName(name string) bool {
	switch name {
	case "_keyspaces", "_members", "_seals", "_strong": // of the system, for reading
		return true
	}
	if len(name) == 0 || len(name) > 63 {
		return false
	}
	for i := range len(name) {
		switch b := name[i]; {
		case b >= 'a' && b <= 'z', b >= '0' && b <= '9':
		case i > 0 && (b == '.' || b == '_' || b == '-'):
		default:
			return false
		}
	}
	return true
}

// Keyspaces implements Cluster.
func (c *Client) Keyspaces(ctx context.Context) ([]KeyspaceInfo, error) {
	return ask[[]KeyspaceInfo](ctx, c, &wire.Request{Type: wire.Keyspaces})
}

// Members implements Cluster.
func (c *Client) Members(ctx context.Context) ([]Member, error) {
	return ask[[]Member](ctx, c, &wire.Request{Type: wire.Members})
}

// Status implements Cluster.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return ask[Status](ctx, c, &wire.Request{Type: wire.Status})
}

// Leave implements Cluster.
func (c *Client) Leave(ctx context.Context) error {
	_, err := c.do(ctx, &wire.Request{Type: wire.Leave})
	return err
}

// ForceLeave implements Cluster.
func (c *Client) ForceLeave(ctx context.Context, name string) error {
	if len(name) == 0 || len(name) > 128 {
		return fmt.Errorf("%w: a member's name has 1 to 128 bytes, this one has %d", ErrBadRequest, len(name))
	}
	_, err := c.do(ctx, &wire.Request{Type: wire.ForceLeave, Key: name})
	return err
}

type remoteKeyspace struct {
	c    *Client
	name string
}

// Name implements Keyspace.
func (k *remoteKeyspace) Name() string { return k.name }

// Put implements Keyspace.
func (k *remoteKeyspace) Put(ctx context.Context, key string, value []byte, o *PutOptions) (Version, error) {
	r := wire.Request{Type: wire.Put, Keyspace: k.name, Key: key, Value: value}
	if err := k.checkSize(&r); err != nil {
		return Version{}, err
	}
	if o != nil {
		r.TTL = o.TTL
		r.IfVersion = wire.Version{Inc: o.IfVersion.Inc, Seq: o.IfVersion.Seq}
		r.Session = uint64(o.Session)
		r.Acks = acksNumber(o.Acks)
		r.Flags = flag(o.Ephemeral, wire.Ephemeral) | flag(o.Durable, wire.Durable) | flag(o.IfAbsent, wire.IfAbsent)
	}
	reply, err := k.c.do(ctx, &r)
	if err != nil {
		return Version{}, err
	}
	return versionOf(reply.Version), nil
}

// checkSize refuses what does not fit into a frame. The node has lower limits
// and tells them.
func (k *remoteKeyspace) checkSize(r *wire.Request) error {
	if n := len(r.Key) + len(r.Value) + len(r.After) + len(r.Keyspace); n > wire.MaxRequest-1024 {
		return fmt.Errorf("%w: a request of %d bytes", ErrTooLarge, n)
	}
	return nil
}

func flag(on bool, f wire.Flags) wire.Flags {
	if on {
		return f
	}
	return 0
}

// Get implements Keyspace.
func (k *remoteKeyspace) Get(ctx context.Context, key string, o *GetOptions) (Entry, error) {
	r := wire.Request{Type: wire.Get, Keyspace: k.name, Key: key}
	if o != nil {
		r.After = string(o.After)
		r.Flags = flag(o.Linearizable, wire.Linearizable) | flag(o.Siblings, wire.WithSiblings) | flag(o.Local, wire.Local)
		r.Revision = o.Revision
	}
	if err := k.checkSize(&r); err != nil {
		return Entry{}, err
	}
	reply, err := k.c.do(ctx, &r)
	if err != nil {
		return Entry{}, notCaughtUp(r.After, err)
	}
	return entryOf(&reply.Entry), nil
}

// Delete implements Keyspace.
func (k *remoteKeyspace) Delete(ctx context.Context, key string, o *DeleteOptions) (Deletion, error) {
	r := wire.Request{Type: wire.Delete, Keyspace: k.name, Key: key}
	if o != nil {
		r.Flags = flag(o.Durable, wire.Durable)
		r.Acks = acksNumber(o.Acks)
		r.IfVersion = wire.Version{Inc: o.IfVersion.Inc, Seq: o.IfVersion.Seq}
	}
	if err := k.checkSize(&r); err != nil {
		return Deletion{}, err
	}
	reply, err := k.c.do(ctx, &r)
	if err != nil {
		return Deletion{}, err
	}
	return Deletion{Deleted: reply.Deleted, Version: versionOf(reply.Version)}, nil
}

// List implements Keyspace. It reads page by page; the Timeout of DialOptions
// holds for each.
func (k *remoteKeyspace) List(ctx context.Context, prefix string, o *ListOptions) iter.Seq2[Entry, error] {
	var opts ListOptions
	if o != nil {
		opts = *o
	}
	return func(yield func(Entry, error) bool) {
		if opts.Limit < 0 {
			yield(Entry{}, fmt.Errorf("%w: a limit cannot be negative, this one is %d", ErrBadRequest, opts.Limit))
			return
		}
		r := wire.Request{Type: wire.List, Keyspace: k.name, Key: prefix, After: opts.After,
			Limit: uint64(opts.Limit), Flags: flag(opts.KeysOnly, wire.KeysOnly) | flag(opts.Local, wire.Local), Revision: opts.Revision}
		if err := k.checkSize(&r); err != nil {
			yield(Entry{}, err)
			return
		}
		for {
			reply, err := k.c.do(ctx, &r)
			if err != nil {
				yield(Entry{}, err)
				return
			}
			for i := range reply.Entries {
				if !yield(entryOf(&reply.Entries[i]), nil) {
					return
				}
			}
			n := len(reply.Entries)
			if !reply.More || n == 0 {
				return
			}
			r.After = reply.Entries[n-1].Key
			if r.Limit > 0 {
				if r.Limit -= min(r.Limit, uint64(n)); r.Limit == 0 {
					return
				}
			}
		}
	}
}

// Info implements Keyspace.
func (k *remoteKeyspace) Info(ctx context.Context) (KeyspaceInfo, error) {
	return ask[KeyspaceInfo](ctx, k.c, &wire.Request{Type: wire.Info, Keyspace: k.name})
}

// Digest implements Keyspace.
func (k *remoteKeyspace) Digest(ctx context.Context) (Digest, error) {
	return ask[Digest](ctx, k.c, &wire.Request{Type: wire.Digest, Keyspace: k.name})
}
