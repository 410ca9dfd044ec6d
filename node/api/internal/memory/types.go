package memory

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/meshkv/meshkv/client"
)

// A typed is a key that is no register. Each change makes another one.
type typed struct {
	kind     client.Type
	modified time.Time
	number   int64
	bound    int64
	rights   int64
	enabled  bool
	cap      int
	elements map[string]client.Element // by position
}

func (t typed) clone() typed {
	t.elements = maps.Clone(t.elements)
	if t.elements == nil {
		t.elements = make(map[string]client.Element)
	}
	return t
}

// sorted are the elements that are not expired, in order.
func (t typed) sorted() []client.Element {
	var out []client.Element
	for _, at := range slices.Sorted(maps.Keys(t.elements)) {
		if e := t.elements[at]; live(&e) {
			out = append(out, e)
		}
	}
	return out
}

func live(e *client.Element) bool { return e.Expires.IsZero() || e.Expires.After(time.Now()) }

func (t typed) empty() bool {
	if t.kind != client.TypeSet && t.kind != client.TypeMap {
		return false
	}
	for _, e := range t.elements {
		if live(&e) {
			return false
		}
	}
	return true
}

// position is where a path stands: the fields of a map with their lengths, so that what
// is under a field follows it.
func position(kind client.Type, path []string) string {
	if kind == client.TypeSet {
		return path[0]
	}
	var b strings.Builder
	for _, f := range path {
		b.WriteByte(byte(len(f)))
		b.WriteString(f)
	}
	return b.String()
}

// A draft is the keys as an update leaves them.
type draft struct {
	k       *keyspace
	version client.Version
	now     time.Time
	typed   map[string]typed
	plain   map[string]client.Entry
	gone    map[string]bool
}

// typeOf is the type of a key in the draft.
func (d *draft) typeOf(key string) (client.Type, bool) {
	if t, ok := d.typed[key]; ok && !t.empty() {
		return t.kind, true
	}
	if _, ok := d.plain[key]; ok {
		return client.TypeRegister, true
	}
	if t, ok := d.k.typed[key]; ok && !d.gone[key] && d.typed[key].kind == "" {
		return t.kind, !t.empty()
	}
	e, ok := d.k.entries[key]
	return client.TypeRegister, ok && e.Type == client.TypeRegister && !d.gone[key]
}

// open is the key for a change, of type kind.
func (d *draft) open(key string, kind client.Type) (typed, bool, error) {
	have, ok := d.typeOf(key)
	if ok && have != kind {
		return typed{}, false, client.WrongType(have, kind)
	}
	if !ok {
		return typed{kind: kind, cap: client.MaxLogCap}.clone(), false, nil
	}
	if t, drafted := d.typed[key]; drafted {
		return t, true, nil
	}
	return d.k.typed[key].clone(), true, nil
}

var kindOf = map[client.Verb]client.Type{
	client.VerbCounterAdd: client.TypeCounter, client.VerbCounterReset: client.TypeCounter,
	client.VerbSetAdd: client.TypeSet, client.VerbSetRemove: client.TypeSet,
	client.VerbMapPut: client.TypeMap, client.VerbMapRemove: client.TypeMap,
	client.VerbFlagEnable: client.TypeFlag, client.VerbFlagDisable: client.TypeFlag,
	client.VerbInverseFlagEnable: client.TypeInverseFlag, client.VerbInverseFlagDisable: client.TypeInverseFlag,
	client.VerbLogAppend: client.TypeLog, client.VerbLogCap: client.TypeLog,
	client.VerbBoundedCreate: client.TypeBounded, client.VerbBoundedAdd: client.TypeBounded, client.VerbBoundedTransfer: client.TypeBounded,
}

