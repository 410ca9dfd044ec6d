package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/meshkv/meshkv/client"
)

// withFake as the value of runAsProgram makes a process talk to a fakeNode, in
// which SIGUSR1 loses what is held.
const withFake = "fake"

// A fakeNode is a node of which the tests say what it answers. What they say
// nothing of, panics.
type fakeNode struct {
	rest
	client.StrongAdmin
	client.KeyspaceOperator
	strong   client.Strong
	keyspace client.Keyspace
	opened   string // the keyspace that was asked for last
}

// rest is what a cluster has besides StrongAdmin, which covers that of Cluster.
type rest struct{ client.Cluster }

func (n *fakeNode) Close() error { return nil }

func (n *fakeNode) Strong(_ context.Context, name string) (client.Strong, error) {
	n.opened = name
	return n.strong, nil
}

// History of a node whose keyspaces are strong.
func (n *fakeNode) History(context.Context, string, string, *client.HistoryOptions) (client.History, error) {
	return client.History{}, client.ErrNeedsEventual
}

func (n *fakeNode) Keyspace(_ context.Context, name string) (client.Keyspace, error) {
	n.opened = name
	return n.keyspace, nil
}

// A fakeStrong grants every lock at once, or fails with lockErr.
type fakeStrong struct {
	client.Strong
	lockErr func(ctx context.Context) error
	unlock  func() error
	lost    chan struct{}

	mu    sync.Mutex // protects calls
	calls []string
}

func newFakeStrong() *fakeStrong {
	return &fakeStrong{
		lost:    make(chan struct{}),
		lockErr: func(context.Context) error { return nil },
		unlock:  func() error { return nil },
	}
}

func (s *fakeStrong) called(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, fmt.Sprintf(format, args...))
}

func (s *fakeStrong) grant(ctx context.Context, call string) (*fakeHeld, error) {
	s.called("%s", call)
	if err := s.lockErr(ctx); err != nil {
		return nil, err
	}
	return &fakeHeld{s}, nil
}

func (s *fakeStrong) Lock(ctx context.Context, name string, o *client.LockOptions) (client.Held, error) {
	return s.grant(ctx, fmt.Sprintf("Lock %s %v", name, o.TTL))
}

func (s *fakeStrong) RLock(ctx context.Context, name string, o *client.LockOptions) (client.Held, error) {
	return s.grant(ctx, fmt.Sprintf("RLock %s %v", name, o.TTL))
}

func (s *fakeStrong) Semaphore(ctx context.Context, name string, places int, o *client.LockOptions) (client.Held, error) {
	return s.grant(ctx, fmt.Sprintf("Semaphore %s %d %v", name, places, o.TTL))
}

func (s *fakeStrong) Campaign(ctx context.Context, name string, value []byte, o *client.LockOptions) (client.Leadership, error) {
	return s.grant(ctx, fmt.Sprintf("Campaign %s %s %v", name, value, o.TTL))
}

type fakeHeld struct{ s *fakeStrong }

func (h *fakeHeld) Token() client.FencingToken { return 7 }
func (h *fakeHeld) Session() client.SessionID  { return 12 }
func (h *fakeHeld) Lost() <-chan struct{}      { return h.s.lost }

func (h *fakeHeld) Unlock(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	h.s.called("Unlock")
	return h.s.unlock()
}

func (h *fakeHeld) Proclaim(context.Context, []byte) error { return nil }

// fakeProgram is a meshkv process with a fakeNode. It tells on stderr when
// something is given up.
func fakeProgram() int {
	strong := newFakeStrong()
	strong.unlock = func() error {
		fmt.Fprintln(os.Stderr, "given up")
		return nil
	}
	usr1 := make(chan os.Signal, 1)
	signal.Notify(usr1, syscall.SIGUSR1)
	go func() {
		<-usr1
		close(strong.lost)
	}()
	a := newApp(os.Stdin, os.Stdout, os.Stderr, os.LookupEnv)
	a.dial = func(context.Context, string, *client.DialOptions) (remoteNode, error) {
		return &fakeNode{strong: strong}, nil
	}
	a.killAfter = time.Second
	return a.runProcess()
}

// fakeRun runs a command in this process with a fake node.
func fakeRun(t *testing.T, n remoteNode, stdin string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var stdout, stderr bytes.Buffer
	a := newApp(strings.NewReader(stdin), &stdout, &stderr, func(string) (string, bool) { return "", false })
	a.dial = func(context.Context, string, *client.DialOptions) (remoteNode, error) { return n, nil }
	code := a.run(ctx, args)
	return result{code, stdout.String(), stderr.String()}
}
