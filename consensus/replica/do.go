package replica

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/meshkv/meshkv/consensus/calls"
	"github.com/meshkv/meshkv/consensus/group"
	"github.com/meshkv/meshkv/consensus/machine"
)

// Kinds of calls between members. Part of the protocol: append only.
const (
	// CallPropose: an encoded command → index u64 little-endian, result.
	CallPropose calls.Kind = iota + 1
	// CallReadIndex: the caller's term u64 little-endian, sampled after its reads began, and its id → index u64.
	CallReadIndex
	// CallKeepAlive: lease u64 → its TTL in milliseconds, u64.
	CallKeepAlive
)

const (
	// attemptTimeout bounds one attempt at another member: one that is stopped answers
	// nothing, and there is a new leader by then.
	attemptTimeout = 3 * time.Second
	// minBackoff and maxBackoff bound the pause while nobody leads.
	minBackoff, maxBackoff = 5 * time.Millisecond, 80 * time.Millisecond
)

// Done is what a command did.
type Done struct {
	machine.Result
	// Index is that of the command: a View at it has what the command did.
	Index uint64
}

// Do has a command applied, by whichever member leads, and applied once: a command
// without a Request gets one. The error is nil whatever Result.Err is. It matches
// group.ErrNotApplied if the command took no effect and never will, among these ErrNoLeader,
// group.ErrOverloaded and group.ErrClosed; and group.ErrUnknownOutcome if it may.
func (r *Replica) Do(ctx context.Context, body machine.Body, q machine.Request) (Done, error) {
	cmd := machine.Command{Wall: time.Now().UnixMilli(), Body: body, Request: q}
	if q != (machine.Request{}) {
		d, _, err := r.repeat(ctx, &cmd)
		return d, err
	}
	for {
		own := r.requests.take(r.state.index())
		cmd.Request = *own
		d, open, err := r.repeat(ctx, &cmd)
		if err != nil || !errors.Is(d.Err, machine.ErrRequestForgotten) {
			r.requests.give(own)
			return d, err
		}
		// The client of this request was dropped by the machine, so that another one is
		// needed. What an earlier attempt has done is not known any more.
		if open {
			return d, fmt.Errorf("%w: %w", group.ErrUnknownOutcome, d.Err)
		}
		if _, err := r.ViewAt(ctx, d.Index); err != nil { // so that the next one is younger
			return d, fmt.Errorf("%w: %w", group.ErrNotApplied, err)
		}
	}
}

// repeat makes attempts until one has an outcome that is known, or ctx ends. open: an earlier
// attempt may have been applied.
func (r *Replica) repeat(ctx context.Context, cmd *machine.Command) (d Done, open bool, err error) {
	encoded, err := cmd.AppendBinary(nil)
	if err != nil {
		return Done{}, false, fmt.Errorf("%w: %w", group.ErrNotApplied, err)
	}
	once := cmd.Request != machine.Request{}
	err = r.atLeader(ctx, func(ctx context.Context, leader string) error {
		var aerr error
		d, aerr = r.attempt(ctx, leader, encoded)
		if errors.Is(aerr, group.ErrUnknownOutcome) {
			open = true
			if !once {
				return final{aerr}
			}
		}
		return aerr
	})
	if err != nil && open {
		return Done{}, true, fmt.Errorf("%w: %w", group.ErrUnknownOutcome, err)
	}
	if err != nil && !errors.Is(err, group.ErrNotApplied) {
		err = fmt.Errorf("%w: %w", group.ErrNotApplied, err)
	}
	return d, open, err
}

// pause waits, or returns the cause of ctx if that ends first.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// attemptAt bounds an attempt at another member. This one ends by itself: Raft answers when it
// leads no longer.
func attemptAt(ctx context.Context, leader string, op func(ctx context.Context, leader string) error) error {
	if leader == "" {
		return op(ctx, leader)
	}
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	return op(ctx, leader)
}

// final is an error after which no further attempt is made.
type final struct{ error }

func (f final) Unwrap() error { return f.error }

// atLeader calls op with the node of the leader, empty for this one, until it succeeds or fails
// for good; it goes on after errors that another leader, or a moment, may cure.
func (r *Replica) atLeader(ctx context.Context, op func(ctx context.Context, leader string) error) error {
	hint := "" // of the last one that was asked
	backoff := minBackoff
	var last error = ErrNoLeader
	for {
		leader, known := r.leader(hint)
		hint = ""
		if known {
			err := attemptAt(ctx, leader, op)
			var nl *group.NotLeaderError
			switch {
			case err == nil:
				return nil
			case errors.As(err, new(final)), errors.Is(err, group.ErrClosed) && leader == "":
				return err
			case errors.As(err, &nl) && nl.Leader.Addr != "" && nodeOf(nl.Leader.Addr) != leader:
				hint = nodeOf(nl.Leader.Addr)
				last = fmt.Errorf("%w: %w", ErrNoLeader, err)
			case errors.Is(err, group.ErrOverloaded):
				last = err
			default:
				last = fmt.Errorf("%w: %w", ErrNoLeader, err)
			}
		}
		if err := pause(ctx, backoff); err != nil {
			return fmt.Errorf("%w: %w", last, err)
		}
		if r.ctx.Err() != nil {
			return fmt.Errorf("%w: %w", group.ErrNotApplied, group.ErrClosed)
		}
		backoff = min(2*backoff, maxBackoff)
	}
}