func (d *draft) change(i int, c *client.Change) error {
	switch c.Verb {
	case client.VerbPut:
		if have, ok := d.typeOf(c.Key); ok && have != client.TypeRegister {
			return client.WrongType(have, client.TypeRegister)
		}
		e := client.Entry{Key: c.Key, Value: slices.Clone(c.Value), Version: d.version, Origin: "memory", Modified: d.now, Ephemeral: c.Ephemeral}
		if c.TTL > 0 {
			e.Expires = d.now.Add(c.TTL)
		}
		d.plain[c.Key] = e
		return nil
	case client.VerbDelete:
		delete(d.plain, c.Key)
		delete(d.typed, c.Key)
		d.gone[c.Key] = true
		return nil
	}
	t, exists, err := d.open(c.Key, kindOf[c.Verb])
	if err != nil {
		return err
	}
	t.modified = d.now
	element := client.Element{Path: slices.Clone(c.Path), Value: slices.Clone(c.Value), Version: d.version, Origin: "memory", Modified: d.now, Ephemeral: c.Ephemeral}
	if c.TTL > 0 {
		element.Expires = d.now.Add(c.TTL)
	}
	switch c.Verb {
	case client.VerbCounterAdd:
		t.number += c.N
	case client.VerbCounterReset:
		t.number = 0
	case client.VerbSetAdd:
		t.put(position(t.kind, c.Path), element)
	case client.VerbSetRemove:
		delete(t.elements, position(t.kind, c.Path))
	case client.VerbMapPut:
		for n := 1; n < len(c.Path); n++ {
			if _, ok := t.elements[position(t.kind, c.Path[:n])]; ok {
				return fmt.Errorf("%w: a field around it is a register", client.ErrWrongType)
			}
		}
		t.removeUnder(position(t.kind, c.Path))
		t.put(position(t.kind, c.Path), element)
	case client.VerbMapRemove:
		t.removeUnder(position(t.kind, c.Path))
	case client.VerbFlagEnable, client.VerbInverseFlagEnable:
		t.enabled = true
	case client.VerbFlagDisable, client.VerbInverseFlagDisable:
		t.enabled = false
	case client.VerbLogAppend:
		t.put(fmt.Sprintf("%016x-%04x", d.version.Seq, i), element)
		t.trim()
	case client.VerbLogCap:
		t.cap = int(c.N)
		t.trim()
	default:
		err = t.bounded(c, exists)
	}
	d.typed[c.Key] = t
	return err
}

func (t *typed) bounded(c *client.Change, exists bool) error {
	switch {
	case c.Verb == client.VerbBoundedCreate && exists:
		return fmt.Errorf("%w: there is a bounded counter of that name", client.ErrConflict)
	case c.Verb == client.VerbBoundedCreate:
		t.bound, t.number, t.rights = c.Bound, c.N, c.N-c.Bound
		return nil
	case !exists:
		return fmt.Errorf("%w: the bounded counter is to be created first", client.ErrNotFound)
	}
	taken := -c.N
	if c.Verb == client.VerbBoundedTransfer {
		if _, err := strconv.ParseUint(c.To, 16, 64); err != nil {
			return fmt.Errorf("%w: there is no member of that name", client.ErrNotFound)
		}
		taken = c.N
	} else {
		t.number += c.N
	}
	if taken > t.rights {
		return &client.RightsError{Have: t.rights, Need: taken}
	}
	t.rights -= taken
	return nil
}

func (t *typed) put(at string, e client.Element) {
	e.Position = client.Position(at)
	t.elements[at] = e
}

func (t *typed) removeUnder(at string) {
	maps.DeleteFunc(t.elements, func(p string, _ client.Element) bool { return strings.HasPrefix(p, at) })
}

func (t *typed) trim() {
	for _, at := range slices.Sorted(maps.Keys(t.elements))[:max(len(t.elements)-t.cap, 0)] {
		delete(t.elements, at)
	}
}

// Update implements client.Keyspace.
func (k *keyspace) Update(ctx context.Context, changes []client.Change, _ *client.UpdateOptions) (client.Version, error) {
	if err := client.CheckChanges(changes); err != nil {
		return client.Version{}, err
	}
	if err := k.wait(ctx); err != nil {
		return client.Version{}, err
	}
	k.c.mu.Lock()
	defer k.c.mu.Unlock()
	k.expire()
	d := &draft{
		k: k, version: client.Version{Inc: k.c.inc, Seq: k.seq + 1}, now: time.Now().Truncate(time.Millisecond),
		typed: make(map[string]typed), plain: make(map[string]client.Entry), gone: make(map[string]bool),
	}
	for i := range changes {
		if err := d.change(i, &changes[i]); err != nil {
			return client.Version{}, err
		}
	}
	k.seq++
	d.commit()
	return d.version, nil
}

