//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/meshkv/meshkv/examples/overlay/netlab"
	"github.com/vishvananda/netns"
)

const namePrefix = "mkvpart"

// A cluster is real agent processes, each in a namespace, on one switch.
type cluster struct {
	sw    netlab.Switch
	nodes []*agent
	forks chan func() // run on the thread that starts processes
}

// An agent is one node.
type agent struct {
	*api
	ns  netlab.Namespace
	log string
	cmd *exec.Cmd
	end chan error // receives how the process ended
}

// newCluster makes the namespaces. The caller closes it even after an error.
func newCluster(n int) (*cluster, error) {
	if err := removeLeftovers(); err != nil {
		return nil, err
	}
	prefix := fmt.Sprintf("%s%d-", namePrefix, os.Getpid())
	c := &cluster{sw: netlab.Switch{Namespace: netlab.Namespace{Name: prefix + "switch"}}, forks: make(chan func())}
	go func() {
		// Children are told to die with their parent, and the kernel takes the
		// thread that forked for the parent: one thread for all of them, which
		// lives as long as the cluster.
		runtime.LockOSThread()
		for f := range c.forks {
			f()
		}
	}()
	if err := c.sw.Create(); err != nil {
		return c, err
	}
	for i := 1; i <= n; i++ {
		name := fmt.Sprintf("n%d", i)
		a := &agent{ns: netlab.Namespace{Name: prefix + name}}
		a.api = newAPI(name, a.ns)
		c.nodes = append(c.nodes, a)
		if err := a.ns.Create(); err != nil {
			return c, err
		}
		port := netlab.Port{Name: name, Inside: a.ns, Link: "eth0", Addr: netip.PrefixFrom(meshAddr(i), 24)}
		if err := c.sw.Plug(port); err != nil {
			return c, err
		}
	}
	return c, nil
}

func meshAddr(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 251, 0, byte(i)}) }

// start starts every agent and waits until all serve and see each other.
func (c *cluster) start(ctx context.Context, binary, dir string) error {
	var join []string
	for i := range c.nodes {
		join = append(join, fmt.Sprintf("%s:%d", meshAddr(i+1), meshPort))
	}
	for i, a := range c.nodes {
		home := filepath.Join(dir, a.name)
		if err := os.MkdirAll(home, 0o755); err != nil {
			return err
		}
		a.log = filepath.Join(home, "agent.log")
		log, err := os.Create(a.log)
		if err != nil {
			return err
		}
		seeds := append(append([]string{}, join[:i]...), join[i+1:]...)
		a.cmd = exec.Command(binary, "agent", "--name", a.name, "--data-dir", filepath.Join(home, "data"), "--bind", join[i],
			"--http", fmt.Sprintf("127.0.0.1:%d", apiPort), "--join", strings.Join(seeds, ","), "--insecure")
		a.cmd.Stdout, a.cmd.Stderr = log, log
		a.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
		err = c.fork(a)
		log.Close()
		if err != nil {
			return fmt.Errorf("start %s: %w", a.name, err)
		}
	}
	return c.await(ctx, 30*time.Second, "see each other", func(a *agent) (bool, error) {
		n, err := a.alive(ctx)
		return n == len(c.nodes), err
	})
}

// fork starts one agent inside its namespace, from the cluster's thread.
func (c *cluster) fork(a *agent) error {
	done := make(chan error)
	c.forks <- func() { done <- inside(a.ns, a.cmd.Start) }
	if err := <-done; err != nil {
		return err
	}
	a.end = make(chan error, 1)
	go func() { a.end <- a.cmd.Wait() }()
	return nil
}

// inside runs f in ns on the calling thread, which stays where it was.
func inside(ns netlab.Namespace, f func() error) error {
	home, err := netns.Get()
	if err != nil {
		return err
	}
	defer home.Close()
	target, err := netns.GetFromName(ns.Name)
	if err != nil {
		return err
	}
	defer target.Close()
	if err := netns.Set(target); err != nil {
		return err
	}
	return errors.Join(f(), netns.Set(home))
}

// await polls every node until all satisfy is, or fails with the last reason.
func (c *cluster) await(ctx context.Context, within time.Duration, what string, is func(*agent) (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for _, a := range c.nodes {
		for {
			good, err := is(a)
			if good && err == nil {
				break
			}
			select {
			case end := <-a.end:
				a.end <- end
				return fmt.Errorf("%s ended: %v\n%s", a.name, end, tail(a.log))
			case <-ctx.Done():
				return fmt.Errorf("%s does not %s after %v (last error: %v)", a.name, what, within, err)
			case <-tick.C:
			}
		}
	}
	return nil
}

// close ends the agents and removes the namespaces.
func (c *cluster) close() error {
	var errs []error
	for _, a := range c.nodes {
		if a.end != nil {
			a.cmd.Process.Signal(syscall.SIGTERM)
		}
	}
	for _, a := range c.nodes {
		if a.end == nil {
			continue
		}
		select {
		case err := <-a.end:
			if err != nil {
				errs = append(errs, fmt.Errorf("%s ended badly after SIGTERM: %w\n%s", a.name, err, tail(a.log)))
			}
		case <-time.After(10 * time.Second):
			a.cmd.Process.Kill()
			errs = append(errs, fmt.Errorf("%s did not end within 10s of SIGTERM: %w", a.name, <-a.end))
		}
	}
	for _, a := range c.nodes {
		a.http.CloseIdleConnections()
		errs = append(errs, a.ns.Delete())
	}
	errs = append(errs, c.sw.Delete())
	close(c.forks)
	return errors.Join(errs...)
}

// removeLeftovers deletes the namespaces of runs that were killed. Their
// agents died with them.
func removeLeftovers() error {
	all, err := netlab.Namespaces(namePrefix)
	if err != nil {
		return err
	}
	for _, ns := range all {
		text, _, _ := strings.Cut(strings.TrimPrefix(ns.Name, namePrefix), "-")
		pid, err := strconv.Atoi(text)
		if err != nil {
			continue
		}
		if err := syscall.Kill(pid, 0); errors.Is(err, syscall.ESRCH) {
			if err := ns.Delete(); err != nil {
				return err
			}
		}
	}
	return nil
}

func tail(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil && st.Size() > 3000 {
		f.Seek(-3000, io.SeekEnd)
	}
	b, _ := io.ReadAll(f)
	return string(b)
}