// leader is the node of the leader, empty for this one, as the last refusal said or as this
// replica knows it.
func (r *Replica) leader(hint string) (node string, known bool) {
	if hint == "" {
		hint = nodeOf(r.group.Leader().Addr)
	}
	if hint == r.cfg.Node {
		return "", true
	}
	return hint, hint != ""
}

// nodeOf is the node in the address of a replica: what is before the last slash.
func nodeOf(addr string) string {
	if i := strings.LastIndexByte(addr, '/'); i >= 0 {
		return addr[:i]
	}
	return addr
}

// attempt has a command applied by the leader.
func (r *Replica) attempt(ctx context.Context, leader string, cmd []byte) (Done, error) {
	if leader == "" {
		o, err := r.batcher.propose(ctx, cmd)
		return Done{o.result, o.index}, err
	}
	reply, err := r.call(ctx, leader, CallPropose, cmd)
	if err != nil {
		return Done{}, err
	}
	var d Done
	if len(reply) < 8 {
		return Done{}, fmt.Errorf("%w: answer of %d bytes", group.ErrUnknownOutcome, len(reply))
	}
	d.Index = binary.LittleEndian.Uint64(reply)
	if err := d.UnmarshalBinary(reply[8:]); err != nil {
		return Done{}, fmt.Errorf("%w: %w", group.ErrUnknownOutcome, err)
	}
	return d, nil
}

// call asks another member. The error says whether it may have had an effect.
func (r *Replica) call(ctx context.Context, node string, kind calls.Kind, body []byte) ([]byte, error) {
	reply, err := r.cfg.Calls.Call(ctx, node, r.cfg.Name, kind, body)
	var ref *calls.Refusal
	switch {
	case err == nil:
		return reply, nil
	case errors.As(err, &ref):
		return nil, refused(ref)
	case errors.Is(err, calls.ErrNotSent), errors.Is(err, calls.ErrOverloaded):
		return nil, fmt.Errorf("%w: %w", group.ErrNotApplied, err)
	}
	return nil, fmt.Errorf("%w: %w", group.ErrUnknownOutcome, err)
}

// ErrUnknownCall: the kind of a call is of a later version.
var ErrUnknownCall = errors.New("unknown call")

// Serve answers a call of another member. An error is a *calls.Refusal.
func (r *Replica) Serve(ctx context.Context, kind calls.Kind, body []byte) ([]byte, error) {
	reply, err := r.serve(ctx, kind, body)
	if err != nil {
		return nil, refusal(err)
	}
	return reply, nil
}

func (r *Replica) serve(ctx context.Context, kind calls.Kind, body []byte) ([]byte, error) {
	switch kind {
	case CallPropose:
		// What this replica cannot apply it must not put into the log: all like it would stop.
		if err := new(machine.Command).UnmarshalBinary(body); err != nil {
			return nil, fmt.Errorf("%w: %w", group.ErrNotApplied, err)
		}
		o, err := r.batcher.propose(ctx, body)
		if err != nil {
			return nil, err
		}
		return o.result.AppendBinary(binary.LittleEndian.AppendUint64(make([]byte, 0, 64), o.index))
	case CallReadIndex:
		if len(body) < 8 {
			return nil, fmt.Errorf("%w: %d bytes", ErrUnknownCall, len(body))
		}
		index, err := r.readIndex(ctx, string(body[8:]), binary.LittleEndian.Uint64(body))
		if err != nil {
			return nil, err
		}
		return binary.LittleEndian.AppendUint64(nil, index), nil
	case CallKeepAlive:
		if len(body) != 8 {
			return nil, fmt.Errorf("%w: %d bytes", ErrUnknownCall, len(body))
		}
		ttl, err := r.duties.keepAlive(ctx, machine.LeaseID(binary.LittleEndian.Uint64(body)))
		if err != nil {
			return nil, err
		}
		return binary.LittleEndian.AppendUint64(nil, uint64(ttl.Milliseconds())), nil
	}
	return nil, fmt.Errorf("%w: %d", ErrUnknownCall, kind)
}
