package api

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/client/wire"
)

func operationOf(t wire.RequestType) operation {
	switch t {
	case wire.Put:
		return opPut
	case wire.Get:
		return opGet
	case wire.Delete:
		return opDelete
	case wire.List:
		return opList
	case wire.Watch:
		return opWatch
	case wire.Info:
		return opInfo
	case wire.Digest:
		return opDigest
	case wire.Keyspaces:
		return opKeyspaces
	case wire.Members:
		return opMembers
	case wire.Status:
		return opStatus
	case wire.Leave:
		return opLeave
	case wire.ForceLeave:
		return opForceLeave
	case wire.StrongCall:
		return opStrong
	case wire.Admin, wire.Settings:
		return opAdmin
	case wire.Update:
		return opUpdate
	case wire.View:
		return opView
	case wire.Elements:
		return opElements
	case wire.History:
		return opHistory
	}
	return opOther
}

// waits reports whether carrying out a request may take long, so that it needs
// a deadline and can be cancelled. A Get of an eventual keyspace does not, nor does one
// of a strong keyspace that is content with what this node has.
func (s *Server) waits(r *wire.Request) bool {
	return r.Type != wire.Get || r.After != "" || r.Flags.Has(wire.Linearizable) ||
		!r.Flags.Has(wire.Local) && s.isStrong(r.Keyspace)
}

// answer carries out a request and queues the reply.
func (c *nativeConn) answer(ctx context.Context, j job) error {
	reply := wire.Reply{ID: j.req.ID}
	var err error
	if c.server.waits(&j.req) {
		err = c.executeCancellably(ctx, &j.req, &reply)
	} else {
		err = c.execute(ctx, &j.req, &reply)
	}
	c.server.metrics.done(overNative, operationOf(j.req.Type), err, time.Since(j.arrived))
	alone := c.finish(j)
	defer c.replied()
	if err != nil {
		reply = *errorReply(j.req.ID, err)
	}
	_, err = c.sender.SendReply(ctx, &reply, alone)
	return err
}

