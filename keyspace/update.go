package keyspace

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/crdt"
)

// Update implements client.Keyspace.
func (k *Keyspace) Update(ctx context.Context, changes []client.Change, o *client.UpdateOptions) (client.Version, error) {
	if err := client.CheckChanges(changes); err != nil {
		return client.Version{}, err
	}
	for i := range changes {
		c := &changes[i]
		if n := len(c.Value); n > MaxValueBytes {
			return client.Version{}, fmt.Errorf("%w: a value has at most %d bytes, this one has %d", client.ErrTooLarge, MaxValueBytes, n)
		}
		check := k.checkSize
		if c.Verb == client.VerbPut {
			check = k.checkValue
		}
		if err := check(c.Value); err != nil {
			return client.Version{}, err
		}
	}
	if err := k.checkWritable(); err != nil {
		return client.Version{}, err
	}
	if err := k.admit(ctx); err != nil {
		return client.Version{}, err
	}
	var c concern
	if o != nil {
		c = concern{o.Acks, o.Durable}
	}
	now := time.Now()
	var dot crdt.Dot
	err := k.write(ctx, now, c, func(h crdt.HLC) (err error) {
		dot, _, err = k.rep.Update(now, h, k.life.shown, func(d *crdt.Draft) error {
			for i := range changes {
				if err := k.change(d, &changes[i], now); err != nil {
					return err
				}
			}
			return k.permit(now, k.growthOfBatch(d))
		})
		return err
	})
	return client.Version{Inc: uint64(dot.Inc), Seq: dot.Seq}, err
}

// change makes one change of an update on its draft.
func (k *Keyspace) change(d *crdt.Draft, c *client.Change, now time.Time) (err error) {
	var life crdt.Lifetime
	if c.Ephemeral {
		life.Flags |= crdt.FlagEphemeral
	}
	if c.TTL > 0 {
		life.Expires = max(now.Add(c.TTL).UnixMilli(), 1)
	}
	switch c.Verb {
	case client.VerbPut:
		return d.Put(c.Key, c.Value, life)
	case client.VerbDelete:
		return d.Delete(c.Key)
	case client.VerbCounterAdd:
		return d.CounterAdd(c.Key, c.N)
	case client.VerbCounterReset:
		return d.CounterReset(c.Key)
	case client.VerbSetAdd:
		return d.SetAdd(c.Key, c.Path[0], life)
	case client.VerbSetRemove:
		_, err = d.SetRemove(c.Key, c.Path[0])
		return err
	case client.VerbMapPut:
		return d.MapPut(c.Key, c.Path, c.Value, life)
	case client.VerbMapRemove:
		_, err = d.MapRemove(c.Key, c.Path)
		return err
	case client.VerbFlagEnable, client.VerbFlagDisable:
		return d.FlagSet(c.Key, crdt.KindFlag, c.Verb == client.VerbFlagEnable)
	case client.VerbInverseFlagEnable, client.VerbInverseFlagDisable:
		return d.FlagSet(c.Key, crdt.KindInverseFlag, c.Verb == client.VerbInverseFlagEnable)
	case client.VerbLogAppend:
		return d.LogAppend(c.Key, c.Value)
	case client.VerbLogCap:
		return d.LogCap(c.Key, int(c.N))
	case client.VerbBoundedCreate:
		return d.BoundedCreate(c.Key, c.Bound, c.N)
	case client.VerbBoundedAdd:
		return d.BoundedAdd(c.Key, c.N)
	case client.VerbBoundedTransfer:
		to, err := k.receiver(c.To)
		if err != nil {
			return err
		}
		return d.BoundedTransfer(c.Key, to, uint64(c.N))
	}
	return fmt.Errorf("%w: unknown %v", client.ErrBadRequest, c.Verb)
}

// receiver is the incarnation that a transfer of rights is to: that of the member called name which is alive, or the one
// with that number in hex.
func (k *Keyspace) receiver(name string) (crdt.Inc, error) {
	incs := slices.DeleteFunc(k.env.Owners.Named(name), func(inc crdt.Inc) bool {
		return k.env.Owners.Get(inc).State != crdt.OwnerAlive
	})
	if len(incs) > 0 {
		return slices.Max(incs), nil // the newest, if the former one has not been given up yet
	}
	if n, err := strconv.ParseUint(name, 16, 64); err == nil && k.env.Owners.Get(crdt.Inc(n)).State == crdt.OwnerAlive {
		return crdt.Inc(n), nil
	}
	return 0, fmt.Errorf("%w: no member called %s is alive", client.ErrNotFound, name)
}

// editError is the error of a change that cannot be made, as users see it.
func editError(err error) error {
	var rights *crdt.RightsError
	switch {
	case errors.Is(err, crdt.ErrWrongType):
		return fmt.Errorf("%w: %w", client.ErrWrongType, err)
	case errors.As(err, &rights):
		return &client.RightsError{Have: int64(rights.Have), Need: int64(rights.Need)}
	case errors.Is(err, crdt.ErrBatchSize):
		return fmt.Errorf("%w: %w", client.ErrTooLarge, err)
	case errors.Is(err, crdt.ErrBehind):
		return fmt.Errorf("%w: %w", client.ErrJoining, err)
	case errors.Is(err, crdt.ErrExists):
		return fmt.Errorf("%w: %w", client.ErrConflict, err)
	case errors.Is(err, crdt.ErrNotCreated):
		return fmt.Errorf("%w: %w", client.ErrNotFound, err)
	case errors.Is(err, client.ErrNotFound), errors.Is(err, client.ErrWrongType):
		return err
	}
	return fmt.Errorf("%w: %w", client.ErrBadRequest, err)
}
