package api

import (
	"context"
	"sync"
	"time"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/client/wire"
)

// startWatch starts the goroutine of a watch. It is called with c.mu held and
// releases it.
func (c *nativeConn) startWatch(ctx context.Context, j job) error {
	ctx, cancel := context.WithCancelCause(ctx)
	cr := newCredit(j.req.Limit)
	ok := c.register(j.req.ID, &activeRequest{cancel: cancel, credit: cr})
	c.mu.Unlock()
	if !ok {
		cancel(nil)
		return c.refuse(ctx, j, errIDInUse)
	}
	if err := c.server.admitWatch(overNative); err != nil {
		cancel(nil)
		c.unregister(j.req.ID)
		return c.refuse(context.WithoutCancel(ctx), j, err)
	}
	c.wg.Go(func() {
		defer c.server.releaseWatch(overNative)
		defer cancel(nil)
		err := c.watch(ctx, &j.req, cr)
		c.server.metrics.done(overNative, opWatch, err, time.Since(j.arrived))
		if cause := context.Cause(ctx); cause == nil || cause == client.ErrDraining {
			// Not if the client cancelled it or is gone: then nobody listens.
			if cause != nil {
				err = cause
			}
			c.reply(context.WithoutCancel(ctx), errorReply(j.req.ID, err))
		}
		c.unregister(j.req.ID)
	})
	return nil
}

// watch sends events as long as there is credit, and returns why it ended.
// Without credit it takes none from the backend, which coalesces them.
func (c *nativeConn) watch(ctx context.Context, r *wire.Request, cr *credit) error {
	ks, err := c.server.backend.Keyspace(ctx, r.Keyspace)
	if err != nil {
		return err
	}
	w, err := ks.Watch(ctx, r.Key, &client.WatchOptions{
		From:        client.Cursor(r.After),
		UpdatesOnly: r.Flags.Has(wire.UpdatesOnly),
		Exact:       r.Flags.Has(wire.Exact),
	})
	if err != nil {
		return err
	}
	defer w.Close()
	if err := c.reply(ctx, &wire.Reply{ID: r.ID, Type: wire.Opened}); err != nil {
		return err
	}
	var events [1]wire.Event
	for {
		if err := cr.wait(ctx); err != nil {
			return err
		}
		ev, err := w.Next(ctx)
		if err != nil {
			return err
		}
		if ev.Type == client.EventHeartbeat {
			continue // the connection has pings
		}
		events[0] = wireEvent(&ev)
		n, err := c.sender.SendReply(ctx, &wire.Reply{ID: r.ID, Type: wire.Happened, Events: events[:]}, false)
		if err != nil {
			return err
		}
		cr.use(n)
		c.server.metrics.events[overNative].Inc()
	}
}

// credit is how many bytes a watch may still send.
type credit struct {
	mu    sync.Mutex // protects the fields below
	left  int64
	ready chan struct{} // closed by a grant; nil if nobody waits
}

func newCredit(n uint64) *credit { return &credit{left: int64(min(n, wire.MaxCredit))} }

func (c *credit) grant(n uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.left = min(c.left+int64(min(n, wire.MaxCredit)), wire.MaxCredit)
	if c.left > 0 && c.ready != nil {
		close(c.ready)
		c.ready = nil
	}
}

func (c *credit) use(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.left -= int64(n)
}

// wait returns once there is credit or ctx ends.
func (c *credit) wait(ctx context.Context) error {
	for {
		c.mu.Lock()
		if c.left > 0 {
			c.mu.Unlock()
			return nil
		}
		if c.ready == nil {
			c.ready = make(chan struct{})
		}
		ready := c.ready
		c.mu.Unlock()
		select {
		case <-ready:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
