package client

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"
)

// A Set is a key of type set. An element that was added and removed concurrently is in
// it. Make it with SetOf; the zero values of the other fields are usable.
type Set struct {
	ks  Keyspace
	key string
	// TTL hides what is added that long after. 0: never.
	TTL time.Duration
	// Ephemeral binds what is added to the life of the node that executes the Add.
	Ephemeral bool
	// Durable makes changes wait for the serving node's disk.
	Durable bool
}

// SetOf is the set under key of an eventual keyspace.
func SetOf(ks Keyspace, key string) *Set { return &Set{ks: ks, key: key} }

// Add adds elements, all at once: ErrUpdateSize if they are too many for one update.
func (s *Set) Add(ctx context.Context, elements ...string) (Version, error) {
	return s.update(ctx, Change{Verb: VerbSetAdd, Key: s.key, TTL: s.TTL, Ephemeral: s.Ephemeral}, elements)
}

// Remove removes elements, all at once. That one is not there is no error.
func (s *Set) Remove(ctx context.Context, elements ...string) (Version, error) {
	return s.update(ctx, Change{Verb: VerbSetRemove, Key: s.key}, elements)
}

func (s *Set) update(ctx context.Context, change Change, elements []string) (Version, error) {
	changes := make([]Change, len(elements))
	for i, e := range elements {
		changes[i] = change
		changes[i].Path = []string{e}
	}
	return s.ks.Update(ctx, changes, &UpdateOptions{Durable: s.Durable})
}

// Has reports whether element is in the set.
func (s *Set) Has(ctx context.Context, element string) (bool, error) {
	if err := checkElement([]string{element}); err != nil {
		return false, err
	}
	for _, err := range elementsAs(ctx, s.ks, s.key, TypeSet, ElementsOptions{Under: []string{element}, Limit: 1}) {
		return err == nil, err
	}
	return false, nil
}

// Elements yields the elements in byte order; none if there is no such key.
func (s *Set) Elements(ctx context.Context) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for e, err := range elementsAs(ctx, s.ks, s.key, TypeSet, ElementsOptions{}) {
			if err != nil {
				yield("", err)
				return
			}
			if !yield(e.Path[0], nil) {
				return
			}
		}
	}
}

// Len is the number of elements.
func (s *Set) Len(ctx context.Context) (int, error) {
	v, err := viewAs(ctx, s.ks, s.key, TypeSet)
	return v.Len, err
}

// elementsAs yields the elements of a key that is to be of type want. An absent key is an
// empty one.
func elementsAs(ctx context.Context, ks Keyspace, key string, want Type, o ElementsOptions) iter.Seq2[Element, error] {
	o.Type = want
	return func(yield func(Element, error) bool) {
		for e, err := range ks.Elements(ctx, key, &o) {
			if errors.Is(err, ErrNotFound) || !yield(e, err) {
				return
			}
		}
	}
}

// A FieldMap is a key of type map, or what is under one of its fields. Its fields are registers
// or maps, and change independently: one that was put and removed concurrently is there.
// Make it with MapOf; the zero values of the other fields are usable.
type FieldMap struct {
	ks   Keyspace
	key  string
	path []string
	// TTL hides what is put that long after. 0: never.
	TTL time.Duration
	// Ephemeral binds what is put to the life of the node that executes the Put.
	Ephemeral bool
	// Durable makes changes wait for the serving node's disk.
	Durable bool
}

// MapOf is the map under key of an eventual keyspace.
func MapOf(ks Keyspace, key string) *FieldMap { return &FieldMap{ks: ks, key: key} }

// Sub is the map in a field. It comes into being with its first Put; the other fields of m
// hold for it, too. Maps are nested up to MaxFields deep.
func (m *FieldMap) Sub(field string) *FieldMap {
	sub := *m
	sub.path = m.to(field)
	return &sub
}

func (m *FieldMap) to(field string) []string { return append(slices.Clip(m.path), field) }

