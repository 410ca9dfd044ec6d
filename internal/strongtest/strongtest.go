// Package strongtest is strong keyspaces in memory: the state machine of
// consensus/machine under a mutex, for tests of what is built on the primitive calls.
// Faults are injected around it.
package strongtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/consensus/machine"
)

// A Keyspace is one strong keyspace. It implements client.StrongCaller, for its own name
// only. Safe for concurrent use.
type Keyspace struct {
	name string

	mu      sync.Mutex // protects the fields below
	m       *machine.Machine
	index   uint64
	locks   uint64               // changes of locks, beside the revision
	leases  map[uint64]time.Time // when they expire
	changed chan struct{}        // closed at the next change
	before  Fault
	after   Fault
	calls   int
}

// A Fault is asked before or after a call is carried out; its error is what the caller
// sees.
type Fault func(ctx context.Context, call *client.StrongCall) error

// New makes an empty keyspace.
func New(name string) *Keyspace {
	return &Keyspace{name: name, m: machine.New(), leases: make(map[uint64]time.Time), changed: make(chan struct{})}
}

// SetFaults sets what is asked before and after each call; nil: nothing.
func (k *Keyspace) SetFaults(before, after Fault) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.before, k.after = before, after
}

// Calls is how many calls have come.
func (k *Keyspace) Calls() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.calls
}

// State is the state now.
func (k *Keyspace) State() *machine.View {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.expire()
	return k.m.View()
}

// StrongCall implements client.StrongCaller.
func (k *Keyspace) StrongCall(ctx context.Context, name string, call *client.StrongCall) (client.StrongReply, error) {
	if name != k.name {
		return client.StrongReply{}, fmt.Errorf("%w: keyspace %s", client.ErrNotFound, name)
	}
	k.mu.Lock()
	k.calls++
	before, after := k.before, k.after
	k.mu.Unlock()
	if before != nil {
		if err := before(ctx, call); err != nil {
			return client.StrongReply{}, err
		}
	}
	reply, err := k.carryOut(ctx, call)
	if after != nil {
		if err := after(ctx, call); err != nil {
			return client.StrongReply{}, err
		}
	}
	return reply, err
}