func (d *draft) commit() {
	keys := make(map[string]bool)
	for key := range d.gone {
		keys[key] = true
	}
	for key, t := range d.typed {
		keys[key] = true
		if !t.empty() {
			d.plain[key] = client.Entry{Key: key, Type: t.kind, Version: d.version, Origin: "memory", Modified: t.modified}
		}
	}
	for key := range d.plain {
		keys[key] = true
	}
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		prev, before := d.k.entries[key]
		delete(d.k.typed, key)
		e, ok := d.plain[key]
		if !ok {
			if before {
				d.k.remove(key, client.ReasonDeleted)
			}
			continue
		}
		if t, ok := d.typed[key]; ok && !t.empty() {
			d.k.typed[key] = t
		}
		ev := client.Event{Type: client.EventPut, Entry: e}
		if before {
			ev.Prev = &prev
		}
		d.k.entries[key] = e
		d.k.append(ev)
	}
}

// look is a typed key; c.mu is held.
func (k *keyspace) look(key string, want client.Type) (typed, client.Entry, error) {
	if err := checkKey(key); err != nil {
		return typed{}, client.Entry{}, err
	}
	k.expire()
	e, ok := k.entries[key]
	t := k.typed[key]
	switch {
	case !ok, e.Type != client.TypeRegister && t.empty():
		return t, e, client.ErrNotFound
	case want != "" && e.Type != want:
		return t, e, client.WrongType(e.Type, want)
	}
	return t, e, nil
}

// View implements client.Keyspace.
func (k *keyspace) View(ctx context.Context, key string, o *client.GetOptions) (client.View, error) {
	if o != nil && o.After != "" {
		if err := k.waitFor(ctx, o.After); err != nil {
			return client.View{}, err
		}
	}
	k.c.mu.Lock()
	defer k.c.mu.Unlock()
	t, e, err := k.look(key, "")
	if err != nil {
		return client.View{}, err
	}
	return client.View{
		Key: key, Type: e.Type, Version: e.Version, Modified: e.Modified, Len: len(t.sorted()),
		Number: t.number, Enabled: t.enabled, Bound: t.bound, Rights: t.rights,
	}, nil
}

// Elements implements client.Keyspace.
func (k *keyspace) Elements(ctx context.Context, key string, o *client.ElementsOptions) iter.Seq2[client.Element, error] {
	if o == nil {
		o = &client.ElementsOptions{}
	}
	return func(yield func(client.Element, error) bool) {
		elements, err := k.elements(ctx, key, o)
		if err != nil {
			yield(client.Element{}, err)
			return
		}
		n := 0
		for _, e := range elements {
			if e.Position <= o.After {
				continue
			}
			if n++; !yield(e, nil) || n == o.Limit {
				return
			}
		}
	}
}

func (k *keyspace) elements(ctx context.Context, key string, o *client.ElementsOptions) ([]client.Element, error) {
	if o.Limit < 0 {
		return nil, fmt.Errorf("%w: negative limit", client.ErrBadRequest)
	}
	if o.Seen != "" {
		if err := k.waitFor(ctx, o.Seen); err != nil {
			return nil, err
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	k.c.mu.Lock()
	defer k.c.mu.Unlock()
	t, e, err := k.look(key, o.Type)
	switch {
	case err != nil:
		return nil, err
	case e.Type != client.TypeSet && e.Type != client.TypeMap && e.Type != client.TypeLog:
		return nil, client.WrongType(e.Type, client.TypeSet)
	case o.Under != nil && e.Type == client.TypeLog:
		return nil, fmt.Errorf("%w: a log has no fields", client.ErrBadRequest)
	}
	elements := t.sorted()
	if o.Under != nil {
		at := position(e.Type, o.Under)
		elements = slices.DeleteFunc(elements, func(e client.Element) bool {
			return t.kind == client.TypeSet && string(e.Position) != at || !strings.HasPrefix(string(e.Position), at)
		})
	}
	return elements, nil
}
