package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/meshkv/meshkv/client"
)

// runAsProgram makes the test binary be meshkv, so that tests run real
// processes with the race detector in them.
const runAsProgram = "MESHKV_TEST_RUN_AS_PROGRAM"

// patience bounds every wait of a test: it is reached only by a failure.
const patience = 60 * time.Second

func TestMain(m *testing.M) {
	switch os.Getenv(runAsProgram) {
	case "":
		os.Exit(m.Run())
	case withFake:
		os.Exit(fakeProgram())
	default:
		main()
	}
}

// program prepares a meshkv process that ends with the test.
func program(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, args...)
	cmd.Env = []string{runAsProgram + "=1", "HOME=" + t.TempDir(), "TMPDIR=" + t.TempDir(), "GORACE=halt_on_error=1"}
	return cmd
}

// A result is how a process ended.
type result struct {
	code           int
	stdout, stderr string
}

// meshkv runs a command to its end in this process, which is all that a process
// of its own would do but for main.
func meshkv(t *testing.T, args ...string) result {
	t.Helper()
	return meshkvIn(t, nil, args...)
}

func meshkvIn(t *testing.T, env map[string]string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var stdout, stderr bytes.Buffer
	a := newApp(strings.NewReader(""), &stdout, &stderr, func(name string) (string, bool) { v, ok := env[name]; return v, ok })
	code := a.run(ctx, args)
	return result{code, stdout.String(), stderr.String()}
}

// finish runs a prepared process to its end.
func finish(t *testing.T, cmd *exec.Cmd) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(patience, func() { cmd.Process.Kill() })
	defer timer.Stop()
	err := cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// must runs a command that has to succeed and returns its stdout.
func must(t *testing.T, args ...string) string {
	t.Helper()
	r := meshkv(t, args...)
	if r.code != 0 {
		t.Fatalf("meshkv %s: code %d\n%s%s", strings.Join(args, " "), r.code, r.stdout, r.stderr)
	}
	return r.stdout
}

// An agent is a node in a process of its own. It keeps its addresses and its
// directory over restarts.
type agent struct {
	t          *testing.T
	name, dir  string
	bind, http string
	join       []string
	more       []string // further arguments
	cmd        *exec.Cmd
	log        *logBuffer
}

func newAgent(t *testing.T, name string, join ...string) *agent {
	return &agent{t: t, name: name, dir: filepath.Join(t.TempDir(), name), bind: "127.0.0.1:0", http: freePort(t), join: join}
}

// start starts the process and returns when it serves.
func (a *agent) start() *agent {
	a.t.Helper()
	args := append([]string{"agent", "-o", "json", "--name", a.name, "--data-dir", a.dir, "--bind", a.bind, "--http", a.http,
		"--join", strings.Join(a.join, ",")}, a.more...)
	a.cmd = program(a.t, args...)
	a.log = &logBuffer{}
	a.cmd.Stderr = a.log
	stdout, err := a.cmd.StdoutPipe()
	if err != nil {
		a.t.Fatal(err)
	}
	if err := a.cmd.Start(); err != nil {
		a.t.Fatal(err)
	}
	cmd, log := a.cmd, a.log
	a.t.Cleanup(func() {
		cmd.Process.Kill() // an error means that it ended before
		cmd.Wait()
		if a.t.Failed() {
			a.t.Logf("log of %s:\n%s", a.name, log)
		}
	})
	timer := time.AfterFunc(patience, func() { cmd.Process.Kill() })
	defer timer.Stop()
	line, err := bufio.NewReader(stdout).ReadBytes('\n')
	if err != nil {
		a.t.Fatalf("%s did not start: %v\n%s", a.name, err, log)
	}
	var at addresses
	if err := json.Unmarshal(line, &at); err != nil {
		a.t.Fatalf("%s printed %q: %v", a.name, line, err)
	}
	a.bind, a.http = at.Mesh, at.API
	return a
}

// signal sends a signal and returns the exit code; -1 if the signal killed it.
func (a *agent) signal(s syscall.Signal) int {
	a.t.Helper()
	if err := a.cmd.Process.Signal(s); err != nil {
		a.t.Fatalf("signal %s: %v", a.name, err)
	}
	return a.end()
}

// end waits until the process has ended and returns the exit code.
func (a *agent) end() int {
	a.t.Helper()
	timer := time.AfterFunc(patience, func() { a.cmd.Process.Kill() })
	defer timer.Stop()
	a.cmd.Wait() // the state tells more than the error
	return a.cmd.ProcessState.ExitCode()
}

// connect is a client of the agent for the test's duration.
func (a *agent) connect() (context.Context, *client.Client) {
	a.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	a.t.Cleanup(cancel)
	c, err := client.Dial(ctx, a.http, nil)
	if err != nil {
		a.t.Fatalf("dial %s: %v", a.name, err)
	}
	a.t.Cleanup(func() { c.Close() })
	return ctx, c
}

// awaitAlive waits until the agent sees so many members alive.
func (a *agent) awaitAlive(want int) {
	a.t.Helper()
	ctx, c := a.connect()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		st, err := c.Status(ctx)
		if err != nil {
			a.t.Fatalf("status of %s: %v", a.name, err)
		}
		if st.Members[client.MemberAlive] == want && len(st.Links) == want-1 {
			return
		}
		<-ticker.C
	}
}

// threeAgents starts a cluster.
func threeAgents(t *testing.T) []*agent {
	t.Helper()
	first := newAgent(t, "host-1").start()
	agents := []*agent{first, newAgent(t, "host-2", first.bind).start(), newAgent(t, "host-3", first.bind).start()}
	first.join = []string{agents[1].bind, agents[2].bind} // for its restarts
	for _, a := range agents {
		a.awaitAlive(3)
	}
	return agents
}

// A logBuffer collects what a process writes.
type logBuffer struct {
	mu  sync.Mutex // protects buf
	buf bytes.Buffer
}

func (l *logBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

var _ io.Writer = (*logBuffer)(nil)
