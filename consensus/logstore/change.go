package logstore

import (
	"encoding/binary"
	"fmt"
	"maps"

	"github.com/hashicorp/raft"
	"github.com/meshkv/meshkv/storage"
	bolt "go.etcd.io/bbolt"
)

// A change is what one call asks the writer for.
type change interface {
	// apply writes into the transaction. If the error is refused, nothing was
	// written, and it concerns this change alone.
	apply(t *transaction) error
	// publish shows readers what was committed.
	publish()
	// size is about how many bytes apply writes.
	size() int
}

// A refused error tells that a change was not made, while others may be.
type refused struct{ error }

func (r refused) Unwrap() error { return r.error }

func refuse(format string, args ...any) error { return refused{fmt.Errorf(format, args...)} }

// A transaction is one commit in the making.
type transaction struct {
	meta, groups, logs, removed *bolt.Bucket

	known map[string]*Group // of the store
	dirty map[*Group]struct{}
	trims []*trimming
	wrote bool // something, besides the records of dirty groups
}

// appending is StoreLogs.
type appending struct {
	group  *Group
	logs   []*raft.Log
	keys   []byte // one after the other
	values []byte // likewise
	after  span
}

func (c *appending) size() int { return len(c.keys) + len(c.values) }

func (c *appending) apply(t *transaction) error {
	held := &c.group.next.held
	first := c.logs[0].Index
	switch {
	case c.group.gone:
		return refused{ErrRemoved}
	case held.last != 0 && first != held.last+1:
		return refuse("%w: entry %d after %d", storage.ErrInvalid, first, held.last)
	}
	keys, values := c.keys, c.values
	for _, log := range c.logs {
		n := entrySize(log)
		if err := t.logs.Put(keys[:entryKeyBytes:entryKeyBytes], values[:n:n]); err != nil {
			return fmt.Errorf("put entry %d: %w", log.Index, err)
		}
		keys, values = keys[entryKeyBytes:], values[n:]
		held.last = log.Index
	}
	if held.first == 0 {
		held.first = first
	}
	c.after = *held
	t.dirty[c.group] = struct{}{}
	return nil
}

func (c *appending) publish() {
	g := c.group
	g.mu.Lock()
	defer g.mu.Unlock()
	g.held = c.after
	for _, log := range c.logs {
		g.newest.add(log)
	}
}

// trimming is one step of DeleteRange.
type trimming struct {
	group    *Group
	from, to uint64
	more     bool // entries of the range are left
	after    span
}

func (c *trimming) size() int { return trimStep * entryKeyBytes }

func (c *trimming) apply(t *transaction) error {
	if c.group.gone {
		return refused{ErrRemoved}
	}
	held := &c.group.next.held
	c.after = *held
	from, to := max(c.from, held.first), min(c.to, held.last)
	if *held == (span{}) || from > to {
		return nil
	}
	atFront := from == held.first
	if !atFront && to != held.last {
		return refuse("%w: deleting the entries %d to %d would leave a hole in %d to %d",
			storage.ErrInvalid, c.from, c.to, held.first, held.last)
	}
	for range trimStep {
		index := held.last
		if atFront {
			index = held.first
		}
		if err := t.logs.Delete(entryID{c.group.next.number, index}.appendKey(nil)); err != nil {
			return fmt.Errorf("delete entry %d: %w", index, err)
		}
		if atFront {
			held.first++
			from++
		} else {
			held.last--
			to--
		}
		if from > to {
			break
		}
	}
	if held.first > held.last {
		*held = span{}
	}
	c.more, c.after = from <= to, *held
	t.trims = append(t.trims, c)
	t.dirty[c.group] = struct{}{}
	return nil
}

// hide is called before the commit: else a reader who still sees an entry could
// find it missing in the file, and take that for damage.
func (c *trimming) hide() {
	g := c.group
	g.mu.Lock()
	defer g.mu.Unlock()
	g.held = g.held.both(c.after)
	g.newest.keep(g.held)
}

func (c *trimming) publish() {
	g := c.group
	g.mu.Lock()
	defer g.mu.Unlock()
	g.held = c.after // with what the same commit had appended before
	g.newest.keep(g.held)
}

// setting is Set.
type setting struct {
	group *Group
	key   string
	value []byte
	after map[string][]byte
}

func (c *setting) size() int { return len(c.key) + len(c.value) }

func (c *setting) apply(t *transaction) error {
	next := &c.group.next
	if c.group.gone {
		return refused{ErrRemoved}
	}
	if _, known := next.stable[c.key]; !known && len(next.stable) == maxStableKeys {
		return refuse("%w: more than %d stable keys", storage.ErrInvalid, maxStableKeys)
	}
	next.stable = maps.Clone(next.stable) // readers have the old one
	next.stable[c.key] = c.value
	c.after = next.stable
	t.dirty[c.group] = struct{}{}
	return nil
}

func (c *setting) publish() {
	c.group.mu.Lock()
	defer c.group.mu.Unlock()
	c.group.stable = c.after
}

// adopting is Store.Group: it makes the group if there is none.
type adopting struct {
	store *Store
	name  string
	group *Group // the result
}

func (c *adopting) size() int { return len(c.name) }

func (c *adopting) apply(t *transaction) error {
	if c.group = t.known[c.name]; c.group != nil {
		return nil
	}
	if len(t.known) == maxGroups {
		return refuse("%w: more than %d groups", storage.ErrInvalid, maxGroups)
	}
	number, err := readNext(t.meta)
	if err != nil {
		return err
	}
	if err := putNext(t.meta, number+1); err != nil {
		return err
	}
	c.group = c.store.newGroup(c.name, record{number: number, stable: map[string][]byte{}})
	t.known[c.name] = c.group
	t.dirty[c.group] = struct{}{}
	return nil
}

func (c *adopting) publish() {}

// retiring is the first step of Store.Remove: the group is gone at once.
type retiring struct {
	name  string
	group *Group // nil if there is none
}

func (c *retiring) size() int { return len(c.name) }

func (c *retiring) apply(t *transaction) error {
	if c.group = t.known[c.name]; c.group == nil {
		return nil
	}
	delete(t.known, c.name)
	delete(t.dirty, c.group)
	c.group.gone, t.wrote = true, true
	if err := t.groups.Delete([]byte(c.name)); err != nil {
		return fmt.Errorf("delete group: %w", err)
	}
	return t.removed.Put(numberKey(c.group.next.number), nil)
}

func (c *retiring) publish() {
	g := c.group
	if g == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.removed, g.held, g.stable = true, span{}, nil
	g.newest.keep(span{})
}

// sweeping is a later step of Store.Remove: some of the entries of a removed group
// are deleted.
type sweeping struct {
	number uint32
	more   bool
}

func (c *sweeping) size() int { return trimStep * entryKeyBytes }

func (c *sweeping) apply(t *transaction) error {
	t.wrote = true
	var keys [][]byte
	cursor := t.logs.Cursor()
	for k, _ := cursor.Seek(numberKey(c.number)); k != nil && binary.BigEndian.Uint32(k) == c.number; k, _ = cursor.Next() {
		if len(keys) == trimStep {
			c.more = true
			break
		}
		keys = append(keys, k)
	}
	for _, k := range keys {
		if err := t.logs.Delete(k); err != nil {
			return fmt.Errorf("delete entry of a removed group: %w", err)
		}
	}
	if c.more {
		return nil
	}
	return t.removed.Delete(numberKey(c.number))
}

func (c *sweeping) publish() {}