func (c *nativeConn) executeCancellably(ctx context.Context, r *wire.Request, reply *wire.Reply) error {
	var call *client.StrongCall
	if r.Type == wire.StrongCall {
		call = &client.StrongCall{}
		if err := call.UnmarshalBinary(r.Value); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if r.Timeout > 0 {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeout(ctx, r.Timeout)
		defer stop()
	}
	c.mu.Lock()
	ok := c.register(r.ID, &activeRequest{cancel: cancel, waits: call != nil && call.Wait > 0})
	c.mu.Unlock()
	if !ok {
		return errIDInUse
	}
	defer c.unregister(r.ID)
	if call != nil {
		return c.server.executeStrong(ctx, r.Keyspace, call, reply)
	}
	err := c.execute(ctx, r, reply)
	switch r.Type {
	case wire.Put, wire.Delete, wire.Update, wire.Leave, wire.ForceLeave:
		return writeFailure(err)
	}
	return err
}

var errIDInUse = fmt.Errorf("%w: the request's id is in use", client.ErrBadRequest)

func (c *nativeConn) execute(ctx context.Context, r *wire.Request, reply *wire.Reply) error {
	backend := c.server.backend
	switch r.Type {
	case wire.Keyspaces:
		list, err := backend.Keyspaces(ctx)
		return document(reply, list, err)
	case wire.Members:
		list, err := backend.Members(ctx)
		return document(reply, list, err)
	case wire.Status:
		status, err := backend.Status(ctx)
		return document(reply, status, err)
	case wire.Leave:
		reply.Type = wire.Done
		return c.server.leave(ctx)
	case wire.ForceLeave:
		reply.Type = wire.Done
		return backend.ForceLeave(ctx, r.Key)
	case wire.Admin:
		return c.server.executeAdmin(ctx, r.Value, reply)
	case wire.History:
		return c.server.executeHistory(ctx, r.Value, reply)
	case wire.Settings:
		return c.server.executeSettings(ctx, r.Value, reply)
	case wire.Put:
		ks, err := backend.Keyspace(ctx, r.Keyspace)
		if err != nil {
			return err
		}
		v, err := ks.Put(ctx, r.Key, r.Value, &client.PutOptions{
			TTL:       r.TTL,
			Ephemeral: r.Flags.Has(wire.Ephemeral),
			Durable:   r.Flags.Has(wire.Durable),
			IfAbsent:  r.Flags.Has(wire.IfAbsent),
			IfVersion: client.Version{Inc: r.IfVersion.Inc, Seq: r.IfVersion.Seq},
			Session:   client.SessionID(r.Session),
			Acks:      client.AcksOf(r.Acks),
		})
		reply.Type, reply.Version = wire.Written, wireVersion(v)
		return err
	case wire.Update:
		return c.server.executeUpdate(ctx, r.Keyspace, r.Value, reply)
	case wire.Get, wire.Delete, wire.List, wire.Info, wire.Digest, wire.View, wire.Elements:
		ks, err := c.server.contents(r.Keyspace)
		if err != nil {
			return err
		}
		return executeOn(ctx, ks, r, reply)
	}
	return fmt.Errorf("%w: this node does not know requests of %v", client.ErrBadRequest, r.Type)
}

func executeOn(ctx context.Context, ks contents, r *wire.Request, reply *wire.Reply) error {
	switch r.Type {
	case wire.Delete:
		d, err := ks.Delete(ctx, r.Key, &client.DeleteOptions{
			Durable:   r.Flags.Has(wire.Durable),
			Acks:      client.AcksOf(r.Acks),
			IfVersion: client.Version{Inc: r.IfVersion.Inc, Seq: r.IfVersion.Seq},
		})
		reply.Type, reply.Version, reply.Deleted = wire.Written, wireVersion(d.Version), d.Deleted
		return err
	case wire.Get:
		e, err := ks.Get(ctx, r.Key, &client.GetOptions{
			Linearizable: r.Flags.Has(wire.Linearizable),
			Local:        r.Flags.Has(wire.Local),
			Revision:     r.Revision,
			Siblings:     r.Flags.Has(wire.WithSiblings),
			After:        client.Token(r.After),
		})
		if err != nil {
			return err
		}
		size := len(e.Value)
		for _, s := range e.Siblings {
			size += len(s.Value) + 64
		}
		if size > wire.MaxReply-(64<<10) {
			return fmt.Errorf("%w: the siblings of this key do not fit into one reply; read them over HTTP", client.ErrTooLarge)
		}
		reply.Type, reply.Entry = wire.Found, wireEntry(&e, false)
		return nil
	case wire.List:
		keysOnly := r.Flags.Has(wire.KeysOnly)
		entries, more, err := takePage(ctx, ks, r.Key, client.ListOptions{
			Limit: int(min(r.Limit, math.MaxInt32)), After: r.After, KeysOnly: keysOnly,
			Local: r.Flags.Has(wire.Local), Revision: r.Revision,
		})
		reply.Type, reply.More = wire.Page, more
		reply.Entries = make([]wire.Entry, len(entries))
		for i := range entries {
			reply.Entries[i] = wireEntry(&entries[i], keysOnly)
		}
		return err
	case wire.View:
		return executeView(ctx, ks, r.Value, reply)
	case wire.Elements:
		return executeElements(ctx, ks, r.Value, reply)
	case wire.Info:
		info, err := ks.Info(ctx)
		return document(reply, info, err)
	case wire.Digest:
		digest, err := ks.Digest(ctx)
		return document(reply, digest, err)
	}
	return errors.ErrUnsupported
}

func document(reply *wire.Reply, v any, err error) error {
	if err != nil {
		return err
	}
	reply.Type = wire.Document
	reply.Body, err = msgpack.Marshal(v)
	if err == nil && len(reply.Body) > wire.MaxReply-1024 {
		return fmt.Errorf("%w: the answer does not fit into one reply; ask over HTTP", client.ErrTooLarge)
	}
	return err
}

// leave makes the node leave. A node that leaves also stops serving, and waits
// for the requests in flight: so this one ends as soon as the server drains,
// and the goroutine is left to the node.
func (s *Server) leave(ctx context.Context) error {
	done := make(chan error, 1)
	go func() { done <- s.backend.Leave(context.WithoutCancel(ctx)) }()
	select {
	case err := <-done:
		return err
	case <-s.draining:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
