package main

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// The tour without a terminal, as a process: every step is reported, and holds.
func TestDemoTour(t *testing.T) {
	t.Parallel()
	r := finish(t, program(t, "demo", "--nodes", "3", "-o", "json"))
	if r.code != 0 {
		t.Fatalf("code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	steps := 0
	for line := range strings.Lines(r.stdout) {
		var s jsonStep
		if err := json.Unmarshal([]byte(line), &s); err != nil || !s.OK || s.Detail == "" {
			t.Errorf("step %q: %v", line, err)
		}
		steps++
	}
	if steps != 9 {
		t.Errorf("%d steps, want 9", steps)
	}
}

// A tour whose network does not heal must fail.
func TestDemoTourFails(t *testing.T) {
	t.Parallel()
	var stdout, stderr bytes.Buffer
	a := newApp(strings.NewReader(""), &stdout, &stderr, func(string) (string, bool) { return "", false })
	a.output = formatTable
	c := newDemoCluster(3, t.TempDir(), slog.New(slog.DiscardHandler))
	defer c.stop(t.Context())
	if err := c.start(t.Context()); err != nil {
		t.Fatal(err)
	}
	tour := &tour{app: a, c: c, left: c.nodes[:2], rest: c.nodes[2:]}
	if _, err := tour.split(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := tour.merged(t.Context()); err == nil {
		t.Error("the check after healing holds while the network is cut")
	}
	if err := c.faults.heal(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.waitEqual(t.Context(), c.nodes, routesKeyspace); err != nil {
		t.Fatal(err)
	}
	if _, err := tour.merged(t.Context()); err != nil {
		t.Errorf("the check after healing: %v", err)
	}
	// Undo what the partition did, as a store that forgets deletions would.
	if err := c.nodes[2].put(t.Context(), routesKeyspace, "gone-left", []byte("old"), false); err != nil {
		t.Fatal(err)
	}
	if _, err := tour.merged(t.Context()); err == nil || !strings.Contains(err.Error(), "gone-left") {
		t.Errorf("a resurrected key: got %v, want an error that names it", err)
	}
}

// A script is a person who types these lines.
type script struct {
	lines []string
}

func (s *script) Prompt(string) (string, error) {
	if len(s.lines) == 0 {
		return "", io.EOF
	}
	line := s.lines[0]
	s.lines = s.lines[1:]
	return line, nil
}

func TestShell(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	a := newApp(strings.NewReader(""), &out, io.Discard, func(string) (string, bool) { return "", false })
	c := newDemoCluster(3, t.TempDir(), slog.New(slog.DiscardHandler))
	defer c.stop(t.Context())
	if err := c.start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.announceAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	in := &script{lines: []string{
		"", "help", "frob", "put", "put net/a two words", "get net/a", "get net/none", "use 9", "latency x", "latency 1ms", "heal",
		"partition 1", "put net/a left", "use host-2", "put net/a right", "heal", "get net/a", "del net/a", "del net/a",
		"ls", "ls endpoints", "kill 3", "kill 3", "use 3", "get net/a", "restart 3", "restart 3", "heal", "ls nodes/host-3", "status", "watch net", "put net/b seen",
		"get net/b", "watch off", "watch off", "partition 1,9", "quit", "put net/after quit",
	}}
	if err := a.runShell(t.Context(), c, in); err != nil {
		t.Fatal(err)
	}
	text := out.String()
	for _, want := range []string{
		"partition N,N", `unknown command "frob"`, "usage: put KS/KEY VALUE", "two words  (by host-1", "not found", `"9" is no node`, `"x" is no latency`,
		"cut: 1 | the rest", "concurrent: ", "equal digests after", "deleted, version", "there was no such key", "10.42.1.2", "host-3 is down;",
		"host-3 is down already", "restart 3' starts it", "host-3 serves again", "host-3 runs", "3 alive", "changes of net on host-3",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the shell never said %q", want)
		}
	}
	if len(in.lines) != 1 {
		t.Errorf("the shell went on after quit: %d lines left", len(in.lines))
	}
	if t.Failed() {
		t.Log(text)
	}
}

// Every command describes itself and takes -o.
func TestEveryCommand(t *testing.T) {
	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		path := strings.Fields(cmd.CommandPath())[1:]
		r := meshkv(t, append(path, "--help")...)
		if r.code != 0 || !strings.Contains(r.stdout, "--output") || r.stderr != "" {
			t.Errorf("%s --help: %+v", cmd.CommandPath(), r)
		}
		r = meshkv(t, append(path, "-o", "xml")...)
		if r.code != codeUsage && cmd.HasParent() {
			t.Errorf("%s -o xml: code %d", cmd.CommandPath(), r.code)
		}
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	a := newApp(nil, io.Discard, io.Discard, func(string) (string, bool) { return "", false })
	walk(a.rootCommand())

	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if r := meshkv(t, "completion", shell); r.code != 0 || !strings.Contains(r.stdout, "meshkv") {
			t.Errorf("completion %s: code %d, %d bytes", shell, r.code, len(r.stdout))
		}
	}
	var v struct{ Version, Go, Platform string }
	if err := json.Unmarshal([]byte(must(t, "version", "-o", "json")), &v); err != nil || v.Version == "" || v.Go == "" {
		t.Errorf("version: %+v, %v", v, err)
	}
}
