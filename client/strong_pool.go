package client

import (
	"context"
	"fmt"
	"math"
)

// Allocator implements Strong.
func (s *strongHandle) Allocator(pool string) Allocator { return &allocator{s, pool} }

type allocator struct {
	s    *strongHandle
	pool string
}

func (a *allocator) call(ctx context.Context, c *StrongCall) (StrongReply, error) {
	if err := checkStrongName("pool", a.pool); err != nil {
		return StrongReply{}, err
	}
	c.Name = a.pool
	return a.s.call(ctx, c)
}

// Define implements Allocator.
func (a *allocator) Define(ctx context.Context, first, last uint64) error {
	if first > last {
		return fmt.Errorf("%w: a pool from %d to %d has nothing in it", ErrBadRequest, first, last)
	}
	_, err := a.call(ctx, &StrongCall{Kind: CallDefinePool, First: first, Last: last})
	return err
}

// Remove implements Allocator.
func (a *allocator) Remove(ctx context.Context) error {
	_, err := a.call(ctx, &StrongCall{Kind: CallRemovePool})
	return err
}

// Allocate implements Allocator.
func (a *allocator) Allocate(ctx context.Context, o *AllocateOptions) (Allocation, error) {
	var opts AllocateOptions
	if o != nil {
		opts = *o
	}
	switch {
	case len(opts.Label) > maxLabel:
		return Allocation{}, fmt.Errorf("%w: a label has at most %d bytes, this one has %d", ErrBadRequest, maxLabel, len(opts.Label))
	case opts.At != 0 && !opts.Exact:
		return Allocation{}, fmt.Errorf("%w: At asks for a certain block only if Exact is set", ErrBadRequest)
	}
	c := &StrongCall{
		Kind: CallAllocate, First: opts.At, Size: max(opts.Size, 1), Align: max(opts.Align, 1), Exact: opts.Exact,
		Session: opts.Session, Label: opts.Label,
	}
	reply, err := a.call(ctx, c)
	if err != nil {
		return Allocation{}, err
	}
	return Allocation{First: reply.First, Size: c.Size, Token: reply.Token, Session: opts.Session, Label: opts.Label}, nil
}

// Free implements Allocator.
func (a *allocator) Free(ctx context.Context, first uint64, token FencingToken) error {
	_, err := a.call(ctx, &StrongCall{Kind: CallFree, First: first, Token: token})
	return err
}

// List implements Allocator. It reads page by page: an answer ends anywhere, and the last
// one is empty.
func (a *allocator) List(ctx context.Context) ([]Allocation, error) {
	var all []Allocation
	for from := uint64(0); ; {
		reply, err := a.call(ctx, &StrongCall{Kind: CallListPool, First: from})
		n := len(reply.Allocations)
		if err != nil {
			return nil, err
		}
		all = append(all, reply.Allocations...)
		if n == 0 || reply.Allocations[n-1].First == math.MaxUint64 {
			return all, nil
		}
		from = reply.Allocations[n-1].First + 1
	}
}