// Put sets a field. ErrWrongType if one of the maps around it is a register.
func (m *FieldMap) Put(ctx context.Context, field string, value []byte) (Version, error) {
	return m.ks.Update(ctx, []Change{{
		Verb: VerbMapPut, Key: m.key, Path: m.to(field), Value: value, TTL: m.TTL, Ephemeral: m.Ephemeral,
	}}, &UpdateOptions{Durable: m.Durable})
}

// Remove removes fields, with all that is under them, at once. That one is not there is no
// error.
func (m *FieldMap) Remove(ctx context.Context, fields ...string) (Version, error) {
	changes := make([]Change, len(fields))
	for i, f := range fields {
		changes[i] = Change{Verb: VerbMapRemove, Key: m.key, Path: m.to(f)}
	}
	return m.ks.Update(ctx, changes, &UpdateOptions{Durable: m.Durable})
}

// Get is the value of a field: ErrNotFound if there is none, ErrWrongType if it is a map.
// It is not to be modified.
func (m *FieldMap) Get(ctx context.Context, field string) ([]byte, error) {
	path := m.to(field)
	if err := CheckFields(path); err != nil {
		return nil, err
	}
	for e, err := range elementsAs(ctx, m.ks, m.key, TypeMap, ElementsOptions{Under: path, Limit: 1}) {
		if err == nil && len(e.Path) > len(path) {
			err = fmt.Errorf("%w: the field is a map: read it with Sub", ErrWrongType)
		}
		return e.Value, err
	}
	return nil, ErrNotFound
}

// Fields yields all fields with a value, those of nested maps included. Their paths begin
// in m. What is in one nested map stands together.
func (m *FieldMap) Fields(ctx context.Context) iter.Seq2[Element, error] {
	var o ElementsOptions
	if len(m.path) > 0 {
		o.Under = m.path
	}
	return func(yield func(Element, error) bool) {
		for e, err := range elementsAs(ctx, m.ks, m.key, TypeMap, o) {
			if err == nil && len(e.Path) == len(m.path) {
				err = fmt.Errorf("%w: the field is no map: read it with Get", ErrWrongType)
			}
			if err != nil {
				yield(Element{}, err)
				return
			}
			e.Path = e.Path[len(m.path):]
			if !yield(e, nil) {
				return
			}
		}
	}
}

// A Log is a key of type log: entries in the order of their times, of which the newest
// are kept. Make it with LogOf.
type Log struct {
	ks  Keyspace
	key string
	// Durable makes changes wait for the serving node's disk.
	Durable bool
}

// LogOf is the log under key of an eventual keyspace.
func LogOf(ks Keyspace, key string) *Log { return &Log{ks: ks, key: key} }

// Append appends entries, all at once and in this order.
func (l *Log) Append(ctx context.Context, entries ...[]byte) (Version, error) {
	changes := make([]Change, len(entries))
	for i, e := range entries {
		changes[i] = Change{Verb: VerbLogAppend, Key: l.key, Value: e}
	}
	return l.ks.Update(ctx, changes, &UpdateOptions{Durable: l.Durable})
}

// Cap keeps the newest n entries, 1 to MaxLogCap, which is the default.
func (l *Log) Cap(ctx context.Context, n int) (Version, error) {
	return l.ks.Update(ctx, []Change{{Verb: VerbLogCap, Key: l.key, N: int64(n)}}, &UpdateOptions{Durable: l.Durable})
}

// Entries yields the entries, oldest first. Of o, After, Limit and Seen are used.
func (l *Log) Entries(ctx context.Context, o *ElementsOptions) iter.Seq2[Element, error] {
	var opts ElementsOptions
	if o != nil {
		opts = *o
	}
	return elementsAs(ctx, l.ks, l.key, TypeLog, opts)
}

// Len is the number of entries.
func (l *Log) Len(ctx context.Context) (int, error) {
	v, err := viewAs(ctx, l.ks, l.key, TypeLog)
	return v.Len, err
}
