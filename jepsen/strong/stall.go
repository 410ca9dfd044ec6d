//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"

	"github.com/meshkv/meshkv/client"
)

const (
	// stalledReads are asked of a leader that goes on, at once, until stalledFor is over.
	stalledReads = 4
	stalledFor   = 1200 * time.Millisecond
)

// stall stops the leader until another leads and has written, and lets it go on in a way that it
// does not find out: it waits for its log, which nobody reads, when it is about to step
// down. What it answers then must be refused or new. A pause alone shows next to nothing: Raft's
// timers are the first to run after it.
//
//	A leads and is stopped
//	B is elected by B and C, and x=2 is written there
//	A goes on, finds that it has heard of nobody for too long, and waits to log that
//	a client asks A for x: who relies on A's belief that it leads serves x=1
func (x *nemesis) stall(ctx context.Context, s *server) (proof string, ok bool, err error) {
	at, err := s.client.Strong(ctx, x.keyspace) // its connection outlives the pause
	if err != nil {
		return "", false, err
	}
	x.stalls++
	key := fmt.Sprintf("stall/%d", x.stalls)
	id := 10_000 + x.stalls*(stalledReads+1)
	x.registers.do(ctx, at, key, id, input{kind: put, value: "before"}, new(seen))

	filled, free, err := s.log.hold()
	if err != nil {
		return "", false, err
	}
	defer func() { err = errors.Join(err, free()) }()
	pid := s.cmd.Process.Pid
	if err := s.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		return "", false, err
	}
	leader, term, infoErr := x.info(ctx, s.name)
	for _, o := range x.c.nodes {
		if infoErr == nil && o.name == leader {
			var h client.Strong
			if h, infoErr = o.client.Strong(ctx, x.keyspace); infoErr == nil {
				x.registers.do(ctx, h, key, id, input{kind: put, value: "after"}, new(seen))
			}
		}
	}
	state := processState(pid)
	if err := errors.Join(infoErr, s.cmd.Process.Signal(syscall.SIGCONT)); err != nil {
		return "", false, err
	}
	until := time.Now().Add(stalledFor)
	var wg sync.WaitGroup
	for i := range stalledReads {
		wg.Go(func() {
			for time.Now().Before(until) && ctx.Err() == nil {
				x.registers.do(ctx, at, key, id+1+i, input{kind: get}, new(seen))
				pause(ctx, 5*time.Millisecond)
			}
		})
	}
	wg.Wait()
	return fmt.Sprintf("pid %d in state %s, its log full with %d bytes, until %s led in term %d", pid, state, filled, leader, term), state == "T" && filled > 0, nil
}
