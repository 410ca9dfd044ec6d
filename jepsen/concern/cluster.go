//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A cluster is real agent processes on loopback, each with its own directory.
type cluster struct {
	binary string
	nodes  []*agent
	forks  chan func() // run on the thread that starts processes
}

// An agent is one node, over all its lives.
type agent struct {
	name, mesh, http string // addresses
	home             string
	seeds            []string
	client           *http.Client

	mu    sync.Mutex // protects the fields below
	cmd   *exec.Cmd
	ended chan struct{} // closed when the process has ended
	state *os.ProcessState
}

func newCluster(n int, binary, dir string) (*cluster, error) {
	c := &cluster{binary: binary, forks: make(chan func())}
	addrs, err := freeAddrs(2 * n)
	if err != nil {
		return nil, err
	}
	go func() {
		// Children are told to die with their parent, and the kernel takes the
		// thread that forked for the parent.
		runtime.LockOSThread()
		for f := range c.forks {
			f()
		}
	}()
	for i := range n {
		a := &agent{name: fmt.Sprintf("n%d", i+1), mesh: addrs[2*i], http: addrs[2*i+1], client: &http.Client{}}
		a.home = filepath.Join(dir, a.name)
		c.nodes = append(c.nodes, a)
	}
	for _, a := range c.nodes {
		for _, other := range c.nodes {
			if other != a {
				a.seeds = append(a.seeds, other.mesh)
			}
		}
	}
	return c, nil
}

// freeAddrs are addresses that nobody listens at, now.
func freeAddrs(n int) (addrs []string, err error) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close() // when all are known, so that none is given twice
		addrs = append(addrs, l.Addr().String())
	}
	return addrs, nil
}

// start begins a life of a.
func (c *cluster) start(a *agent) error {
	if err := os.MkdirAll(a.home, 0o755); err != nil {
		return err
	}
	log, err := os.OpenFile(a.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(c.binary, "agent", "--name", a.name, "--data-dir", a.data(), "--bind", a.mesh, "--http", a.http, "--join", strings.Join(a.seeds, ","))
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	done := make(chan error)
	c.forks <- func() { done <- cmd.Start() }
	if err := <-done; err != nil {
		return fmt.Errorf("start %s: %w", a.name, err)
	}
	ended := make(chan struct{})
	a.mu.Lock()
	a.cmd, a.ended, a.state = cmd, ended, nil
	a.mu.Unlock()
	go func() {
		cmd.Wait() // its end is in the state
		a.mu.Lock()
		a.state = cmd.ProcessState
		a.mu.Unlock()
		close(ended)
	}()
	return nil
}

func (a *agent) data() string { return filepath.Join(a.home, "data") }
func (a *agent) log() string  { return filepath.Join(a.home, "agent.log") }

// kill sends SIGKILL to all of them at once, and returns when they have ended of it.
func kill(all []*agent) error {
	for _, a := range all {
		if err := a.cmd.Process.Kill(); err != nil {
			return fmt.Errorf("kill %s, which ended before: %w\n%s", a.name, err, a.tail())
		}
	}
	for _, a := range all {
		<-a.ended
		if ws, ok := a.state.Sys().(syscall.WaitStatus); !ok || ws.Signal() != syscall.SIGKILL {
			return fmt.Errorf("%s did not end of SIGKILL: %v\n%s", a.name, a.state, a.tail())
		}
		a.client.CloseIdleConnections()
	}
	return nil
}

// pause sends SIGSTOP to all of them, and returns when they stand still: they take
// nothing and answer nothing, until they are killed.
func pause(ctx context.Context, all []*agent) error {
	for _, a := range all {
		if err := a.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
			return fmt.Errorf("stop %s: %w", a.name, err)
		}
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for _, a := range all {
		for {
			stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", a.cmd.Process.Pid))
			if err != nil {
				return fmt.Errorf("stop %s: %w", a.name, err)
			}
			if _, rest, found := strings.Cut(string(stat), ") "); found && strings.HasPrefix(rest, "T") {
				break
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("%s does not stand still: %w", a.name, ctx.Err())
			case <-tick.C:
			}
		}
	}
	return nil
}

// wipe removes the directory of an agent that has ended, and returns how much was
// in it.
func (a *agent) wipe() (bytes int64, err error) {
	err = filepath.Walk(a.data(), func(_ string, info os.FileInfo, err error) error {
		if err == nil && !info.IsDir() {
			bytes += info.Size()
		}
		return err
	})
	if err != nil {
		return 0, err
	}
	return bytes, os.RemoveAll(a.data())
}

func (a *agent) tail() string {
	b, err := os.ReadFile(a.log())
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(string(b), "\n")
	return strings.Join(lines[max(0, len(lines)-15):], "\n")
}

// await asks every node until is says so.
func (c *cluster) await(ctx context.Context, what string, is func(*agent) error) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for _, a := range c.nodes {
		for {
			err := is(a)
			if err == nil {
				break
			}
			select {
			case <-a.ended:
				return fmt.Errorf("%s ended by itself: %v\n%s", a.name, a.state, a.tail())
			case <-ctx.Done():
				return fmt.Errorf("%s: %s: %w (last: %w)", a.name, what, ctx.Err(), err)
			case <-tick.C:
			}
		}
	}
	return nil
}

// close ends what runs.
func (c *cluster) close() error {
	running := slices.DeleteFunc(slices.Clone(c.nodes), func(a *agent) bool {
		if a.ended == nil {
			return true
		}
		select {
		case <-a.ended:
			return true
		default:
			return false
		}
	})
	defer close(c.forks)
	return kill(running)
}

// A statusError is an answer that is not 200.
type statusError struct {
	status int
	text   string
}

func (e *statusError) Error() string { return fmt.Sprintf("%d %s", e.status, e.text) }

// do is one call of the HTTP API.
func (a *agent) do(ctx context.Context, method, path, body string, read func(io.Reader) error) error {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+a.http+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := a.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, err := io.ReadAll(io.LimitReader(resp.Body, 500))
		return errors.Join(&statusError{resp.StatusCode, strings.TrimSpace(string(text))}, err)
	}
	return read(resp.Body)
}
