package logstore

import (
	"fmt"
	"maps"

	"github.com/hashicorp/raft"
	"github.com/meshkv/meshkv/storage"
)

// A change is what one call asks the writer for.
type change interface {
	// apply adds its records to the transaction. If it returns an error, it has
	// added nothing, and the error concerns this change alone.
	apply(t *transaction) error
	// publish shows readers what was committed.
	publish(t *transaction)
	// size is how many bytes apply adds at most.
	size() int64
}

// A transaction is one commit in the making.
type transaction struct {
	store   *Store
	segment uint32 // where the frame will be
	offset  int64
	frame   []byte // room for a head, and the records so far
}

func (t *transaction) add(r record) { t.frame = appendRecord(t.frame, r) }

// here is the place of a value of n bytes that is at the given offset of the frame.
func (t *transaction) here(offset, n int) place {
	return place{t.segment, uint32(t.offset + int64(offset)), uint32(n)}
}

// appending is StoreLogs.
type appending struct {
	group  *Group
	logs   []*raft.Log
	record []byte // encoded by the caller, so that the groups do it in parallel
	offset int    // of record in the frame
	after  span
}

func (c *appending) size() int64 { return int64(len(c.record)) }

func (c *appending) apply(t *transaction) error {
	held := &c.group.next.held
	first := c.logs[0].Index
	switch {
	case c.group.gone:
		return ErrRemoved
	case held.last != 0 && first != held.last+1:
		return fmt.Errorf("%w: entry %d after %d", storage.ErrInvalid, first, held.last)
	}
	c.offset = len(t.frame)
	t.frame = append(t.frame, c.record...)
	if held.first == 0 {
		held.first = first
	}
	held.last = c.logs[len(c.logs)-1].Index
	c.after = *held
	return nil
}

func (c *appending) publish(t *transaction) {
	g := c.group
	g.mu.Lock()
	defer g.mu.Unlock()
	g.held = c.after
	at := c.offset + runHeadBytes + lengthBytes
	for _, log := range c.logs {
		n := entrySize(log)
		g.places = append(g.places, t.here(at, n))
		at += n + lengthBytes
		g.newest.add(log)
	}
	t.store.current.live.Add(int64(len(c.record) - runHeadBytes))
}

// trimming is DeleteRange.
type trimming struct {
	group    *Group
	from, to uint64
	after    span
}

func (c *trimming) size() int64 { return 1 + 4 + 2*8 }

func (c *trimming) apply(t *transaction) error {
	if c.group.gone {
		return ErrRemoved
	}
	held := &c.group.next.held
	c.after = *held
	from, to := max(c.from, held.first), min(c.to, held.last)
	switch {
	case *held == span{} || from > to:
		return nil
	case from == held.first && to == held.last:
		c.after = span{}
	case from == held.first:
		c.after.first = to + 1
	case to == held.last:
		c.after.last = from - 1
	default:
		return fmt.Errorf("%w: deleting the entries %d to %d would leave a hole in %d to %d",
			storage.ErrInvalid, c.from, c.to, held.first, held.last)
	}
	*held = c.after
	t.add(record{kind: recordSpan, number: c.group.next.number, held: c.after})
	return nil
}

func (c *trimming) publish(t *transaction) {
	g := c.group
	var released places
	g.mu.Lock()
	if g.held != c.after {
		g.places, released = g.places.cut(g.held, c.after)
		g.held = c.after
		g.newest.keep(g.held)
	}
	g.mu.Unlock()
	t.store.release(released)
}

// setting is Set.
type setting struct {
	group *Group
	key   string
	value []byte
	after map[string][]byte
}

func (c *setting) size() int64 { return int64(1 + 4 + pairHeadBytes + len(c.key) + len(c.value)) }

func (c *setting) apply(t *transaction) error {
	next := &c.group.next
	if c.group.gone {
		return ErrRemoved
	}
	if _, known := next.stable[c.key]; !known && len(next.stable) == maxStableKeys {
		return fmt.Errorf("%w: more than %d stable keys", storage.ErrInvalid, maxStableKeys)
	}
	next.stable = maps.Clone(next.stable) // readers have the old one
	next.stable[c.key] = c.value
	c.after = next.stable
	t.add(record{kind: recordSet, number: next.number, key: c.key, value: c.value})
	return nil
}

