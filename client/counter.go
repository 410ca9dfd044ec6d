package client

import (
	"context"
	"errors"
)

// A Counter is a key of type counter: increments at all nodes add up, whatever happens
// concurrently. Make it with CounterOf; the zero value of Durable is usable.
type Counter struct {
	ks  Keyspace
	key string
	// Durable makes changes wait for the serving node's disk.
	Durable bool
}

// CounterOf is the counter under key of an eventual keyspace.
func CounterOf(ks Keyspace, key string) *Counter { return &Counter{ks: ks, key: key} }

// Add adds n, which may be negative. After ErrUnknownOutcome it may have been added: a
// second Add might add it twice.
func (c *Counter) Add(ctx context.Context, n int64) (Version, error) {
	return c.update(ctx, Change{Verb: VerbCounterAdd, Key: c.key, N: n})
}

// Reset takes away what the serving node has seen of the counter. What was added
// concurrently stays and counts once.
func (c *Counter) Reset(ctx context.Context) (Version, error) {
	return c.update(ctx, Change{Verb: VerbCounterReset, Key: c.key})
}

func (c *Counter) update(ctx context.Context, change Change) (Version, error) {
	return c.ks.Update(ctx, []Change{change}, &UpdateOptions{Durable: c.Durable})
}

// Value is the counter's value; 0 if there is no such key.
func (c *Counter) Value(ctx context.Context) (int64, error) {
	v, err := viewAs(ctx, c.ks, c.key, TypeCounter)
	return v.Number, err
}

// viewAs is the view of a key that is to be of type want. An absent key is an empty one.
func viewAs(ctx context.Context, ks Keyspace, key string, want Type) (View, error) {
	v, err := ks.View(ctx, key, nil)
	switch {
	case errors.Is(err, ErrNotFound):
		return View{Key: key, Type: want}, nil
	case err != nil:
		return View{}, err
	case v.Type != want:
		return View{}, WrongType(v.Type, want)
	}
	return v, nil
}

// A Flag is a key of type flag, or inverse-flag. Make it with FlagOf or InverseFlagOf.
type Flag struct {
	ks      Keyspace
	key     string
	inverse bool
	// Durable makes changes wait for the serving node's disk.
	Durable bool
}

// FlagOf is the flag under key of an eventual keyspace: where it was enabled and disabled
// concurrently, it is enabled.
func FlagOf(ks Keyspace, key string) *Flag { return &Flag{ks: ks, key: key} }

// InverseFlagOf is the inverse flag under key: where it was enabled and disabled
// concurrently, it is disabled.
func InverseFlagOf(ks Keyspace, key string) *Flag { return &Flag{ks: ks, key: key, inverse: true} }

// Set enables or disables the flag.
func (f *Flag) Set(ctx context.Context, enabled bool) (Version, error) {
	return f.ks.Update(ctx, []Change{{Verb: FlagVerb(f.inverse, enabled), Key: f.key}}, &UpdateOptions{Durable: f.Durable})
}

// FlagVerb is the verb that sets a flag, or an inverse one.
func FlagVerb(inverse, enabled bool) Verb {
	switch {
	case inverse && enabled:
		return VerbInverseFlagEnable
	case inverse:
		return VerbInverseFlagDisable
	case enabled:
		return VerbFlagEnable
	}
	return VerbFlagDisable
}

// Enabled reports whether the flag is enabled; false if there is no such key.
func (f *Flag) Enabled(ctx context.Context) (bool, error) {
	want := TypeFlag
	if f.inverse {
		want = TypeInverseFlag
	}
	v, err := viewAs(ctx, f.ks, f.key, want)
	return v.Enabled, err
}

// A Bounded is a key of type bounded: a counter that never falls below its bound, for
// a node takes from it only what it has the rights to. What a node adds it may take away;
// the first value is that of the node that created it. Make it with BoundedOf.
type Bounded struct {
	ks  Keyspace
	key string
	// Durable makes changes wait for the serving node's disk.
	Durable bool
}

// BoundedOf is the bounded counter under key of an eventual keyspace.
func BoundedOf(ks Keyspace, key string) *Bounded { return &Bounded{ks: ks, key: key} }

// Create makes the counter with a bound that is fixed from now on, and a first value that
// is not below it. ErrConflict if there is one.
func (b *Bounded) Create(ctx context.Context, bound, value int64) (Version, error) {
	return b.update(ctx, Change{Verb: VerbBoundedCreate, Key: b.key, Bound: bound, N: value})
}

// Add adds n, which may be negative: then ErrRights if the serving node has fewer rights.
func (b *Bounded) Add(ctx context.Context, n int64) (Version, error) {
	return b.update(ctx, Change{Verb: VerbBoundedAdd, Key: b.key, N: n})
}

// Transfer gives n rights of the serving node to another member, by its name.
func (b *Bounded) Transfer(ctx context.Context, to string, n int64) (Version, error) {
	return b.update(ctx, Change{Verb: VerbBoundedTransfer, Key: b.key, To: to, N: n})
}

func (b *Bounded) update(ctx context.Context, change Change) (Version, error) {
	return b.ks.Update(ctx, []Change{change}, &UpdateOptions{Durable: b.Durable})
}

// View is the counter's state: Number, Bound and Rights. ErrNotFound before its creation.
func (b *Bounded) View(ctx context.Context) (View, error) {
	v, err := b.ks.View(ctx, b.key, nil)
	if err == nil && v.Type != TypeBounded {
		return View{}, WrongType(v.Type, TypeBounded)
	}
	return v, err
}
