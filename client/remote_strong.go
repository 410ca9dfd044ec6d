package client

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/meshkv/meshkv/client/wire"
)

const (
	// maxWaits bounds the calls of a Client that wait at the node, so that they leave
	// places on the connection to others: keep-alives above all. Calls beyond it ask
	// and do not wait.
	maxWaits = 512
	// closePatience is how long Close tries to end sessions. They end by themselves
	// when their time is over.
	closePatience = time.Second
)

// Strong opens a strong keyspace. It asks the node nothing: that there is no such one is
// an error of its calls. The same name gives the same handle, whose default session is
// shared by all who use it.
func (c *Client) Strong(ctx context.Context, name string) (Strong, error) {
	ks, err := c.Keyspace(ctx, name)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.strong == nil {
		return nil, ErrClosed
	}
	h := c.strong[name]
	if h == nil {
		h = NewStrong(c, ks)
		c.strong[name] = h
	}
	return h, nil
}

// closeStrong ends all sessions. Without a connection there is nobody to tell.
func (c *Client) closeStrong() {
	c.mu.Lock()
	handles := c.strong
	c.strong = nil
	patience := closePatience
	if c.conn == nil {
		patience = 0
	}
	c.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var wg sync.WaitGroup
	for _, h := range handles {
		wg.Go(func() {
			if err := h.Close(ctx); err != nil {
				c.opts.Logger.Debug("sessions left to their end", "keyspace", h.Name(), "err", err)
			}
		})
	}
	wg.Wait()
}

// Changes reports whether a call may change something.
func (c *StrongCall) Changes() bool {
	switch c.Kind {
	case CallLockInfo, CallListPool, CallStatus:
		return false
	case CallTxn:
		return c.Txn != nil && c.Txn.Changes()
	}
	return true
}

// Changes reports whether a transaction may change something.
func (t *Txn) Changes() bool {
	for _, ops := range [...][]TxnOp{t.Then, t.Else} {
		for i := range ops {
			if op := &ops[i]; op.Put != nil || op.Delete != nil || op.Txn != nil && op.Txn.Changes() {
				return true
			}
		}
	}
	return false
}

// StrongCall implements StrongCaller. A call that waits has its Wait for it beside the
// Timeout of DialOptions, unless ctx has a deadline.
func (c *Client) StrongCall(ctx context.Context, keyspace string, call *StrongCall) (StrongReply, error) {
	var reply StrongReply
	if !validName(keyspace) {
		return reply, errName(keyspace)
	}
	if call.Wait > 0 {
		select {
		case c.waits <- struct{}{}:
			defer func() { <-c.waits }()
		default:
			asks := *call
			asks.Wait = 0
			call = &asks
		}
	}
	body, err := call.AppendBinary(make([]byte, 0, 64+len(call.Name)+len(call.Value)))
	if err != nil {
		return reply, err
	}
	r := wire.Request{Type: wire.StrongCall, Keyspace: keyspace, Value: body}
	if n := len(body); n > wire.MaxRequest-1024 {
		return reply, fmt.Errorf("%w: a request of %d bytes", ErrTooLarge, n)
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.opts.Timeout+time.Duration(max(call.Wait, 0))*time.Millisecond)
		defer cancel()
	}
	answer, err := c.carryOut(ctx, &r, call.Changes())
	if err != nil {
		return reply, err
	}
	if err := reply.UnmarshalBinary(answer.Body); err != nil {
		err = fmt.Errorf("answer to a strong call: %w", err)
		if call.Changes() {
			err = fmt.Errorf("%w: %w", ErrUnknownOutcome, err)
		}
		return reply, err
	}
	return reply, nil
}

func (c *Client) administer(ctx context.Context, call *wire.AdminCall, what string) (wire.Reply, error) {
	if len(call.Server) > 128 {
		return wire.Reply{}, fmt.Errorf("%w: a server's name has 1 to 128 bytes, this one has %d", ErrBadRequest, len(call.Server))
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.opts.Timeout)
		defer cancel()
	}
	reply, err := c.carryOut(ctx, &wire.Request{Type: wire.Admin, Value: wire.AppendAdmin(nil, call)}, call.Op != wire.DescribeStrong)
	if err != nil && !errors.Is(err, ErrClosed) {
		err = fmt.Errorf("%s: %w", what, err)
	}
	return reply, err
}

// CreateKeyspace implements StrongAdmin.
func (c *Client) CreateKeyspace(ctx context.Context, spec KeyspaceSpec) error {
	if spec.Voters < 0 {
		return fmt.Errorf("%w: a keyspace has 1, 3 or 5 voters, not %d", ErrBadRequest, spec.Voters)
	}
	_, err := c.administer(ctx, &wire.AdminCall{
		Op: wire.CreateKeyspace, Keyspace: spec.Name, Mode: spec.Mode, Voters: uint64(spec.Voters), Quota: spec.Quota,
	}, "create keyspace")
	return err
}

// RemoveKeyspace implements StrongAdmin.
func (c *Client) RemoveKeyspace(ctx context.Context, name string) error {
	_, err := c.administer(ctx, &wire.AdminCall{Op: wire.RemoveKeyspace, Keyspace: name}, "remove keyspace")
	return err
}

// StrongInfo implements StrongAdmin.
func (c *Client) StrongInfo(ctx context.Context, name string) (StrongInfo, error) {
	var info StrongInfo
	reply, err := c.administer(ctx, &wire.AdminCall{Op: wire.DescribeStrong, Keyspace: name}, "describe keyspace")
	if err == nil {
		err = unmarshalDocument(reply.Body, &info)
	}
	return info, err
}

// AddVoter implements StrongAdmin.
func (c *Client) AddVoter(ctx context.Context, keyspace, server string) error {
	_, err := c.administer(ctx, &wire.AdminCall{Op: wire.AddVoter, Keyspace: keyspace, Server: server}, "add voter")
	return err
}

// RemoveVoter implements StrongAdmin.
func (c *Client) RemoveVoter(ctx context.Context, keyspace, server string) error {
	_, err := c.administer(ctx, &wire.AdminCall{Op: wire.RemoveVoter, Keyspace: keyspace, Server: server}, "remove voter")
	return err
}

// Decommission implements StrongAdmin.
func (c *Client) Decommission(ctx context.Context, server string) error {
	_, err := c.administer(ctx, &wire.AdminCall{Op: wire.Decommission, Server: server}, "decommission")
	return err
}

// RecoverKeyspace implements StrongAdmin.
func (c *Client) RecoverKeyspace(ctx context.Context, name, survivor string) (RecoveryReport, error) {
	var report RecoveryReport
	reply, err := c.administer(ctx, &wire.AdminCall{Op: wire.Recover, Keyspace: name, Server: survivor}, "recover keyspace")
	if err == nil {
		err = unmarshalDocument(reply.Body, &report)
	}
	return report, err
}
