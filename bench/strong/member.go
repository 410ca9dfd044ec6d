package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/meshkv/meshkv/bench/peer/voter"
)

// members is the number of servers of every cluster.
const members = 3

// A member is one server process.
type member struct {
	args  []string
	log   string
	spec  voter.Spec
	cmd   *exec.Cmd     // nil: not running
	ended chan struct{} // closed when cmd has ended
}

// start runs the process, which dies with us.
func (m *member) start() error {
	f, err := os.OpenFile(m.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	defer f.Close()
	cmd := exec.Command(m.args[0], m.args[1:]...)
	cmd.Stdout, cmd.Stderr = f, f
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", m.spec.Name, err)
	}
	m.cmd, m.ended = cmd, make(chan struct{})
	go func(ended chan struct{}) {
		defer close(ended)
		cmd.Wait() // how it ended is in its log
	}(m.ended)
	return nil
}

// kill is kill -9.
func (m *member) kill() {
	if m.cmd != nil {
		m.cmd.Process.Kill()
		<-m.ended
		m.cmd = nil
	}
}

// A cluster is the running servers of one system.
type cluster struct {
	dir     string
	members [members]*member
	store   store
	filled  bool // all keys are there
}

// freePort is one that nobody listens at, below those that the kernel gives to
// connections: one of these could be taken before the server starts.
func freePort() (string, error) {
	var err error
	for range 100 {
		addr := fmt.Sprintf("127.0.0.1:%d", 10_000+rand.IntN(20_000))
		var ln net.Listener
		if ln, err = net.Listen("tcp", addr); err == nil {
			return addr, ln.Close()
		}
	}
	return "", fmt.Errorf("find a free port: %w", err)
}

// newCluster starts the servers, with some flags more, in a directory of their own and
// waits until each serves writes.
func newCluster(ctx context.Context, s *system, bin, parent string, more []string) (_ *cluster, err error) {
	dir, err := os.MkdirTemp(parent, s.name+"-")
	if err != nil {
		return nil, fmt.Errorf("make a directory: %w", err)
	}
	c := &cluster{dir: dir}
	defer func() {
		if err != nil {
			err = fmt.Errorf("%w%s", err, c.lastWords())
			c.stop()
		}
	}()
	var peers []voter.Peer
	for i := range c.members {
		spec := voter.Spec{Name: fmt.Sprintf("n%d", i+1)}
		spec.Dir = filepath.Join(dir, spec.Name)
		if spec.Client, err = freePort(); err != nil {
			return nil, err
		}
		if spec.Peer, err = freePort(); err != nil {
			return nil, err
		}
		peers = append(peers, voter.Peer{Name: spec.Name, Addr: spec.Peer})
		c.members[i] = &member{spec: spec, log: spec.Dir + ".log"}
	}
	for _, m := range c.members {
		m.spec.Cluster = peers
		m.args = slices.Concat([]string{bin}, s.args(m.spec), more)
		if err := m.start(); err != nil {
			return nil, err
		}
	}
	var watch sync.WaitGroup
	defer watch.Wait()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	limit := time.AfterFunc(time.Minute, func() { cancel(errors.New("not ready after a minute")) })
	defer limit.Stop()
	defer func() {
		if cause := context.Cause(ctx); err != nil && cause != nil {
			err = fmt.Errorf("%w: %w", cause, err)
		}
	}()
	for _, m := range c.members {
		watch.Go(func() {
			select {
			case <-m.ended: // it will never serve
				cancel(fmt.Errorf("%s has ended", m.spec.Name))
			case <-ctx.Done():
			}
		})
	}
	if c.store, err = s.connect(ctx, c.specs()); err != nil {
		return nil, fmt.Errorf("connect to %s: %w", s.name, err)
	}
	if err := c.store.create(ctx, []string{mainSpace}); err != nil {
		return nil, fmt.Errorf("%s: create: %w", s.name, err)
	}
	for i := range c.members {
		if err := c.ready(ctx, place{i, mainSpace}); err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return c, pause(ctx, time.Second) // what the start began ends
}

func (c *cluster) specs() []voter.Spec {
	var specs []voter.Spec
	for _, m := range c.members {
		specs = append(specs, m.spec)
	}
	return specs
}

// ready waits until a write at that place succeeds, and a read after it.
func (c *cluster) ready(ctx context.Context, at place) error {
	for {
		attempt, cancel := context.WithTimeout(ctx, time.Second)
		err := c.store.put(attempt, at, "ready", []byte("x"))
		if err == nil {
			_, err = c.store.get(attempt, at, "ready")
		}
		cancel()
		if err == nil {
			return nil
		}
		if pause(ctx, 20*time.Millisecond) != nil {
			return fmt.Errorf("member %d does not serve %s: %w", at.member+1, at.space, err)
		}
	}
}

// stop ends all processes and removes their files.
func (c *cluster) stop() {
	if c.store != nil {
		c.store.close()
	}
	for _, m := range c.members {
		if m != nil {
			m.kill()
		}
	}
	if err := os.RemoveAll(c.dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		fmt.Fprintln(os.Stderr, "strong:", err)
	}
}

// lastWords is the end of what the members logged, for the report of a failure.
func (c *cluster) lastWords() string {
	var all strings.Builder
	for _, m := range c.members {
		if m == nil {
			continue
		}
		if b, err := os.ReadFile(m.log); err == nil && len(b) > 0 {
			fmt.Fprintf(&all, "\n%s: %s", m.spec.Name, b[max(0, len(b)-500):])
		}
	}
	return all.String()
}

// cpu is what the running members have used, to the nanosecond by the scheduler's count:
// ticks would miss what is shorter than one.
func (c *cluster) cpu() (time.Duration, error) {
	var sum int64
	for _, m := range c.members {
		if m.cmd == nil {
			continue
		}
		tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", m.cmd.Process.Pid))
		if err != nil {
			return 0, err
		}
		if len(tasks) == 0 {
			return 0, fmt.Errorf("member %s has ended", m.spec.Name)
		}
		for _, path := range tasks {
			b, err := os.ReadFile(path)
			if err != nil {
				continue // the thread has just ended
			}
			ns, _, _ := strings.Cut(string(b), " ")
			n, err := strconv.ParseInt(ns, 10, 64)
			if err != nil {
				return 0, fmt.Errorf("read %s: %w", path, err)
			}
			sum += n
		}
	}
	return time.Duration(sum), nil
}

// ownCPU is what this process has used.
func ownCPU() (time.Duration, error) {
	var ru syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &ru); err != nil {
		return 0, fmt.Errorf("resource usage: %w", err)
	}
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano()), nil
}

// rss is the resident memory of each running member, in bytes.
func (c *cluster) rss() ([]float64, error) {
	var all []float64
	for _, m := range c.members {
		if m.cmd == nil {
			continue
		}
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", m.cmd.Process.Pid))
		if err != nil {
			return nil, fmt.Errorf("resident memory: %w", err)
		}
		words := strings.Fields(string(b))
		if len(words) < 2 {
			return nil, fmt.Errorf("resident memory: %q", b)
		}
		pages, err := strconv.ParseInt(words[1], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("resident memory: %w", err)
		}
		all = append(all, float64(pages)*float64(os.Getpagesize()))
	}
	return all, nil
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
