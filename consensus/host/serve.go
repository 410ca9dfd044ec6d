package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/meshkv/meshkv/consensus/calls"
	"github.com/meshkv/meshkv/consensus/group"
	"github.com/meshkv/meshkv/consensus/placement"
	"github.com/meshkv/meshkv/consensus/replica"
)

// Calls to a host itself, of hostGroup. Bodies and answers are JSON. Part of the protocol: append only.
const (
	callStatement  calls.Kind = iota + 1 // placement.Statement → that of the answering server
	callSystem                           // nothing → the Entry of the system group
	callRegister                         // placement.Server
	callCreate                           // Spec → Entry
	callRemove                           // name → Entry
	callVoter                            // voterChange → Entry
	callDrain                            // name of a server
	callObserve                          // name of a group → placement.Observation
	callStep                             // step
	callRecover                          // recovery → Recovered
	callLearn                            // Entry
	callDescribe                         // name of a group → Description
	callEntries                          // nothing → all entries
	callRecovered                        // recovery → Entry
	callHeartbeats                       // id of the replicas that are meant, a zero, heartbeats → answers; no JSON
)

// hostGroup is where calls to hosts go. No group has that name.
const hostGroup = "_host"

// Codes of refusals of hosts; see the errors of the same names. Append only.
const (
	refusedRetry uint8 = iota + 64 // ErrNotReady
	refusedConflict
	refusedNotFound
	refusedNoServer
	refusedInvalid
	refusedNoQuorum
	refusedBusy
	refusedFailed
	refusedUnknown
)

// Errors of what is asked of the catalog. Match with errors.Is.
var (
	// ErrNotReady: the system group has not begun, or nobody of it can be reached.
	ErrNotReady = errors.New("the catalog of strong keyspaces cannot be reached")
	// ErrConflict: there is something else of that name, or it is not in that state.
	ErrConflict = errors.New("conflict")
	// ErrNotFound: no keyspace or server has that name.
	ErrNotFound = errors.New("not found")
	// ErrNoServer: no server can hold a replica.
	ErrNoServer = errors.New("no server can hold a replica")
	// ErrInvalid: what was asked makes no sense; the text says why.
	ErrInvalid = errors.New("invalid")
	// ErrNoQuorum: a majority of voters is not there.
	ErrNoQuorum = errors.New("no majority")
	// ErrBusy: another change is under way.
	ErrBusy = errors.New("another change is under way")
)

var hostErrors = map[uint8]error{
	refusedRetry: ErrNotReady, refusedConflict: ErrConflict, refusedNotFound: ErrNotFound, refusedNoServer: ErrNoServer,
	refusedInvalid: ErrInvalid, refusedNoQuorum: ErrNoQuorum, refusedBusy: ErrBusy,
}

// unknown reports whether what failed may have been done all the same.
func unknown(err error) bool {
	return errors.Is(err, group.ErrUnknownOutcome) || errors.Is(err, calls.ErrLost)
}

// refusalOf is err on its way to another server.
func refusalOf(err error) *calls.Refusal {
	if unknown(err) {
		return &calls.Refusal{Code: refusedUnknown, Detail: err.Error()}
	}
	for code, is := range hostErrors {
		if errors.Is(err, is) {
			return &calls.Refusal{Code: code, Detail: err.Error()}
		}
	}
	return &calls.Refusal{Code: refusedFailed, Detail: err.Error()}
}

// refusedAs is what another server's refusal means.
func refusedAs(r *calls.Refusal) error {
	if r.Code == refusedUnknown {
		return fmt.Errorf("%w: %s", group.ErrUnknownOutcome, r.Detail)
	}
	if is, ok := hostErrors[r.Code]; ok {
		return fmt.Errorf("%w: %s", is, r.Detail)
	}
	return errors.New(r.Detail)
}

