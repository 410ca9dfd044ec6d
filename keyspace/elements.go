package keyspace

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/crdt"
)

// pageElements is how many elements are read in one hold of the mutex.
const pageElements = 256

// View implements client.Keyspace.
func (k *Keyspace) View(ctx context.Context, key string, o *client.GetOptions) (client.View, error) {
	if err := checkKey(key); err != nil {
		return client.View{}, err
	}
	if o != nil && o.After != "" {
		if err := k.waitFor(ctx, o.After); err != nil {
			return client.View{}, err
		}
	}
	v, err := k.view(key)
	if err != nil || v.Type != client.TypeSet && v.Type != client.TypeMap && v.Type != client.TypeLog {
		return v, err
	}
	// Page by page, so that a large set holds nobody up: what changes meanwhile may count or not.
	for _, err := range k.Elements(ctx, key, &client.ElementsOptions{Type: v.Type}) {
		if err != nil {
			return client.View{}, err
		}
		v.Len++
	}
	return v, nil
}

// view is all of a view but the number of elements.
func (k *Keyspace) view(key string) (v client.View, err error) {
	now := time.Now().UnixMilli()
	k.mu.Lock()
	defer k.mu.Unlock()
	shown := k.visibleSibling(key)
	if shown == nil {
		return v, client.ErrNotFound
	}
	e := k.entry(k.summaryOf(shown))
	v = client.View{Key: key, Type: e.Type, Version: e.Version, Modified: e.Modified}
	cells := k.visibleFrom(key, "", shown.Kind, now)
	switch shown.Kind {
	case crdt.KindCounter:
		v.Number, err = crdt.CounterValue(cells)
	case crdt.KindFlag, crdt.KindInverseFlag:
		v.Enabled = crdt.FlagValue(cells, shown.Kind)
	case crdt.KindBounded:
		var b crdt.Bounded
		var ok bool
		if b, ok, err = crdt.BoundedValue(cells); err == nil && !ok {
			return v, client.ErrNotFound // what was deleted, and changed concurrently
		}
		v.Number, v.Bound, v.Rights = b.Value, b.Bound, int64(b.Rights[k.rep.Replica().Inc()])
	}
	if err != nil {
		return client.View{}, editError(err)
	}
	return v, nil
}

// visibleFrom is the visible cells of one kind of key with a path from `from` on, in order. Called with k.mu held.
func (k *Keyspace) visibleFrom(key, from string, kind crdt.Kind, nowMs int64) iter.Seq[*crdt.Cell] {
	return func(yield func(*crdt.Cell) bool) {
		for c := range k.index.Ascend(key, from) {
			if c.Kind == kind && k.visible(c, nowMs) && !yield(c) {
				return
			}
		}
	}
}

// Elements implements client.Keyspace.
func (k *Keyspace) Elements(ctx context.Context, key string, o *client.ElementsOptions) iter.Seq2[client.Element, error] {
	var opts client.ElementsOptions
	if o != nil {
		opts = *o
	}
	return func(yield func(client.Element, error) bool) {
		if err := k.checkElements(ctx, key, &opts); err != nil {
			yield(client.Element{}, err)
			return
		}
		n := 0
		var page []*crdt.Cell
		for at, more := string(opts.After), true; more; {
			if err := ctx.Err(); err != nil {
				yield(client.Element{}, err)
				return
			}
			var err error
			page, at, more, err = k.elements(page[:0], key, at, &opts)
			if n > 0 && errors.Is(err, client.ErrNotFound) {
				return // what was there has been seen
			}
			if err != nil {
				yield(client.Element{}, err)
				return
			}
			for _, c := range page {
				if !yield(k.element(c), nil) {
					return
				}
				if n++; n == opts.Limit {
					return
				}
			}
		}
	}
}

func (k *Keyspace) checkElements(ctx context.Context, key string, o *client.ElementsOptions) error {
	if err := checkKey(key); err != nil {
		return err
	}
	if o.Limit < 0 {
		return fmt.Errorf("%w: a limit cannot be negative, this one is %d", client.ErrBadRequest, o.Limit)
	}
	if o.Seen != "" {
		return k.waitFor(ctx, o.Seen)
	}
	return nil
}