func (c *setting) publish(*transaction) {
	c.group.mu.Lock()
	defer c.group.mu.Unlock()
	c.group.stable = c.after
}

// adopting is Store.Group: it makes the group if there is none.
type adopting struct {
	name  string
	group *Group // the result
}

func (c *adopting) size() int64 { return int64(1 + 4 + 1 + len(c.name)) }

func (c *adopting) apply(t *transaction) error {
	s := t.store
	if c.group = s.known[c.name]; c.group != nil {
		return nil
	}
	if len(s.known) == maxGroups {
		return fmt.Errorf("%w: more than %d groups", storage.ErrInvalid, maxGroups)
	}
	c.group = s.newGroup(groupState{number: s.next, name: c.name, stable: map[string][]byte{}})
	s.next++
	s.known[c.name] = c.group
	t.add(record{kind: recordAdopt, number: c.group.next.number, name: c.name})
	return nil
}

func (c *adopting) publish(t *transaction) {
	t.store.mu.Lock()
	defer t.store.mu.Unlock()
	if !c.group.gone { // by the same commit
		t.store.numbers[c.group.next.number] = c.group
	}
}

// retiring is Store.Remove.
type retiring struct {
	name  string
	group *Group // nil if there is none
}

func (c *retiring) size() int64 { return 1 + 4 }

func (c *retiring) apply(t *transaction) error {
	if c.group = t.store.known[c.name]; c.group == nil {
		return nil
	}
	delete(t.store.known, c.name)
	c.group.gone = true
	t.add(record{kind: recordRetire, number: c.group.next.number})
	return nil
}

func (c *retiring) publish(t *transaction) {
	g := c.group
	if g == nil {
		return
	}
	g.mu.Lock()
	released := g.places
	g.removed, g.held, g.stable, g.places = true, span{}, nil, nil
	g.newest.keep(span{})
	g.mu.Unlock()
	t.store.release(released)
	t.store.mu.Lock()
	defer t.store.mu.Unlock()
	delete(t.store.numbers, g.next.number)
}

// moving copies entries out of a segment that is about to be removed. It must be
// the first change of its transaction, when what readers see is what there is.
type moving struct {
	entries []movedEntry
	bytes   int64 // of their values, with their lengths
}

// A movedEntry is an entry in both of its places.
type movedEntry struct {
	group *Group
	index uint64
	value []byte
	from  place
	to    place // zero if it was not moved: it was deleted meanwhile
}

func (c *moving) add(e movedEntry) {
	c.entries = append(c.entries, e)
	c.bytes += e.from.bytes()
}

func (c *moving) size() int64 { return c.bytes + int64(len(c.entries))*runHeadBytes }

func (c *moving) apply(t *transaction) error {
	for rest := c.entries; len(rest) > 0; {
		// As many as are in one record: one group's, whose indexes follow each other.
		g, first := rest[0].group, rest[0].index
		var values [][]byte
		at := len(t.frame) + runHeadBytes
		for len(rest) > 0 {
			e := &rest[0]
			if e.group != g || e.index != first+uint64(len(values)) || !g.holds(e.index, e.from) {
				break
			}
			e.to = t.here(at+lengthBytes, len(e.value))
			values = append(values, e.value)
			at += lengthBytes + len(e.value)
			rest = rest[1:]
		}
		if len(values) == 0 {
			rest = rest[1:]
			continue
		}
		t.add(record{kind: recordMove, number: g.next.number, first: first, values: values})
	}
	return nil
}

func (c *moving) publish(t *transaction) {
	var released places
	for i := range c.entries {
		e := &c.entries[i]
		if e.to == (place{}) {
			continue
		}
		e.group.mu.Lock()
		e.group.places[e.index-e.group.held.first] = e.to
		e.group.mu.Unlock()
		released = append(released, e.from)
		t.store.current.live.Add(e.to.bytes())
		t.store.moved.Add(uint64(e.to.bytes()))
	}
	t.store.release(released)
}