// Serve implements calls.Handler.
func (h *Host) Serve(ctx context.Context, name string, kind calls.Kind, body []byte) ([]byte, error) {
	if name == hostGroup {
		answer, err := h.serve(ctx, kind, body)
		if err != nil {
			return nil, refusalOf(err)
		}
		return answer, nil
	}
	h.mu.Lock()
	r := h.running[name]
	h.mu.Unlock()
	if r == nil {
		return nil, replica.Absent() // the caller looks for another
	}
	return r.replica.Serve(ctx, kind, body)
}

func (h *Host) serve(ctx context.Context, kind calls.Kind, body []byte) ([]byte, error) {
	switch kind {
	case callHeartbeats:
		return h.answerHeartbeats(body)
	case callStatement:
		return with(body, func(s placement.Statement) (any, error) { return h.hear(s) })
	case callSystem:
		e, ok := h.Entry(System)
		if !ok {
			return nil, ErrNotReady
		}
		return MarshalEntry(e)
	case callRegister:
		return with(body, func(s placement.Server) (any, error) { return nil, h.register(ctx, s) })
	case callCreate:
		return with(body, func(s Spec) (any, error) { return h.create(ctx, s) })
	case callRemove:
		return with(body, func(name string) (any, error) { return h.removeKeyspace(ctx, name) })
	case callVoter:
		return with(body, func(c voterChange) (any, error) { return h.changeVoter(ctx, c) })
	case callDrain:
		return with(body, func(name string) (any, error) { return nil, h.drain(ctx, name) })
	case callObserve:
		return with(body, func(name string) (any, error) { return h.observe(ctx, name) })
	case callStep:
		return with(body, func(s step) (any, error) { return h.take(ctx, s) })
	case callRecovered:
		return with(body, func(r recovery) (any, error) {
			if len(r.Next.Initial) != 1 {
				return nil, fmt.Errorf("%w: a recovery has one survivor", ErrInvalid)
			}
			return h.recovered(ctx, r)
		})
	case callDescribe:
		return with(body, func(name string) (any, error) { return h.describe(ctx, name) })
	case callEntries:
		return with(body, func(any) (any, error) { return h.entriesHere(ctx) })
	case callLearn:
		return with(body, func(e Entry) (any, error) { h.Learn(e); return nil, nil })
	case callRecover:
		return with(body, func(r recovery) (any, error) { return h.recoverHere(ctx, r) })
	}
	return nil, fmt.Errorf("%w: this server does not know calls of kind %d", ErrInvalid, kind)
}

// with decodes the body of a call and encodes its answer.
func with[T any](body []byte, do func(T) (any, error)) ([]byte, error) {
	var t T
	if err := json.Unmarshal(body, &t); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	answer, err := do(t)
	if err != nil || answer == nil {
		return nil, err
	}
	return json.Marshal(answer)
}

// ask calls the host of a node, which may be this one.
func ask[T any](ctx context.Context, h *Host, node string, kind calls.Kind, body any) (answer T, err error) {
	b, err := json.Marshal(body)
	if err != nil {
		return answer, err
	}
	var reply []byte
	if node == h.cfg.Name {
		if reply, err = h.serve(ctx, kind, b); err != nil {
			return answer, err
		}
	} else {
		reply, err = h.client.Call(ctx, node, hostGroup, kind, b)
		var ref *calls.Refusal
		if errors.As(err, &ref) {
			return answer, refusedAs(ref)
		}
		if err != nil {
			return answer, fmt.Errorf("ask %s: %w", node, err)
		}
	}
	if len(reply) > 0 {
		if err := json.Unmarshal(reply, &answer); err != nil {
			return answer, fmt.Errorf("answer of %s: %w", node, err)
		}
	}
	return answer, nil
}

// again reports whether another server may be asked: all that is asked of the catalog can be asked twice.
func again(err error) bool {
	return errors.Is(err, calls.ErrNotSent) || errors.Is(err, ErrNotReady) || errors.Is(err, group.ErrNotApplied) || unknown(err)
}
