package api

import (
	"context"
	"errors"
	"fmt"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/client/wire"
)

// A StrongBackend is a backend with strong keyspaces. Its Keyspace and Lookup give those
// as well.
type StrongBackend interface {
	client.StrongCaller
	client.StrongAdmin
	// IsStrong reports whether a keyspace is strong, as far as the node knows. It is
	// asked by every read and must be cheap.
	IsStrong(keyspace string) bool
}

func (s *Server) isStrong(keyspace string) bool {
	return s.strong != nil && s.strong.IsStrong(keyspace)
}

// strongKeyspaceJSON is the keyspace of the HTTP API with who votes and leads.
func strongKeyspaceJSON(info client.KeyspaceInfo, group client.StrongInfo) any {
	voters := make([]string, len(group.Voters))
	for i, v := range group.Voters {
		voters[i] = v.Server
	}
	return struct {
		Name    string   `json:"name"`
		Mode    string   `json:"mode"`
		Members []string `json:"members"`
		Keys    int      `json:"keys"`
		Bytes   int64    `json:"bytes"`
		Digest  string   `json:"digest"`
		Voters  []string `json:"voters"`
		Leader  string   `json:"leader"`
	}{info.Name, info.Mode, append([]string{}, info.Members...), info.Keys, info.Bytes, info.Digest, voters, group.Leader}
}

func (s *Server) strongBackend() (StrongBackend, error) {
	if s.strong == nil {
		return nil, fmt.Errorf("%w: this node has no strong keyspaces", client.ErrNeedsStrong)
	}
	return s.strong, nil
}

// callStrong carries out one call of a strong keyspace. One that waits ends as draining
// when the server does.
func (s *Server) callStrong(ctx context.Context, keyspace string, call *client.StrongCall) (client.StrongReply, error) {
	b, err := s.strongBackend()
	if err != nil {
		return client.StrongReply{}, err
	}
	reply, err := b.StrongCall(ctx, keyspace, call)
	if err != nil && context.Cause(ctx) == client.ErrDraining {
		err = fmt.Errorf("%w: %w", client.ErrDraining, err)
	}
	if call.Changes() {
		err = writeFailure(err)
	}
	return reply, err
}

func (s *Server) executeStrong(ctx context.Context, keyspace string, call *client.StrongCall, reply *wire.Reply) error {
	answer, err := s.callStrong(ctx, keyspace, call)
	if err != nil {
		return err
	}
	reply.Type = wire.Document
	if reply.Body, err = answer.AppendBinary(nil); err != nil {
		return err
	}
	if len(reply.Body) > wire.MaxReply-1024 {
		err := fmt.Errorf("%w: the answer does not fit into one reply; ask for less at a time", client.ErrTooLarge)
		if call.Changes() {
			err = fmt.Errorf("%w: it was applied, but %w", client.ErrUnknownOutcome, err)
		}
		return err
	}
	return nil
}

func (s *Server) executeAdmin(ctx context.Context, body []byte, reply *wire.Reply) error {
	b, err := s.strongBackend()
	if err != nil {
		return err
	}
	var call wire.AdminCall
	if err := wire.DecodeAdmin(body, &call); err != nil {
		return fmt.Errorf("%w: %w", client.ErrBadRequest, err)
	}
	reply.Type = wire.Done
	switch call.Op {
	case wire.DescribeStrong:
		info, err := b.StrongInfo(ctx, call.Keyspace)
		return document(reply, info, err)
	case wire.CreateKeyspace:
		err = b.CreateKeyspace(ctx, client.KeyspaceSpec{
			Name: call.Keyspace, Mode: call.Mode, Voters: int(min(call.Voters, 1<<16)), Quota: call.Quota,
		})
	case wire.RemoveKeyspace:
		err = b.RemoveKeyspace(ctx, call.Keyspace)
	case wire.AddVoter:
		err = b.AddVoter(ctx, call.Keyspace, call.Server)
	case wire.RemoveVoter:
		err = b.RemoveVoter(ctx, call.Keyspace, call.Server)
	case wire.Decommission:
		err = b.Decommission(ctx, call.Server)
	case wire.Recover:
		var report client.RecoveryReport
		if report, err = b.RecoverKeyspace(ctx, call.Keyspace, call.Server); err == nil {
			return document(reply, report, nil)
		}
	default:
		return fmt.Errorf("%w: this node does not know that administrative call", client.ErrBadRequest)
	}
	return adminFailure(err)
}

// adminFailure is the error of a change that operators asked for. Those that go on when
// their time is over say so by ErrTimeout.
func adminFailure(err error) error {
	if errors.Is(err, client.ErrTimeout) && !errors.Is(err, client.ErrUnknownOutcome) {
		return err
	}
	return writeFailure(err)
}
