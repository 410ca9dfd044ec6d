package strong

import (
	"context"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/consensus/machine"
)

const (
	// maxWait bounds how long one call waits for a lock or a change of it; its caller asks again.
	maxWait = 30 * time.Second
	// waitMargin is left of a call's time for its answer.
	waitMargin = 50 * time.Millisecond
	// shownWaiters bounds those that LockInfo shows.
	shownWaiters = 100
)

// Call carries out a primitive call.
func (s *Space) Call(ctx context.Context, c *client.StrongCall) (client.StrongReply, error) {
	q, err := requestOf(c.Request)
	if err != nil {
		return client.StrongReply{}, err
	}
	switch c.Kind {
	case client.CallTxn:
		return s.txn(ctx, c, q)
	case client.CallGrant:
		ttl := time.Duration(c.TTL) * time.Millisecond
		lease, err := s.grant(ctx, ttl, q)
		return client.StrongReply{Session: client.SessionID(lease), TTL: c.TTL}, err
	case client.CallKeepAlive:
		ttl, err := s.r.KeepAlive(ctx, machine.LeaseID(c.Session))
		return client.StrongReply{Session: c.Session, TTL: ttl.Milliseconds()}, failure(err)
	case client.CallRevoke:
		return s.plain(ctx, &machine.Revoke{ID: machine.LeaseID(c.Session)}, q)
	case client.CallLockInfo:
		if err := checkName(c.Name); err != nil {
			return client.StrongReply{}, err
		}
		return s.lockInfo(ctx, c)
	case client.CallListPool:
		return s.listPool(ctx, c)
	case client.CallCompact:
		return s.plain(ctx, &machine.Compact{Revision: machine.Revision(c.Revision)}, q)
	case client.CallStatus:
		view, err := s.view(ctx, false)
		if err != nil {
			return client.StrongReply{}, err
		}
		st := view.Status()
		return client.StrongReply{Revision: uint64(st.Revision), Compacted: uint64(st.Compacted)}, nil
	}
	if err := checkName(c.Name); err != nil {
		return client.StrongReply{}, err
	}
	switch c.Kind {
	case client.CallAcquire:
		return s.acquire(ctx, c, q)
	case client.CallRelease:
		return s.plain(ctx, &machine.Release{Name: c.Name, Token: machine.Token(c.Token)}, q)
	case client.CallAbort:
		return s.plain(ctx, &machine.Abort{Name: c.Name, Claim: claimOf(c)}, q)
	case client.CallProclaim:
		return s.plain(ctx, &machine.Proclaim{Name: c.Name, Token: machine.Token(c.Token), Value: c.Value}, q)
	case client.CallDefinePool:
		if c.First > c.Last {
			return client.StrongReply{}, fmt.Errorf("%w: a pool goes from its first integer to its last, here %d to %d", client.ErrBadRequest, c.First, c.Last)
		}
		return s.plain(ctx, &machine.DefinePool{Pool: machine.Pool{Name: c.Name, First: c.First, Last: c.Last}}, q)
	case client.CallRemovePool:
		return s.plain(ctx, &machine.RemovePool{Name: c.Name}, q)
	case client.CallAllocate:
		return s.allocate(ctx, c, q)
	case client.CallFree:
		return s.plain(ctx, &machine.Free{Pool: c.Name, First: c.First, Token: machine.Token(c.Token)}, q)
	}
	return client.StrongReply{}, fmt.Errorf("%w: this node does not know calls of kind %d", client.ErrBadRequest, c.Kind)
}

func checkName(name string) error {
	if len(name) == 0 || len(name) > machine.MaxKey {
		return fmt.Errorf("%w: a name has 1 to %d bytes, this one has %d", client.ErrBadRequest, machine.MaxKey, len(name))
	}
	return nil
}

// requestOf reads a request's text: CLIENT/NUMBER, or anything else, which is a client of its own.
func requestOf(text string) (machine.Request, error) {
	if text == "" {
		return machine.Request{}, nil
	}
	if len(text) > machine.MaxClientID {
		return machine.Request{}, fmt.Errorf("%w: a request id has at most %d bytes, this one has %d", client.ErrBadRequest, machine.MaxClientID, len(text))
	}
	if name, number, ok := strings.Cut(text, "/"); ok && name != "" {
		if n, err := strconv.ParseUint(number, 10, 64); err == nil && n > 0 {
			return machine.Request{Client: name, Number: n}, nil
		}
	}
	return machine.Request{Client: text, Number: 1}, nil
}

func claimOf(c *client.StrongCall) machine.ClaimID {
	return machine.ClaimID{Session: machine.LeaseID(c.Session), Request: c.Claim}
}

// plain is a command whose outcome is only whether it was done.
func (s *Space) plain(ctx context.Context, body machine.Body, q machine.Request) (client.StrongReply, error) {
	d, err := s.do(ctx, body, q)
	return client.StrongReply{Revision: uint64(d.Revision), Token: client.FencingToken(d.Token)}, err
}

func (s *Space) txn(ctx context.Context, c *client.StrongCall, q machine.Request) (client.StrongReply, error) {
	if c.Txn == nil {
		return client.StrongReply{}, fmt.Errorf("%w: no transaction given", client.ErrBadRequest)
	}
	txn, err := txnOf(c.Txn, 1)
	if err != nil {
		return client.StrongReply{}, err
	}
	d, err := s.do(ctx, txn, q)
	if err != nil {
		return client.StrongReply{}, err
	}
	return client.StrongReply{Revision: uint64(d.Revision), Txn: txnResultOf(&d.Txn, d.Revision)}, nil
}

