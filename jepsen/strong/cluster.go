//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/examples/overlay/netlab"
	"github.com/vishvananda/netns"
)

const (
	namePrefix = "mkvlin"
	apiPort    = 7951
	meshPort   = 7950
)

// A cluster is real server processes. With namespaces each has one of its own, on one
// switch that can be cut; without, all are on the loopback and cannot be parted.
type cluster struct {
	binary     string
	namespaces bool
	sw         netlab.Switch
	nodes      []*server
	voters     int         // of the keyspace; 0: all servers
	forks      chan func() // run on the thread that starts processes
}

// A server is one node. Its clients are on its own side of every cut.
type server struct {
	name      string
	mesh, api string
	ns        netlab.Namespace
	args      []string
	logPath   string
	log       *logPipe
	cmd       *exec.Cmd
	end       chan error // receives how the process ended, once its log is whole
	client    *client.Client
}

// newCluster makes the network. The caller closes the cluster even after an error.
func newCluster(n int, namespaces bool, binary, dir string) (*cluster, error) {
	prefix := fmt.Sprintf("%s%d-", namePrefix, os.Getpid())
	c := &cluster{binary: binary, namespaces: namespaces, forks: make(chan func()),
		sw: netlab.Switch{Namespace: netlab.Namespace{Name: prefix + "switch"}}}
	go func() {
		// Children die with the thread that forked them, so one thread forks all and
		// lives as long as the cluster.
		runtime.LockOSThread()
		for f := range c.forks {
			f()
		}
	}()
	if namespaces {
		if err := removeLeftovers(); err != nil {
			return c, err
		}
		if err := c.sw.Create(); err != nil {
			return c, err
		}
	}
	var names, mesh []string
	for i := range n {
		s := &server{name: fmt.Sprintf("n%d", i+1)}
		if err := c.place(s, i, prefix); err != nil {
			return c, err
		}
		c.nodes = append(c.nodes, s)
		names, mesh = append(names, s.name), append(mesh, s.mesh)
	}
	for i, s := range c.nodes {
		home := filepath.Join(dir, s.name)
		if err := os.MkdirAll(home, 0o755); err != nil {
			return c, err
		}
		s.logPath = filepath.Join(home, "agent.log")
		others := append(append([]string{}, mesh[:i]...), mesh[i+1:]...)
		s.args = []string{"agent", "--name", s.name, "--data-dir", filepath.Join(home, "data"), "--bind", s.mesh, "--http", s.api,
			"--join", strings.Join(others, ","), "--server", "--insecure", "--log-level", "debug"}
		if first := names[:min(n, 3)]; i < len(first) { // the others join the cluster that these begin
			s.args = append(s.args, "--bootstrap-servers", strings.Join(first, ","))
		}
	}
	return c, nil
}

// place gives a server its addresses, and its namespace if it has one.
func (c *cluster) place(s *server, i int, prefix string) error {
	if !c.namespaces {
		for _, at := range []*string{&s.mesh, &s.api} {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				return err
			}
			*at = l.Addr().String()
			l.Close()
		}
		return nil
	}
	addr := netip.AddrFrom4([4]byte{10, 252, 0, byte(i + 1)})
	s.mesh, s.api = fmt.Sprintf("%s:%d", addr, meshPort), fmt.Sprintf("127.0.0.1:%d", apiPort)
	s.ns = netlab.Namespace{Name: prefix + s.name}
	if err := s.ns.Create(); err != nil {
		return err
	}
	return c.sw.Plug(netlab.Port{Name: s.name, Inside: s.ns, Link: "eth0", Addr: netip.PrefixFrom(addr, 24)})
}

// launch starts the process of a server; run again, it goes on with the same data.
func (c *cluster) launch(s *server) error {
	log, write, err := newLogPipe(s.logPath)
	if err != nil {
		return err
	}
	s.cmd = exec.Command(c.binary, s.args...)
	s.cmd.Stdout, s.cmd.Stderr = write, write
	if err := errors.Join(c.fork(s, s.cmd), write.Close()); err != nil {
		return fmt.Errorf("start %s: %w", s.name, err)
	}
	s.log = log
	cmd, end := s.cmd, make(chan error, 1)
	s.end = end
	go func() { end <- errors.Join(cmd.Wait(), log.wait()) }()
	return nil
}

