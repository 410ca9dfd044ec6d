package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/peterh/liner"

	"github.com/meshkv/meshkv/client"
)

// A prompter reads lines from a person. It returns io.EOF at the end.
type prompter interface {
	Prompt(prompt string) (string, error)
}

// errQuit ends the shell.
var errQuit = errors.New("quit")

// maxShellWatches bounds the watches that print into the shell.
const maxShellWatches = 8

// A shell lets a person use and disturb a demo cluster.
type shell struct {
	app     *app
	c       *demoCluster
	current *demoNode // serves put, get, del, ls and watch
	out     *lockedWriter
	watches sync.WaitGroup
	watched []context.CancelFunc
}

// A shellCommand is one word of the shell.
type shellCommand struct {
	name, args, help string
	min, max         int // number of arguments
	run              func(s *shell, ctx context.Context, args []string) error
}

func shellCommands() []shellCommand {
	return []shellCommand{
		{"put", "KS/KEY VALUE", "store a value on the current node", 2, 64, (*shell).put},
		{"get", "KS/KEY", "print a value, and concurrent ones if there are", 1, 1, (*shell).get},
		{"del", "KS/KEY", "delete a key", 1, 1, (*shell).del},
		{"ls", "[KS[/PREFIX]]", "list keys, or the keyspaces", 0, 1, (*shell).ls},
		{"watch", "KS[/PREFIX]|off", "print changes here from now on, or no longer", 1, 1, (*shell).watch},
		{"use", "N", "make N the current node", 1, 1, (*shell).use},
		{"kill", "N", "stop node N as if it had crashed", 1, 1, (*shell).kill},
		{"restart", "N", "start node N again on its old disk", 1, 1, (*shell).restart},
		{"partition", "N,N", "cut these nodes off from the rest", 1, 1, (*shell).partition},
		{"heal", "", "end every partition and latency", 0, 0, (*shell).heal},
		{"latency", "D", "delay everything on the network by D, such as 80ms; 0 ends it", 1, 1, (*shell).latency},
		{"status", "", "show the nodes, whom they see, and whether they agree", 0, 0, (*shell).status},
		{"help", "", "list the commands", 0, 0, (*shell).help},
		{"quit", "", "end the demo", 0, 0, func(*shell, context.Context, []string) error { return errQuit }},
	}
}

// terminalShell runs a shell with line editing.
func (a *app) terminalShell(ctx context.Context, c *demoCluster) error {
	line := liner.NewLiner()
	defer line.Close() // restores the terminal
	line.SetCtrlCAborts(true)
	line.SetCompleter(func(typed string) (words []string) {
		for _, cmd := range shellCommands() {
			if strings.HasPrefix(cmd.name, typed) {
				words = append(words, cmd.name+" ")
			}
		}
		return words
	})
	return a.runShell(ctx, c, historied{line})
}

// historied is a liner that remembers what was typed.
type historied struct{ *liner.State }

func (h historied) Prompt(prompt string) (string, error) {
	text, err := h.State.Prompt(prompt)
	if errors.Is(err, liner.ErrPromptAborted) {
		return "", errInterrupted
	}
	if err == nil && strings.TrimSpace(text) != "" {
		h.AppendHistory(text)
	}
	return text, err
}

