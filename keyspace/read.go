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
//
// The plain case is written out to be short: with fewer instructions between
// them, the processor overlaps the cache misses of one read with those of the
// next, which at a million random keys makes a factor of two.
func (k *Keyspace) Get(ctx context.Context, key string, o *client.GetOptions) (e client.Entry, err error) {
	if o != nil {
		return k.getWith(ctx, key, o)
	}
	c := k.index.newest.Load(key)
	if c == nil || !lives(c) || c.Kind != crdt.KindRegister {
		return k.getHidden(key, c)
	}
	e.Key, e.Value = c.Key, c.Value
	e.Version.Inc, e.Version.Seq = uint64(c.Dot.Inc), c.Dot.Seq
	e.Modified = time.UnixMilli(c.HLC.WallMs())
	if l := k.env.Owners.last.Load(); l != nil && l.inc == c.Dot.Inc {
		e.Origin = l.name
	} else if k.origin == 0 {
		e.Origin = k.env.Owners.Name(c.Dot.Inc)
	} else {
		return k.entry(c), nil
	}
	return e, nil
}

// getHidden answers for a key whose newest cell c may be hidden, or absent.
func (k *Keyspace) getHidden(key string, c *crdt.Cell) (client.Entry, error) {
	if err := checkKey(key); err != nil {
		return client.Entry{}, err
	}
	if c != nil && !k.visible(c, time.Now().UnixMilli()) {
		c = k.visibleSibling(key)
	}
	switch {
	case c == nil:
		return client.Entry{}, client.ErrNotFound
	case c.Kind != crdt.KindRegister:
		return client.Entry{}, wrongType(c.Kind)
	}
	return k.entry(c), nil
}

// getWith is Get with options.
func (k *Keyspace) getWith(ctx context.Context, key string, o *client.GetOptions) (client.Entry, error) {
	if err := checkKey(key); err != nil {
		return client.Entry{}, err
	}
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
	return k.getHidden(key, k.index.top(key))
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

func (k *Keyspace) visibleSibling(key string) (found *crdt.Cell) {
	now := time.Now().UnixMilli()
	k.index.Descend(key, func(c *crdt.Cell) bool {
		if k.visible(c, now) {
			found = c
		}
		return found == nil
	})
	return found
}

func (k *Keyspace) getSiblings(key string) (client.Entry, error) {
	if c := k.visibleSibling(key); c != nil && c.Kind != crdt.KindRegister { // which may have very many cells
		return client.Entry{}, wrongType(c.Kind)
	}
	now := time.Now().UnixMilli()
	cells := slices.DeleteFunc(k.index.all(key), func(c *crdt.Cell) bool { return !k.visible(c, now) })
	if len(cells) == 0 {
		return client.Entry{}, client.ErrNotFound
	}
	if kind := cells[0].Kind; kind != crdt.KindRegister {
		return client.Entry{}, wrongType(kind)
	}
	e := k.entry(cells[0])
	for _, c := range cells[1:] {
		if c.Kind != crdt.KindRegister { // a concurrent creation as another type
			continue
		}
		s := k.entry(c)
		e.Siblings = append(e.Siblings, client.Sibling{Value: s.Value, Version: s.Version, Origin: s.Origin, Modified: s.Modified})
	}
	return e, nil
}

// entry is a register, or a summary, as users see it.
func (k *Keyspace) entry(c *crdt.Cell) client.Entry {
	if c.Kind != crdt.KindRegister {
		return k.typedEntry(c)
	}
	e := client.Entry{
		Key:       c.Key,
		Value:     c.Value,
		Version:   client.Version{Inc: uint64(c.Dot.Inc), Seq: c.Dot.Seq},
		Origin:    k.writerName(c.Dot.Inc),
		Modified:  time.UnixMilli(c.HLC.WallMs()),
		Ephemeral: c.Ephemeral(),
	}
	if c.Expires != 0 {
		e.Expires = time.UnixMilli(c.Expires)
	}
	if k.origin != 0 {
		e.Version = strongVersion(c)
	}
	return e
}

// writerName is who wrote what inc did, for users: a node, or the strong keyspace of
// which this is a mirror.
func (k *Keyspace) writerName(inc crdt.Inc) string {
	if inc == k.origin && inc != 0 {
		return k.strongName()
	}
	return k.env.Owners.Name(inc)
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
					return k.summaryOf(c)
				}
				return k.summaryOf(k.visibleSibling(key))
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
	k.index.keys.Ascend(from, func(c *crdt.Cell) bool {
		key := c.Key
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