// fork starts a process beside a server.
func (c *cluster) fork(s *server, cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	done := make(chan error)
	c.forks <- func() {
		if c.namespaces {
			done <- inside(s.ns, cmd.Start)
		} else {
			done <- cmd.Start()
		}
	}
	return <-done
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

// dial connects to the API of a server, waiting for it.
func (c *cluster) dial(ctx context.Context, s *server) (*client.Client, error) {
	o := &client.DialOptions{FailFast: true, MaxBackoff: 100 * time.Millisecond, PingInterval: time.Second}
	if c.namespaces {
		o.Dialer = func(ctx context.Context) (net.Conn, error) { return s.ns.DialContext(ctx, "tcp", s.api) }
	}
	for {
		cl, err := client.Dial(ctx, s.api, o)
		if err == nil {
			return cl, nil
		}
		if pause(ctx, 20*time.Millisecond); ctx.Err() != nil {
			return nil, fmt.Errorf("%s: %w\n%s", s.name, err, tail(s.logPath))
		}
	}
}

// start starts every server, creates the keyspace and waits until all serve it.
func (c *cluster) start(ctx context.Context, keyspace string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for _, s := range c.nodes {
		if err := c.launch(s); err != nil {
			return err
		}
	}
	var err error
	for _, s := range c.nodes {
		if s.client, err = c.dial(ctx, s); err != nil {
			return err
		}
	}
	return c.create(ctx, keyspace)
}

// create creates the keyspace, once the servers have met, and waits until all serve it.
func (c *cluster) create(ctx context.Context, keyspace string) error {
	voters := c.voters
	if voters == 0 {
		voters = len(c.nodes)
	}
	for {
		attempt, cancel := context.WithTimeout(ctx, 2*time.Second)
		err := c.nodes[0].client.CreateKeyspace(attempt, client.KeyspaceSpec{Name: keyspace, Mode: "strong", Voters: voters})
		cancel()
		if err == nil {
			break
		}
		if pause(ctx, 20*time.Millisecond); ctx.Err() != nil {
			return fmt.Errorf("create keyspace: %w\n%s", err, tail(c.nodes[0].logPath))
		}
	}
	return c.awaitServing(ctx, keyspace)
}

// awaitServing waits until every server answers a linearizable read.
func (c *cluster) awaitServing(ctx context.Context, keyspace string) error {
	for _, s := range c.nodes {
		for {
			attempt, cancel := context.WithTimeout(ctx, time.Second)
			_, err := s.client.StrongCall(attempt, keyspace, &client.StrongCall{Kind: client.CallTxn,
				Txn: &client.Txn{Then: []client.TxnOp{{Get: &client.TxnGet{Key: "serving"}}}}})
			cancel()
			if err == nil {
				break
			}
			if pause(ctx, 20*time.Millisecond); ctx.Err() != nil {
				return fmt.Errorf("%s does not serve %s: %w\n%s", s.name, keyspace, err, tail(s.logPath))
			}
		}
	}
	return nil
}

// close ends the servers and removes the network.
func (c *cluster) close() error {
	var errs []error
	for _, s := range c.nodes {
		if s.client != nil {
			s.client.Close()
		}
		if s.end != nil {
			s.cmd.Process.Signal(syscall.SIGCONT) // a fault may have been cut short
			s.cmd.Process.Signal(syscall.SIGTERM)
		}
	}
	for _, s := range c.nodes {
		if s.end == nil {
			continue
		}
		select {
		case err := <-s.end:
			if err != nil {
				errs = append(errs, fmt.Errorf("%s ended badly after SIGTERM: %w\n%s", s.name, err, tail(s.logPath)))
			}
		case <-time.After(20 * time.Second):
			s.cmd.Process.Kill()
			errs = append(errs, fmt.Errorf("%s did not end within 20s of SIGTERM: %w", s.name, <-s.end))
		}
	}
	if c.namespaces {
		for _, s := range c.nodes {
			errs = append(errs, s.ns.Delete())
		}
		errs = append(errs, c.sw.Delete())
	}
	close(c.forks)
	return errors.Join(errs...)
}

// removeLeftovers deletes the namespaces of runs that were killed. Their servers died
// with them.
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

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
