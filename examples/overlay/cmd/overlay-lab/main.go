//go:build linux

// Command overlay-lab runs a VXLAN overlay network on one machine whose
// control plane is meshkv. Exit codes: 0 ok, 1 error or a check that failed,
// 2 usage, 77 this machine or user cannot run it (no root, no VXLAN).
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/meshkv/meshkv/examples/overlay/lab"
	"github.com/meshkv/meshkv/examples/overlay/netlab"
)

const usage = `usage: overlay-lab [--dir DIR] COMMAND

  up [--hosts 3] [--containers 2] [--prefix mkvlab]   make the lab, wait until it works
  status                                       hosts, agents, digests, containers
  ping-all                                     every container pings all the others
  verify [--wait 0s]                           kernel = store on every host, leases disjoint, or exit 1
  move-container CONTAINER HOST                with its addresses
  kill-host [--namespace] [--within 10s] HOST  SIGKILL; wait until the others forgot it
  partition HOST,HOST... HOST,HOST...          cut the underlay between the groups
  heal                                         end the partition
  down                                         end the agents, remove everything

exit codes: 0 ok, 1 error or failed check, 2 usage, 77 no root or no VXLAN
`

var errUsage = errors.New("usage")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case err == nil:
	case errors.Is(err, flag.ErrHelp):
		fmt.Print(usage)
	case errors.Is(err, errUsage):
		fmt.Fprintf(os.Stderr, "overlay-lab: %v\n\n%s", err, usage)
		os.Exit(2)
	case errors.Is(err, netlab.ErrUnsupported):
		fmt.Fprintf(os.Stderr, "overlay-lab: %v\n", err)
		os.Exit(77)
	default:
		fmt.Fprintf(os.Stderr, "overlay-lab: %v\n", err)
		os.Exit(1)
	}
}

// A command is one run of the program.
type command struct {
	dir   lab.Dir
	flags *flag.FlagSet
	out   io.Writer // data
	err   io.Writer // progress
}

func run(ctx context.Context, args []string, out, progress io.Writer) error {
	global := newFlags("overlay-lab")
	dir := global.String("dir", filepath.Join(os.TempDir(), "meshkv-overlay-lab"), "")
	if err := parse(global, args); err != nil {
		return err
	}
	if global.NArg() == 0 {
		return fmt.Errorf("%w: no command", errUsage)
	}
	name, args := global.Arg(0), global.Args()[1:]
	abs, err := filepath.Abs(*dir)
	if err != nil {
		return err
	}
	c := &command{dir: lab.Dir(abs), flags: newFlags(name), out: out, err: progress}
	if name == "agent" { // started by up
		if len(args) != 2 {
			return fmt.Errorf("%w: agent DIR HOST", errUsage)
		}
		return lab.Dir(args[0]).RunAgent(ctx, args[1])
	}
	commands := map[string]func(context.Context, []string) error{
		"up": c.up, "status": c.status, "ping-all": c.pingAll, "verify": c.verify, "move-container": c.move,
		"kill-host": c.kill, "partition": c.partition, "heal": c.heal, "down": c.down,
	}
	f, ok := commands[name]
	if !ok {
		return fmt.Errorf("%w: no command %q", errUsage, name)
	}
	return f(ctx, args)
}

func newFlags(name string) *flag.FlagSet {
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	return fs
}

func parse(fs *flag.FlagSet, args []string) error {
	err := fs.Parse(args)
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return err
	}
	return fmt.Errorf("%w: %s: %w", errUsage, fs.Name(), err)
}

// args parses flags and requires between least and most further arguments.
func (c *command) args(args []string, least, most int) ([]string, error) {
	if err := parse(c.flags, args); err != nil {
		return nil, err
	}
	if n := c.flags.NArg(); n < least || n > most {
		return nil, fmt.Errorf("%w: %s: %d arguments", errUsage, c.flags.Name(), n)
	}
	return c.flags.Args(), nil
}

// change loads the lab under its lock.
func (c *command) change() (*lab.State, func(), error) {
	if _, err := c.dir.Load(); err != nil {
		return nil, nil, err
	}
	unlock, err := c.dir.Lock()
	if err != nil {
		return nil, nil, err
	}
	s, err := c.dir.Load()
	if err != nil {
		unlock()
		return nil, nil, err
	}
	return s, unlock, nil
}

func (c *command) up(ctx context.Context, args []string) error {
	hosts := c.flags.Int("hosts", 3, "")
	containers := c.flags.Int("containers", 2, "")
	prefix := c.flags.String("prefix", "mkvlab", "")
	if _, err := c.args(args, 0, 0); err != nil {
		return err
	}
	if err := lab.Probe(); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	unlock, err := c.dir.Lock()
	if err != nil {
		return err
	}
	defer unlock()
	start := time.Now()
	s, err := c.dir.Up(ctx, lab.UpOptions{Prefix: *prefix, Hosts: *hosts, Containers: *containers, Agent: []string{self, "agent"}})
	if err != nil {
		return err
	}
	fmt.Fprintf(c.out, "%d hosts and %d containers after %v\n", len(s.Hosts), len(s.Containers), round(time.Since(start)))
	if err := c.settle(ctx, s, 30*time.Second); err != nil {
		return fmt.Errorf("%w (logs: %s; overlay-lab down removes the lab)", err, filepath.Join(string(c.dir), "h*", "agent.log"))
	}
	return nil
}

