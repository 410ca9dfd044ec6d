package keyspace

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/crdt"
	"github.com/meshkv/meshkv/gossip"
)

func checkKey(key string) error {
	if len(key) == 0 || len(key) > crdt.MaxKeyBytes {
		return fmt.Errorf("%w: a key has 1 to %d bytes, this one has %d", client.ErrBadRequest, crdt.MaxKeyBytes, len(key))
	}
	return nil
}

// Put implements client.Keyspace.
func (k *Keyspace) Put(ctx context.Context, key string, value []byte, o *client.PutOptions) (client.Version, error) {
	var opts client.PutOptions
	if o != nil {
		opts = *o
	}
	w := crdt.Write{Key: key, Kind: crdt.KindRegister, Value: value}
	switch {
	case opts.IfAbsent || !opts.IfVersion.IsZero():
		return client.Version{}, fmt.Errorf("%w: %s is eventual and cannot decide a condition for all nodes", client.ErrNeedsStrong, k.name)
	case opts.TTL < 0:
		return client.Version{}, fmt.Errorf("%w: a time to live cannot be negative, this one is %s", client.ErrBadRequest, opts.TTL)
	case len(value) > MaxValueBytes:
		return client.Version{}, fmt.Errorf("%w: a value has at most %d bytes, this one has %d", client.ErrTooLarge, MaxValueBytes, len(value))
	}
	if err := checkKey(key); err != nil {
		return client.Version{}, err
	}
	if err := k.checkWritable(); err != nil {
		return client.Version{}, err
	}
	if err := k.checkValue(value); err != nil {
		return client.Version{}, err
	}
	if err := k.admit(ctx); err != nil {
		return client.Version{}, err
	}
	if opts.Ephemeral {
		w.Flags |= crdt.FlagEphemeral
	}
	now := time.Now()
	if opts.TTL > 0 {
		w.Expires = max(now.Add(opts.TTL).UnixMilli(), 1)
	}
	w.Prepare()
	var dot crdt.Dot
	err := k.write(ctx, now, concern{opts.Acks, opts.Durable}, func(h crdt.HLC) (err error) {
		if top := k.index.top(key); top != nil && (top.Kind != crdt.KindRegister || !k.life.shown(top)) {
			if shown := k.shownCell(key); shown != nil && shown.Kind != crdt.KindRegister {
				return fmt.Errorf("%w: the key is a %v: use its calls, or delete it first", client.ErrWrongType, shown.Kind)
			}
		}
		if err := k.permit(now, k.growthOf(key, value)); err != nil {
			return err
		}
		w.HLC = h
		dot, err = k.rep.Put(now, w)
		return err
	})
	return client.Version{Inc: uint64(dot.Inc), Seq: dot.Seq}, err
}

// Delete implements client.Keyspace.
func (k *Keyspace) Delete(ctx context.Context, key string, o *client.DeleteOptions) (client.Deletion, error) {
	if err := checkKey(key); err != nil {
		return client.Deletion{}, err
	}
	if err := k.checkWritable(); err != nil {
		return client.Deletion{}, err
	}
	var c concern
	if o != nil {
		c = concern{o.Acks, o.Durable}
	}
	now := time.Now()
	var out client.Deletion
	err := k.write(ctx, now, c, func(h crdt.HLC) error {
		if err := k.permit(now, growth{}); err != nil {
			return err
		}
		shown := k.shownOf(key) != nil
		dot, ok, err := k.rep.Delete(now, key, h)
		if ok {
			// What was only hidden goes too, and is not reported as deleted.
			out = client.Deletion{Deleted: shown, Version: client.Version{Inc: uint64(dot.Inc), Seq: dot.Seq}}
		}
		return err
	})
	return out, err
}

// admit refuses growth while too much waits for the disk. It is the only limit
// here that a Put can meet; a Put never waits for a peer.
func (k *Keyspace) admit(ctx context.Context) error {
	if k.env.Writer == nil {
		return nil
	}
	if k.env.Writer.Overloaded() {
		return fmt.Errorf("%w: the disk is too slow for the writes", client.ErrOverloaded)
	}
	if !k.env.Clock.Covered(time.Now()) { // after a pause, or a jump of the wall clock
		return k.env.Clock.Extend(ctx, k.env.Writer)
	}
	return nil
}

// write runs one local change under the mutex and then, if asked, waits until
// it is on disk, and until other members have it.
func (k *Keyspace) write(ctx context.Context, now time.Time, c concern, change func(crdt.HLC) error) error {
	if err := k.checkConcern(c); err != nil {
		return err
	}
	k.mu.Lock()
	if k.done {
		dropped := k.dropped
		k.mu.Unlock()
		if dropped {
			return fmt.Errorf("%w: this node no longer holds keyspace %s", client.ErrUnavailable, k.name)
		}
		return client.ErrDraining
	}
	k.local = true
	before := k.rep.Replica().Seq()
	err := change(k.env.Clock.Now(now))
	var w *waiting
	if r := k.rep.Replica(); c.acks.Waits() && err == nil && r.Seq() > before {
		w = k.ask(now, crdt.Dot{Inc: r.Inc(), Seq: r.Seq()}, c)
	}
	after := k.settle(now)
	k.local = false
	k.mu.Unlock()
	k.finish(after)
	if errors.Is(err, gossip.ErrRenew) {
		return fmt.Errorf("%w: this node was taken for gone, and is about to come back: try again", client.ErrUnavailable)
	}
	if err != nil {
		return failedWrite(err)
	}
	if after.err != nil {
		k.waits.remove(w)
		// It is in memory and spreading; only the disk is in doubt.
		return fmt.Errorf("%w: not on disk: %w", client.ErrUnknownOutcome, after.err)
	}
	k.issued.Add(1)
	if (c.durable || k.env.Sync) && k.env.Writer != nil {
		if err := k.env.Writer.Wait(ctx, after.ticket); err != nil {
			k.waits.remove(w)
			// It is in memory and spreading; only the disk is in doubt.
			return fmt.Errorf("%w: not known to be on disk: %w", client.ErrUnknownOutcome, err)
		}
	}
	if w != nil {
		return k.awaitAcks(ctx, w)
	}
	return nil
}
