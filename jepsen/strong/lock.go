//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/meshkv/meshkv/client"
)

const (
	lockName  = "resource"
	lockTTL   = 2 * time.Second
	lockStop  = lockTTL + 1500*time.Millisecond // of a holder
	stopEvery = 6 * time.Second
)

// A lockWork is holders of one lock and the resource that it protects.
type lockWork struct {
	c        *cluster
	keyspace string

	mu       sync.Mutex // protects the fields below
	resource resource
	calls    map[string]int64
	grants   map[string]*grant
	queues   [][]string
	refused  int // late writes that the resource refused
	errors   map[string]int
	stopped  int // holders that were seen stopped while they held the lock
	nextStop time.Time
	stopping sync.WaitGroup
	found    []string
}

func newLockWork(c *cluster, keyspace string) *lockWork {
	return &lockWork{c: c, keyspace: keyspace, calls: make(map[string]int64), grants: make(map[string]*grant), errors: make(map[string]int),
		nextStop: time.Now().Add(time.Second)}
}

// run lets n holders work until ctx ends.
func (w *lockWork) run(ctx context.Context, n int, dir string) error {
	program, err := os.Executable()
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	defer w.stopping.Wait()
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	wg.Go(func() { w.lookAtQueue(ctx) })
	errs := make(chan error, n)
	for i := range n {
		s := w.c.nodes[i%len(w.c.nodes)]
		spec, err := json.Marshal(holderSpec{fmt.Sprintf("h%d", i+1), s.api, w.keyspace, lockName, lockTTL})
		if err != nil {
			return err
		}
		cmd := exec.Command(program)
		cmd.Env = append(os.Environ(), holderEnv+"="+string(spec))
		wg.Go(func() { errs <- w.holder(ctx, s, cmd) })
	}
	for range n {
		if err := <-errs; err != nil {
			return err
		}
	}
	return nil
}

// holder runs one process and is the resource to it.
func (w *lockWork) holder(ctx context.Context, s *server, cmd *exec.Cmd) error {
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	var text strings.Builder
	cmd.Stderr = &text
	if err := w.c.fork(s, cmd); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { in.Close() })
	defer stop()
	for lines := bufio.NewScanner(out); lines.Scan(); {
		var r report
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return fmt.Errorf("holder: %w", err)
		}
		if w.take(ctx, r, cmd.Process) {
			io.WriteString(in, "done\n") // it has ended if this fails
		}
	}
	if err := cmd.Wait(); err != nil && ctx.Err() == nil {
		return fmt.Errorf("holder: %w\n%s", err, text.String())
	}
	return nil
}

// take notes a report, and reports whether the holder waits for an answer.
func (w *lockWork) take(ctx context.Context, r report, p *os.Process) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch r.Kind {
	case "call":
		w.calls[r.Claim] = r.At
	case "grant":
		w.grants[r.Claim] = &grant{r.Claim, r.Token, w.calls[r.Claim], r.At, r.At}
		if now := time.Now(); now.After(w.nextStop) && ctx.Err() == nil {
			w.nextStop = now.Add(stopEvery)
			w.stopping.Go(func() { w.stop(p) })
		}
	case "write":
		// It was sure at r.At, and others may have written since: that the resource refuses.
		w.grants[r.Claim].sure = r.At
		w.resource.write(r.Token)
		return true
	case "late":
		if !w.resource.write(r.Token) {
			w.refused++
		}
		return true
	case "error":
		why := r.Detail
		if i := strings.LastIndex(why, ": "); i >= 0 && len(why) > 60 {
			why = "…" + why[i:]
		}
		w.errors[why]++
	}
	return false
}

// stop keeps a holder from running past the life of its session.
func (w *lockWork) stop(p *os.Process) {
	if p.Signal(syscall.SIGSTOP) != nil {
		return
	}
	pause(context.Background(), lockStop)
	state := processState(p.Pid)
	p.Signal(syscall.SIGCONT)
	w.mu.Lock()
	defer w.mu.Unlock()
	if state == "T" {
		w.stopped++
	}
}

// lookAtQueue notes who waits, again and again, as a majority knows it.
func (w *lockWork) lookAtQueue(ctx context.Context) {
	rng := rand.New(rand.NewPCG(1, 1))
	for ctx.Err() == nil {
		attempt, cancel := context.WithTimeout(ctx, time.Second)
		reply, err := w.c.nodes[rng.IntN(len(w.c.nodes))].client.StrongCall(attempt, w.keyspace, &client.StrongCall{Kind: client.CallLockInfo, Name: lockName})
		cancel()
		if err == nil && reply.Known {
			var q []string
			for _, h := range reply.Waiting {
				q = append(q, string(h.Value))
			}
			w.mu.Lock()
			w.queues = append(w.queues, q)
			if len(reply.Holders) > 1 {
				w.found = append(w.found, fmt.Sprintf("%d holders at once at the servers", len(reply.Holders)))
			}
			w.mu.Unlock()
		}
		pause(ctx, 50*time.Millisecond)
	}
}

// judge returns what is wrong, and why the run proves nothing of locks.
func (w *lockWork) judge() (found, invalid []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var grants []grant
	for _, g := range w.grants {
		grants = append(grants, *g)
	}
	found = append(w.found, grantProblems(grants, w.queues)...)
	longest := 0
	for _, q := range w.queues {
		longest = max(longest, len(q))
	}
	switch {
	case len(grants) < 10:
		invalid = append(invalid, fmt.Sprintf("only %d grants of the lock", len(grants)))
	case longest < 3:
		invalid = append(invalid, fmt.Sprintf("never more than %d waiters were seen", longest))
	case w.stopped == 0 || w.refused == 0:
		invalid = append(invalid, fmt.Sprintf("%d holders were stopped, %d late writes refused", w.stopped, w.refused))
	}
	return found, invalid
}

func (w *lockWork) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return fmt.Sprintf("lock: %d grants, highest token %d, %d writes accepted, %d refused (%d of them of holders that were stopped, %d stops), %d looks at the queue, errors %v",
		len(w.grants), w.resource.highest, w.resource.accepted, w.resource.refused, w.refused, w.stopped, len(w.queues), w.errors)
}
