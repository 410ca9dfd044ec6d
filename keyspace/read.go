package keyspace

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/crdt"
)

// Get implements client.Keyspace. It takes no lock and allocates nothing,
// unless siblings or a token are asked for.
func (k *Keyspace) Get(ctx context.Context, key string, o *client.GetOptions) (client.Entry, error) {
	if len(key) == 0 || len(key) > crdt.MaxKeyBytes {
		return client.Entry{}, checkKey(key)
	}
	if o != nil {
		if o.Linearizable {
			return client.Entry{}, fmt.Errorf("%w: %s is eventual and has no linearizable reads", client.ErrNeedsStrong, k.name)
		}
		if o.After != "" {
			if err := k.waitFor(ctx, o.After); err != nil {
				return client.Entry{}, err
			}
		}
		if o.Siblings {
			return k.getSiblings(key)
		}
	}
	c := k.index.top(key)
	if c == nil {
		return client.Entry{}, client.ErrNotFound
	}
	if !lives(c) && !k.visible(c, time.Now().UnixMilli()) {
		if c = k.visibleSibling(key); c == nil {
			return client.Entry{}, client.ErrNotFound
		}
	}
	return k.entry(c), nil
}

// visible decides by the clock and the owner's state at this moment.
func (k *Keyspace) visible(c *crdt.Cell, nowMs int64) bool {
	if lives(c) {
		return true
	}
	owner := crdt.OwnerAlive
	if c.Ephemeral() {
		owner = k.env.Owners.Get(c.Dot.Inc).State
	}
	return crdt.Visible(c, nowMs, owner) == crdt.Shown
}

func (k *Keyspace) visibleSibling(key string) *crdt.Cell {
	now := time.Now().UnixMilli()
	for _, c := range k.index.all(key) {
		if k.visible(c, now) {
			return c
		}
	}
	return nil
}

func (k *Keyspace) getSiblings(key string) (client.Entry, error) {
	now := time.Now().UnixMilli()
	cells := slices.DeleteFunc(k.index.all(key), func(c *crdt.Cell) bool { return !k.visible(c, now) })
	if len(cells) == 0 {
		return client.Entry{}, client.ErrNotFound
	}
	e := k.entry(cells[0])
	for _, c := range cells[1:] {
		s := k.entry(c)
		e.Siblings = append(e.Siblings, client.Sibling{Value: s.Value, Version: s.Version, Origin: s.Origin, Modified: s.Modified})
	}
	return e, nil
}

// entry is a cell as users see it.
func (k *Keyspace) entry(c *crdt.Cell) client.Entry {
	e := client.Entry{
		Key:       c.Key,
		Value:     c.Value,
		Version:   client.Version{Inc: uint64(c.Dot.Inc), Seq: c.Dot.Seq},
		Origin:    k.env.Owners.Name(c.Dot.Inc),
		Modified:  time.UnixMilli(c.HLC.WallMs()),
		Ephemeral: c.Ephemeral(),
	}
	if c.Expires != 0 {
		e.Expires = time.UnixMilli(c.Expires)
	}
	return e
}

// waitFor blocks until the write named by the token is known here.
func (k *Keyspace) waitFor(ctx context.Context, token client.Token) error {
	v, err := client.ParseVersion(string(token))
	if err != nil || v.Inc == 0 {
		return fmt.Errorf("%w: token %q is not one that this keyspace gave", client.ErrBadRequest, token)
	}
	d := crdt.Dot{Inc: crdt.Inc(v.Inc), Seq: v.Seq}
	for {
		k.mu.Lock()
		if k.done {
			k.mu.Unlock()
			return client.ErrDraining
		}
		if k.rep.Replica().Clock().Contains(d) {
			k.mu.Unlock()
			return nil
		}
		changed := k.awaitChange()
		k.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%w: waited for %s", client.ErrNotCaughtUp, token)
		}
	}
}

// List implements client.Keyspace.
func (k *Keyspace) List(ctx context.Context, prefix string, o *client.ListOptions) iter.Seq2[client.Entry, error] {
	var opts client.ListOptions
	if o != nil {
		opts = *o
	}
	return func(yield func(client.Entry, error) bool) {
		if opts.Limit < 0 {
			yield(client.Entry{}, fmt.Errorf("%w: a limit cannot be negative, this one is %d", client.ErrBadRequest, opts.Limit))
			return
		}
		page := make([]*crdt.Cell, 0, pageKeys)
		next, more, n := prefix, true, 0
		if opts.After >= prefix && opts.After != "" {
			next = opts.After + "\x00"
		}
		for more {
			if err := ctx.Err(); err != nil {
				yield(client.Entry{}, err)
				return
			}
			now := time.Now().UnixMilli()
			k.mu.Lock()
			page, next, more = k.page(page[:0], prefix, next, func(key string) *crdt.Cell {
				if c := k.index.top(key); lives(c) || k.visible(c, now) {
					return c
				}
				return k.visibleSibling(key)
			})
			k.mu.Unlock()
			for _, c := range page {
				e := k.entry(c)
				if opts.KeysOnly {
					e.Value = nil
				}
				if !yield(e, nil) {
					return
				}
				if n++; n == opts.Limit {
					return
				}
			}
		}
	}
}

// page appends what the next keys from `from` under prefix show, to cells, and
// says from where to go on, if there is more. Called with k.mu held.
func (k *Keyspace) page(cells []*crdt.Cell, prefix, from string, show func(key string) *crdt.Cell) (_ []*crdt.Cell, next string, more bool) {
	n := 0
	k.index.keys.Ascend(from, func(key string, _ struct{}) bool {
		if !strings.HasPrefix(key, prefix) {
			return false
		}
		if n++; n > pageKeys {
			next, more = key, true
			return false
		}
		if c := show(key); c != nil {
			cells = append(cells, c)
		}
		return true
	})
	return cells, next, more
}