func (k *Keyspace) carryOut(ctx context.Context, call *client.StrongCall) (client.StrongReply, error) {
	if call.Kind == client.CallAcquire || call.Kind == client.CallLockInfo {
		return k.waitFor(ctx, call)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.expire()
	return k.once(call)
}

// waitFor repeats a call until it has what it waits for.
func (k *Keyspace) waitFor(ctx context.Context, call *client.StrongCall) (client.StrongReply, error) {
	over := time.NewTimer(time.Duration(call.Wait) * time.Millisecond)
	defer over.Stop()
	for {
		k.mu.Lock()
		k.expire()
		reply, err := k.once(call)
		changed, next := k.changed, k.nextExpiry()
		k.mu.Unlock()
		if err != nil || call.Wait <= 0 || call.Kind == client.CallAcquire && reply.Token != 0 || call.Kind == client.CallLockInfo && reply.Revision > call.Revision {
			return reply, err
		}
		expiry := time.NewTimer(next)
		select {
		case <-changed:
		case <-expiry.C:
		case <-over.C:
			return reply, nil
		case <-ctx.Done():
			return reply, ctx.Err()
		}
		expiry.Stop()
	}
}

// expire ends the sessions whose time is over; k.mu is held.
func (k *Keyspace) expire() {
	var ids []machine.LeaseID
	for id, at := range k.leases {
		if !at.After(time.Now()) {
			ids = append(ids, machine.LeaseID(id))
			delete(k.leases, id)
		}
	}
	if len(ids) > 0 {
		slices.Sort(ids)
		k.apply(machine.Request{}, &machine.Expire{IDs: ids})
	}
}

func (k *Keyspace) nextExpiry() time.Duration {
	next := time.Hour
	for _, at := range k.leases {
		next = min(next, max(time.Until(at), time.Millisecond))
	}
	return next
}

func (k *Keyspace) apply(q machine.Request, b machine.Body) machine.Result {
	c := machine.Command{Wall: time.Now().UnixMilli(), Request: q, Body: b}
	encoded, err := c.AppendBinary(nil)
	if err != nil {
		return machine.Result{Err: err}
	}
	k.index++
	res := k.m.Apply(k.index, encoded)
	if len(res.Locks) > 0 {
		k.locks++
	}
	if res.Changes != nil || res.Locks != nil {
		close(k.changed)
		k.changed = make(chan struct{})
	}
	return res
}

func request(text string) (machine.Request, error) {
	if text == "" {
		return machine.Request{}, nil
	}
	if len(text) > machine.MaxClientID {
		return machine.Request{}, fmt.Errorf("%w: request %q", client.ErrBadRequest, text)
	}
	id, number, _ := strings.Cut(text, "/")
	if n, err := strconv.ParseUint(number, 10, 64); err == nil && len(id) == 16 {
		return machine.Request{Client: id, Number: n}, nil
	}
	return machine.Request{Client: text, Number: 1}, nil
}

// once carries out a call, without waiting; k.mu is held.
func (k *Keyspace) once(call *client.StrongCall) (client.StrongReply, error) {
	reply := client.StrongReply{Known: true}
	q, err := request(call.Request)
	if err != nil {
		return reply, err
	}
	id := machine.LeaseID(call.Session)
	var body machine.Body
	switch call.Kind {
	case client.CallLockInfo:
		reply.Holders = holders(k.m.View().Holders(call.Name))
		reply.Waiting = holders(k.m.View().Waiting(call.Name, 100))
		reply.Revision = k.locks + 1
		return reply, nil
	case client.CallListPool:
		// Two a page, so that tests meet pages.
		k.m.View().Allocations(call.Name, call.First, func(a *machine.Allocation) bool {
			reply.Allocations = append(reply.Allocations, client.Allocation{
				First: a.First, Size: a.Size, Token: client.FencingToken(a.Token), Session: client.SessionID(a.Session), Label: a.Label,
			})
			return len(reply.Allocations) < 2
		})
		return reply, nil
	case client.CallStatus:
		st := k.m.View().Status()
		reply.Revision, reply.Compacted = uint64(st.Revision), uint64(st.Compacted)
		return reply, nil
	case client.CallKeepAlive:
		l := k.m.View().Lease(id)
		if l == nil {
			return reply, client.ErrSessionLost
		}
		reply.TTL = int64(l.TTL)
		k.leases[uint64(id)] = time.Now().Add(time.Duration(l.TTL) * time.Millisecond)
		return reply, nil
	case client.CallTxn:
		body = txn(call.Txn)
	case client.CallGrant:
		body = &machine.Grant{TTL: uint64(call.TTL)}
	case client.CallRevoke:
		body = &machine.Revoke{ID: id}
	case client.CallAcquire:
		body = &machine.Acquire{
			Name: call.Name, Claim: machine.ClaimID{Session: id, Request: call.Claim}, Mode: machine.Mode(call.Mode), Places: call.Places,
			Try: call.Try, Delay: uint64(call.Delay), Value: call.Value,
		}
	case client.CallRelease:
		body = &machine.Release{Name: call.Name, Token: machine.Token(call.Token)}
	case client.CallAbort:
		body = &machine.Abort{Name: call.Name, Claim: machine.ClaimID{Session: id, Request: call.Claim}}
	case client.CallProclaim:
		body = &machine.Proclaim{Name: call.Name, Token: machine.Token(call.Token), Value: call.Value}
	case client.CallDefinePool:
		body = &machine.DefinePool{Pool: machine.Pool{Name: call.Name, First: call.First, Last: call.Last}}
	case client.CallRemovePool:
		body = &machine.RemovePool{Name: call.Name}
	case client.CallAllocate:
		body = &machine.Allocate{
			Pool: call.Name, Size: call.Size, Align: call.Align, Exact: call.Exact, At: call.First, Session: id, Label: call.Label,
		}
	case client.CallFree:
		body = &machine.Free{Pool: call.Name, First: call.First, Token: machine.Token(call.Token)}
	case client.CallCompact:
		body = &machine.Compact{Revision: machine.Revision(call.Revision)}
	default:
		return reply, fmt.Errorf("%w: call %d", client.ErrBadRequest, call.Kind)
	}
	res := k.apply(q, body)
	if res.Err != nil {
		return reply, clientError(res.Err)
	}
	reply.Revision, reply.Session, reply.Token = uint64(res.Revision), client.SessionID(res.Lease), client.FencingToken(res.Token)
	reply.First = res.First
	switch call.Kind {
	case client.CallGrant:
		reply.TTL = call.TTL
		if !res.Duplicate {
			k.leases[uint64(res.Lease)] = time.Now().Add(time.Duration(call.TTL) * time.Millisecond)
		}
	case client.CallRevoke:
		delete(k.leases, uint64(id))
	case client.CallAllocate:
		reply.Size = call.Size
	case client.CallTxn:
		reply.Txn = txnResult(&res.Txn, uint64(res.Revision))
	}
	return reply, nil
}

var sentinels = []struct{ from, to error }{
	{machine.ErrLeaseNotFound, client.ErrSessionLost}, {machine.ErrLocked, client.ErrConflict}, {machine.ErrLockKind, client.ErrConflict},
	{machine.ErrNotHeld, client.ErrNotHeld}, {machine.ErrTooManyWaiters, client.ErrOverloaded}, {machine.ErrPoolNotFound, client.ErrNotFound},
	{machine.ErrPoolInUse, client.ErrConflict}, {machine.ErrPoolExhausted, client.ErrPoolExhausted}, {machine.ErrNoSpace, client.ErrFull},
	{machine.ErrCompacted, client.ErrCompacted}, {machine.ErrFutureRevision, client.ErrFutureRevision}, {machine.ErrTooLarge, client.ErrTooLarge},
	{machine.ErrRequestForgotten, client.ErrUnknownOutcome},
}

func clientError(err error) error {
	for _, s := range sentinels {
		if errors.Is(err, s.from) {
			return fmt.Errorf("%w: %w", s.to, err)
		}
	}
	return fmt.Errorf("%w: %w", client.ErrBadRequest, err)
}

func holders(all []machine.Holder) (out []client.LockHolder) {
	for _, h := range all {
		out = append(out, client.LockHolder{
			Session: client.SessionID(h.Claim.Session), Token: client.FencingToken(h.Token), Mode: client.LockMode(h.Mode), Value: h.Value, Delayed: h.Delay > 0,
		})
	}
	return out
}

func txn(t *client.Txn) *machine.Txn {
	out := &machine.Txn{}
	for _, c := range t.Compares {
		out.Compares = append(out.Compares, machine.Compare{
			Span: machine.Span{Key: c.Key, End: c.End}, Target: machine.Target(c.Target), Relation: machine.Relation(c.Relation), Number: c.Number, Value: c.Value,
		})
	}
	out.Then, out.Else = ops(t.Then), ops(t.Else)
	return out
}

func ops(all []client.TxnOp) (out []machine.Op) {
	for _, op := range all {
		switch {
		case op.Put != nil:
			out = append(out, &machine.Put{Key: op.Put.Key, Value: op.Put.Value, Lease: machine.LeaseID(op.Put.Session)})
		case op.Delete != nil:
			out = append(out, &machine.Delete{Span: machine.Span{Key: op.Delete.Key, End: op.Delete.End}})
		case op.Get != nil:
			out = append(out, &machine.Get{
				Span: machine.Span{Key: op.Get.Key, End: op.Get.End}, Revision: machine.Revision(op.Get.Revision), Limit: uint64(op.Get.Limit),
			})
		default:
			out = append(out, txn(op.Txn))
		}
	}
	return out
}

func txnResult(t *machine.TxnResult, revision uint64) client.TxnResult {
	out := client.TxnResult{Succeeded: t.Succeeded, Revision: revision}
	for i := range t.Results {
		op := &t.Results[i]
		r := client.TxnOpResult{Deleted: op.Count, More: op.More}
		for _, e := range op.Entries {
			r.Entries = append(r.Entries, client.StrongEntry{
				Key: e.Key, Value: e.Value, Create: uint64(e.Create), Mod: uint64(e.Mod), Version: e.Version, Session: client.SessionID(e.Lease),
			})
		}
		if op.Txn != nil {
			nested := txnResult(op.Txn, revision)
			r.Txn = &nested
		}
		out.Results = append(out.Results, r)
	}
	return out
}