// settle waits until every live host's kernel is as the lab expects.
func (c *command) settle(ctx context.Context, s *lab.State, within time.Duration) error {
	settled, err := s.Settle(ctx, within)
	if err != nil {
		return err
	}
	for _, h := range settled {
		fmt.Fprintf(c.out, "%s: kernel as expected after %v\n", h.Host, round(h.After))
	}
	return nil
}

func (c *command) status(ctx context.Context, args []string) error {
	if _, err := c.args(args, 0, 0); err != nil {
		return err
	}
	s, err := c.dir.Load()
	if err != nil {
		return err
	}
	return printStatus(ctx, c.out, s)
}

func (c *command) pingAll(ctx context.Context, args []string) error {
	if _, err := c.args(args, 0, 0); err != nil {
		return err
	}
	s, err := c.dir.Load()
	if err != nil {
		return err
	}
	return printPings(c.out, s.PingAll(ctx, 3))
}

func (c *command) verify(ctx context.Context, args []string) error {
	wait := c.flags.Duration("wait", 0, "")
	if _, err := c.args(args, 0, 0); err != nil {
		return err
	}
	s, err := c.dir.Load()
	if err != nil {
		return err
	}
	deadline := time.Now().Add(*wait)
	for {
		verdicts, leases := s.Verify(ctx), s.VerifyLeases(ctx)
		err := printVerdicts(io.Discard, verdicts, leases)
		if err == nil || time.Now().After(deadline) || ctx.Err() != nil {
			return printVerdicts(c.out, verdicts, leases)
		}
		select {
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (c *command) move(ctx context.Context, args []string) error {
	args, err := c.args(args, 2, 2)
	if err != nil {
		return err
	}
	s, unlock, err := c.change()
	if err != nil {
		return err
	}
	defer unlock()
	if err := c.dir.Move(ctx, s, args[0], args[1]); err != nil {
		return err
	}
	fmt.Fprintf(c.out, "%s is on %s\n", args[0], args[1])
	return c.settle(ctx, s, 10*time.Second)
}

func (c *command) kill(ctx context.Context, args []string) error {
	all := c.flags.Bool("namespace", false, "")
	within := c.flags.Duration("within", 10*time.Second, "")
	args, err := c.args(args, 1, 1)
	if err != nil {
		return err
	}
	s, unlock, err := c.change()
	if err != nil {
		return err
	}
	defer unlock()
	if err := c.dir.Kill(ctx, s, args[0], *all); err != nil {
		return err
	}
	fmt.Fprintf(c.out, "%s is killed\n", args[0])
	return c.settle(ctx, s, *within)
}

func (c *command) partition(ctx context.Context, args []string) error {
	args, err := c.args(args, 2, lab.MaxHosts)
	if err != nil {
		return err
	}
	s, unlock, err := c.change()
	if err != nil {
		return err
	}
	defer unlock()
	var groups [][]string
	for _, g := range args {
		groups = append(groups, strings.Split(g, ","))
	}
	if err := c.dir.Partition(s, groups); err != nil {
		return err
	}
	fmt.Fprintf(c.out, "the underlay is cut: %s\n", strings.Join(args, " | "))
	return c.settle(ctx, s, 30*time.Second)
}

func (c *command) heal(ctx context.Context, args []string) error {
	if _, err := c.args(args, 0, 0); err != nil {
		return err
	}
	s, unlock, err := c.change()
	if err != nil {
		return err
	}
	defer unlock()
	dropped, err := c.dir.Heal(s)
	if err != nil {
		return err
	}
	fmt.Fprintf(c.out, "the underlay is whole; the cut dropped %d packets (%d bytes)\n", dropped.Packets, dropped.Bytes)
	return c.settle(ctx, s, 30*time.Second)
}

func (c *command) down(ctx context.Context, args []string) error {
	if _, err := c.args(args, 0, 0); err != nil {
		return err
	}
	if _, err := c.dir.Load(); errors.Is(err, lab.ErrNoLab) {
		c.dir.Clean()
		fmt.Fprintln(c.out, "no lab is up")
		return nil
	}
	unlock, err := c.dir.Lock()
	if err != nil {
		return err
	}
	defer unlock()
	if err := c.dir.Down(ctx); err != nil {
		return err
	}
	c.dir.Clean()
	fmt.Fprintln(c.out, "the lab is gone")
	return nil
}

func round(d time.Duration) time.Duration { return d.Round(time.Millisecond) }