// acquire claims a lock, and waits for it at most as long as the call says.
func (s *Space) acquire(ctx context.Context, c *client.StrongCall, q machine.Request) (client.StrongReply, error) {
	switch {
	case c.Delay < 0 || c.Delay > machine.MaxTTL:
		return client.StrongReply{}, fmt.Errorf("%w: a lock delay is 0 to 24h", client.ErrBadRequest)
	case c.Mode < client.Exclusive || c.Mode > client.Place || (c.Mode == client.Place) != (c.Places > 0):
		return client.StrongReply{}, fmt.Errorf("%w: a lock is exclusive, shared, or has a number of places", client.ErrBadRequest)
	}
	d, err := s.do(ctx, &machine.Acquire{
		Name: c.Name, Claim: claimOf(c), Mode: machine.Mode(c.Mode), Places: c.Places, Try: c.Try, Delay: uint64(c.Delay), Value: c.Value,
	}, q)
	reply := client.StrongReply{Session: c.Session, Token: client.FencingToken(d.Token), Revision: uint64(d.Revision)}
	if err != nil || d.Token != 0 || c.Wait <= 0 {
		return reply, err
	}
	wait, cancel := waiting(ctx, c.Wait)
	defer cancel()
	h, err := s.r.AwaitClaim(wait, d.Index, c.Name, claimOf(c))
	if err != nil && wait.Err() != nil && ctx.Err() == nil {
		return reply, nil // it still waits
	}
	reply.Token = client.FencingToken(h.Token)
	return reply, failure(err)
}

// waiting is ctx until ms are over or little of its own time is left.
func waiting(ctx context.Context, ms int64) (context.Context, context.CancelFunc) {
	wait := maxWait
	if ms < maxWait.Milliseconds() {
		wait = time.Duration(ms) * time.Millisecond
	}
	if deadline, ok := ctx.Deadline(); ok {
		wait = min(wait, max(0, time.Until(deadline)-waitMargin))
	}
	return context.WithTimeout(ctx, wait)
}

// lockInfo tells who holds a lock; if asked to wait, once that is not what Revision stood for.
// A state that a majority confirmed is Known; one that it could not be asked for is not.
func (s *Space) lockInfo(ctx context.Context, c *client.StrongCall) (client.StrongReply, error) {
	wait, cancel := ctx, context.CancelFunc(func() {})
	if c.Wait > 0 {
		wait, cancel = waiting(ctx, c.Wait)
	}
	defer cancel()
	known, err := s.r.Read(wait)
	if err != nil && c.Wait <= 0 {
		return client.StrongReply{}, failure(err)
	}
	for {
		view, changed, forget := s.r.LockChange(c.Name)
		reply := client.StrongReply{
			Holders: holdersOf(view.Holders(c.Name)), Waiting: holdersOf(view.Waiting(c.Name, shownWaiters)), Known: known != nil,
		}
		reply.Revision = fingerprint(reply.Holders, reply.Waiting)
		if c.Wait <= 0 || reply.Revision != c.Revision || wait.Err() != nil {
			forget()
			return reply, nil
		}
		select {
		case <-changed:
		case <-wait.Done():
			// What has been so since then may be so no longer: nobody confirmed it.
			known = nil
			last, stop := context.WithTimeout(ctx, waitMargin)
			if v, err := s.r.Read(last); err == nil {
				known = v
			}
			stop()
		}
		forget()
	}
}

// fingerprint stands for who holds a lock and who waits; it is never 0.
func fingerprint(lists ...[]client.LockHolder) uint64 {
	h := xxhash.New()
	for _, list := range lists {
		for _, l := range list {
			var b []byte
			for _, u := range [...]uint64{uint64(l.Session), uint64(l.Token), uint64(l.Mode), uint64(len(l.Value))} {
				b = binary.LittleEndian.AppendUint64(b, u)
			}
			b = strconv.AppendBool(b, l.Delayed)
			h.Write(append(b, l.Value...))
		}
		h.Write([]byte{'|'})
	}
	return h.Sum64() | 1
}

func (s *Space) allocate(ctx context.Context, c *client.StrongCall, q machine.Request) (client.StrongReply, error) {
	if len(c.Label) > machine.MaxLabel {
		return client.StrongReply{}, fmt.Errorf("%w: a label has at most %d bytes, this one has %d", client.ErrBadRequest, machine.MaxLabel, len(c.Label))
	}
	size := max(c.Size, 1)
	d, err := s.do(ctx, &machine.Allocate{
		Pool: c.Name, Size: size, Align: c.Align, At: c.First, Exact: c.Exact, Session: machine.LeaseID(c.Session), Label: c.Label,
	}, q)
	return client.StrongReply{First: d.First, Size: size, Token: client.FencingToken(d.Token)}, err
}

func (s *Space) listPool(ctx context.Context, c *client.StrongCall) (client.StrongReply, error) {
	if err := checkName(c.Name); err != nil {
		return client.StrongReply{}, err
	}
	view, err := s.view(ctx, false)
	if err != nil {
		return client.StrongReply{}, err
	}
	if view.Pool(c.Name) == nil {
		return client.StrongReply{}, failure(machine.ErrPoolNotFound)
	}
	var reply client.StrongReply
	size := 0
	view.Allocations(c.Name, c.First, func(a *machine.Allocation) bool {
		reply.Allocations = append(reply.Allocations, client.Allocation{
			First: a.First, Size: a.Size, Token: client.FencingToken(a.Token), Session: client.SessionID(a.Session), Label: a.Label,
		})
		size += 64 + len(a.Label)
		return size < listBytes
	})
	return reply, nil
}

// listBytes bounds the allocations of one answer; whoever wants more asks from after the last.
const listBytes = 1 << 20