// elements appends a page of the cells that are the elements of key behind the position after, and says behind which one
// to go on.
func (k *Keyspace) elements(page []*crdt.Cell, key, after string, o *client.ElementsOptions) (_ []*crdt.Cell, last string, more bool, err error) {
	now := time.Now().UnixMilli()
	k.mu.Lock()
	defer k.mu.Unlock()
	shown := k.visibleSibling(key)
	if shown == nil {
		return page, "", false, client.ErrNotFound
	}
	kind := shown.Kind
	if t := typeOf(kind); o.Type != "" && t != o.Type {
		return page, "", false, client.WrongType(t, o.Type)
	}
	under, err := place(kind, o.Under)
	if err != nil {
		return page, "", false, err
	}
	if kind == crdt.KindLog {
		return k.entries(page, key, after, now), "", false, nil
	}
	if kind == crdt.KindMap && k.covered(key, under, o.Under, now) {
		return page, "", false, nil
	}
	from := under
	if after != "" {
		from = max(from, behind(kind, after))
	}
	cells := func(yield func(*crdt.Cell) bool) {
		for c := range k.visibleFrom(key, from, kind, now) {
			if !strings.HasPrefix(c.Path, under) || kind == crdt.KindSet && under != "" && c.Path != under {
				return
			}
			if !yield(c) {
				return
			}
		}
	}
	all := crdt.Elements(cells)
	if kind == crdt.KindMap {
		all = crdt.Fields(cells)
	}
	for c := range all {
		page = append(page, c)
		if last = c.Path; len(page) == pageElements {
			more = true
			break
		}
	}
	return page, last, more, nil
}

// place is the path under which elements are asked for.
func place(kind crdt.Kind, fields []string) (string, error) {
	switch {
	case kind != crdt.KindSet && kind != crdt.KindMap && kind != crdt.KindLog:
		return "", fmt.Errorf("%w: a %v has no elements", client.ErrWrongType, kind)
	case len(fields) == 0:
		return "", nil
	case kind == crdt.KindSet && len(fields) == 1:
		return fields[0], nil
	case kind == crdt.KindMap:
		path, err := crdt.FieldPath(fields...)
		if err != nil {
			return "", fmt.Errorf("%w: %w", client.ErrBadRequest, err)
		}
		return path, nil
	}
	return "", fmt.Errorf("%w: a %v has nothing under a path of %d", client.ErrBadRequest, kind, len(fields))
}

// behind is the first path that may come behind the element at path: in a map, what is beneath a value is not shown.
func behind(kind crdt.Kind, path string) string {
	if kind != crdt.KindMap {
		return path + "\x00"
	}
	for i := len(path) - 1; i >= 0; i-- {
		if path[i] < 0xff {
			return path[:i] + string([]byte{path[i] + 1})
		}
	}
	return path + "\xff" // no path of a map: each begins with the length of a field, and is longer than that
}

// covered reports whether a value is shown above the place in a map, so that nothing at the place is.
func (k *Keyspace) covered(key, path string, fields []string, nowMs int64) bool {
	at := 0
	for _, f := range fields[:max(len(fields)-1, 0)] {
		at += 1 + len(f)
		if len(k.index.ByPath(key, path[:at])) == 0 {
			continue
		}
		var value, beneath *crdt.Cell
		for c := range k.visibleFrom(key, path[:at], crdt.KindMap, nowMs) {
			if !strings.HasPrefix(c.Path, path[:at]) {
				break
			}
			which := &beneath
			if len(c.Path) == at {
				which = &value
			}
			if *which == nil || c.Compare(*which) > 0 {
				*which = c
			}
		}
		if value != nil && (beneath == nil || value.Compare(beneath) > 0) {
			return true
		}
	}
	return false
}

// entries appends those of a log behind the position after.
func (k *Keyspace) entries(page []*crdt.Cell, key, after string, nowMs int64) []*crdt.Cell {
	for _, c := range crdt.LogEntries(k.visibleFrom(key, "", crdt.KindLog, nowMs)) {
		if c.Path > after {
			page = append(page, c)
		}
	}
	return page
}

// element is a cell as users see it.
func (k *Keyspace) element(c *crdt.Cell) client.Element {
	e := client.Element{
		Position:  client.Position(c.Path),
		Version:   client.Version{Inc: uint64(c.Dot.Inc), Seq: c.Dot.Seq},
		Origin:    k.writerName(c.Dot.Inc),
		Modified:  time.UnixMilli(c.HLC.WallMs()),
		Ephemeral: c.Ephemeral(),
	}
	if c.Expires != 0 {
		e.Expires = time.UnixMilli(c.Expires)
	}
	switch c.Kind {
	case crdt.KindSet:
		e.Path = []string{c.Path}
	case crdt.KindMap:
		e.Path, e.Value = crdt.FieldsOf(c.Path), c.Value
	default:
		e.Value = c.Value
	}
	return e
}