// runShell executes lines until quit, the end of input or a signal.
func (a *app) runShell(ctx context.Context, c *demoCluster, in prompter) error {
	s := &shell{app: a, c: c, current: c.nodes[0], out: &lockedWriter{w: a.stdout}}
	ctx, cancel := context.WithCancel(ctx)
	defer s.watches.Wait()
	defer cancel()
	type typed struct {
		text string
		err  error
	}
	lines := make(chan typed)
	ask := make(chan string)
	defer close(ask)
	go func() { // a read from a terminal cannot be cancelled: it ends with the process
		for prompt := range ask {
			text, err := in.Prompt(prompt)
			select {
			case lines <- typed{text, err}:
			case <-ctx.Done():
				return
			}
		}
	}()
	for {
		select {
		case ask <- s.current.name + "> ":
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		var line typed
		select {
		case line = <-lines:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if errors.Is(line.err, io.EOF) {
			return nil
		}
		if line.err != nil {
			return line.err
		}
		switch err := s.execute(ctx, line.text); {
		case errors.Is(err, errQuit):
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			fmt.Fprintln(s.out, oneLine(err.Error()))
		}
	}
}

// execute runs one line. Errors are for the person to read.
func (s *shell) execute(ctx context.Context, line string) error {
	words := strings.Fields(line)
	if len(words) == 0 {
		return nil
	}
	name, args := words[0], words[1:]
	if name == "exit" {
		name = "quit"
	}
	for _, cmd := range shellCommands() {
		if cmd.name != name {
			continue
		}
		if len(args) < cmd.min || len(args) > cmd.max {
			return fmt.Errorf("usage: %s %s", cmd.name, cmd.args)
		}
		return cmd.run(s, ctx, args)
	}
	return fmt.Errorf("unknown command %q: 'help' lists the commands", name)
}

// keyspace opens a keyspace on the current node.
func (s *shell) keyspace(ctx context.Context, name string) (client.Keyspace, error) {
	if s.current.run == nil {
		return nil, fmt.Errorf("%s is down: 'use N' takes another node, 'restart %d' starts it", s.current.name, s.current.number)
	}
	return s.current.run.Keyspace(ctx, name)
}

// open takes an address apart and opens its keyspace on the current node.
func (s *shell) open(ctx context.Context, address string, parse func(string) (string, string, error)) (ks client.Keyspace, rest string, err error) {
	name, rest, err := parse(address)
	if err != nil {
		return nil, "", err
	}
	ks, err = s.keyspace(ctx, name)
	return ks, rest, err
}

func (s *shell) put(ctx context.Context, args []string) error {
	ks, key, err := s.open(ctx, args[0], parseAddress)
	if err != nil {
		return err
	}
	begin := time.Now()
	v, err := ks.Put(ctx, key, []byte(strings.Join(args[1:], " ")), nil)
	if err != nil {
		return err
	}
	fmt.Fprintf(s.out, "stored, version %s (%v)\n", v, brief(time.Since(begin)))
	return nil
}

func (s *shell) get(ctx context.Context, args []string) error {
	ks, key, err := s.open(ctx, args[0], parseAddress)
	if err != nil {
		return err
	}
	e, err := ks.Get(ctx, key, &client.GetOptions{Siblings: true})
	if err != nil {
		return err
	}
	fmt.Fprintf(s.out, "%s  (by %s, version %s)\n", printable(string(e.Value)), e.Origin, e.Version)
	for _, sib := range e.Siblings {
		fmt.Fprintf(s.out, "  concurrent: %s  (by %s, version %s)\n", printable(string(sib.Value)), sib.Origin, sib.Version)
	}
	return nil
}

func (s *shell) del(ctx context.Context, args []string) error {
	ks, key, err := s.open(ctx, args[0], parseAddress)
	if err != nil {
		return err
	}
	d, err := ks.Delete(ctx, key, nil)
	if err != nil {
		return err
	}
	if !d.Deleted {
		return errors.New("there was no such key")
	}
	fmt.Fprintf(s.out, "deleted, version %s\n", d.Version)
	return nil
}

func (s *shell) ls(ctx context.Context, args []string) error {
	if len(args) == 0 {
		if s.current.run == nil {
			return fmt.Errorf("%s is down", s.current.name)
		}
		infos, err := s.current.run.Keyspaces(ctx)
		if err != nil {
			return err
		}
		t := newTable(s.out, "KEYSPACE", "KEYS", "DIGEST")
		for _, i := range infos {
			t.row(i.Name, count(i.Keys), i.Digest)
		}
		return t.end()
	}
	ks, prefix, err := s.open(ctx, args[0], parsePrefix)
	if err != nil {
		return err
	}
	return printList(ctx, s.out, formatTable, ks, prefix, nil)
}

func (s *shell) watch(ctx context.Context, args []string) error {
	if args[0] == "off" {
		for _, stop := range s.watched {
			stop()
		}
		s.watched = nil
		s.watches.Wait()
		return nil
	}
	if len(s.watched) >= maxShellWatches {
		return fmt.Errorf("%d watches are open: 'watch off' ends them", len(s.watched))
	}
	ks, prefix, err := s.open(ctx, args[0], parsePrefix)
	if err != nil {
		return err
	}
	w, err := ks.Watch(ctx, prefix, &client.WatchOptions{UpdatesOnly: true})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	s.watched = append(s.watched, cancel)
	name := s.current.name
	s.watches.Go(func() {
		defer w.Close()
		for {
			ev, err := w.Next(ctx)
			if err != nil {
				if ctx.Err() == nil {
					fmt.Fprintf(s.out, "[%s] the watch of %s ended: %s\n", name, args[0], oneLine(err.Error()))
				}
				return
			}
			var text strings.Builder
			printEvent(&text, formatTable, ev) // a Builder does not fail
			if text.Len() > 0 {
				fmt.Fprintf(s.out, "[%s] %s", name, text.String())
			}
		}
	})
	fmt.Fprintf(s.out, "changes of %s on %s are printed here; 'watch off' ends it\n", args[0], name)
	return nil
}

func (s *shell) use(_ context.Context, args []string) error {
	n, err := s.node(args[0])
	if err != nil {
		return err
	}
	s.current = n
	return nil
}

// node finds a node by number or name.
func (s *shell) node(text string) (*demoNode, error) {
	i, err := strconv.Atoi(strings.TrimPrefix(text, "host-"))
	if err != nil || i < 1 || i > len(s.c.nodes) {
		return nil, fmt.Errorf("%q is no node: they are 1 to %d", text, len(s.c.nodes))
	}
	return s.c.nodes[i-1], nil
}

func (s *shell) kill(ctx context.Context, args []string) error {
	n, err := s.node(args[0])
	if err != nil {
		return err
	}
	if n.run == nil {
		return fmt.Errorf("%s is down already", n.name)
	}
	if err := s.c.kill(ctx, n); err != nil {
		return err
	}
	fmt.Fprintf(s.out, "%s is down; the others will find it failed within seconds and hide its endpoints\n", n.name)
	return nil
}

func (s *shell) restart(ctx context.Context, args []string) error {
	n, err := s.node(args[0])
	if err != nil {
		return err
	}
	if n.run != nil {
		return fmt.Errorf("%s runs", n.name)
	}
	begin := time.Now()
	if err := s.c.restart(ctx, n); err != nil {
		return err
	}
	if err := announce(ctx, n); err != nil {
		return err
	}
	fmt.Fprintf(s.out, "%s serves again after %v, on its old disk, and has announced its records anew\n", n.name, brief(time.Since(begin)))
	return nil
}

func (s *shell) partition(_ context.Context, args []string) error {
	var side []*demoNode
	for text := range strings.SplitSeq(args[0], ",") {
		n, err := s.node(text)
		if err != nil {
			return err
		}
		side = append(side, n)
	}
	if err := s.c.partition(side); err != nil {
		return err
	}
	fmt.Fprintf(s.out, "cut: %s | the rest; every node goes on serving\n", args[0])
	return nil
}

func (s *shell) heal(ctx context.Context, _ []string) error {
	if err := s.c.faults.heal(); err != nil {
		return err
	}
	up := s.c.running()
	if len(up) == 0 {
		return nil
	}
	infos, err := up[0].run.Keyspaces(ctx)
	if err != nil {
		return err
	}
	var names []string
	for _, i := range infos {
		names = append(names, i.Name)
	}
	took, err := s.c.waitEqual(ctx, up, names...)
	if err != nil {
		return err
	}
	fmt.Fprintf(s.out, "all nodes have equal digests after %v\n", brief(took))
	return nil
}

func (s *shell) latency(_ context.Context, args []string) error {
	d, err := time.ParseDuration(args[0])
	if err != nil || d < 0 || d > 10*time.Second {
		return fmt.Errorf("%q is no latency: give a duration up to 10s, such as 80ms", args[0])
	}
	s.c.faults.net.SetLatency(d)
	return nil
}

func (s *shell) status(ctx context.Context, _ []string) error {
	t := newTable(s.out, "NODE", "STATE", "MESH", "API", "SEES", "KEYS", "DIGESTS")
	for _, n := range s.c.nodes {
		if n.run == nil {
			t.row(n.name, "down", n.bind, n.http, "", "", "")
			continue
		}
		st, err := n.run.Status(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", n.name, err)
		}
		infos, err := n.run.Keyspaces(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", n.name, err)
		}
		keys := 0
		var digests []string
		for _, i := range infos {
			keys += i.Keys
			digests = append(digests, i.Name+":"+i.Digest[:min(len(i.Digest), 8)])
		}
		sees := fmt.Sprintf("%d alive, %d failed", st.Members[client.MemberAlive], st.Members[client.MemberFailed])
		t.row(n.name, readiness(st), n.bind, "http://"+n.http, sees, count(keys), strings.Join(digests, " "))
	}
	return t.end()
}

func (s *shell) help(context.Context, []string) error {
	t := newTable(s.out)
	for _, cmd := range shellCommands() {
		t.row(cmd.name+" "+cmd.args, cmd.help)
	}
	return t.end()
}

// A lockedWriter lets watches and commands write whole lines by turns.
type lockedWriter struct {
	mu sync.Mutex // protects w
	w  io.Writer
}

func (l *lockedWriter) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}
