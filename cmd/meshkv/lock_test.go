package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/meshkv/meshkv/client"
)

func TestLockCalls(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"lock", "locks/a", "--", "true"}, "Lock a 15s"},
		{[]string{"lock", "locks/a/b", "--ttl", "2m", "--", "true"}, "Lock a/b 2m0s"},
		{[]string{"lock", "locks/a", "--shared", "--", "true"}, "RLock a 15s"},
		{[]string{"lock", "locks/a", "--places", "3", "--", "true"}, "Semaphore a 3 15s"},
		{[]string{"elect", "locks/a", "host-1", "--", "true"}, "Campaign a host-1 15s"},
	} {
		s := newFakeStrong()
		n := &fakeNode{strong: s}
		r := fakeRun(t, n, "", c.args...)
		if r.code != 0 || r.stdout != "" || r.stderr != "" || n.opened != "locks" || !slices.Equal(s.calls, []string{c.want, "Unlock"}) {
			t.Errorf("%v: %+v, keyspace %s, calls %q", c.args, r, n.opened, s.calls)
		}
	}
}

func TestLockUsage(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"lock"}, "KS/NAME is missing"},
		{[]string{"lock", "locks"}, "names no key"},
		{[]string{"lock", "locks/a", "true"}, "behind --"},
		{[]string{"lock", "locks/a", "--"}, "no command"},
		{[]string{"lock", "locks/a", "--", "no-such-command"}, "no-such-command"},
		{[]string{"lock", "locks/a", "--ttl", "10ms", "--", "true"}, "1s to 24h"},
		{[]string{"lock", "locks/a", "--places", "0", "--", "true"}, "at least one"},
		{[]string{"lock", "locks/a", "--places", "2", "--shared", "--", "true"}, "choose one"},
		{[]string{"elect", "locks/a"}, "VALUE is missing"},
		{[]string{"elect", "locks/a", "--", "true"}, "VALUE is missing"},
		{[]string{"elect", "locks/a", "x", "--observe"}, `"x" is one argument too many`},
	} {
		s := newFakeStrong()
		r := fakeRun(t, &fakeNode{strong: s}, "", c.args...)
		if r.code != codeUsage || !strings.Contains(r.stderr, c.want) || strings.Count(r.stderr, "\n") != 1 || len(s.calls) > 0 {
			t.Errorf("%v: got %+v, calls %q; want one line with %q", c.args, r, s.calls, c.want)
		}
	}
}

func TestLockNotObtained(t *testing.T) {
	t.Parallel()
	wait := func(ctx context.Context) error {
		<-ctx.Done()
		return ctx.Err()
	}
	for _, c := range []struct {
		name string
		err  func(ctx context.Context) error
		code int
	}{
		{"held by another", wait, codeTimeout},
		{"no majority", func(ctx context.Context) error { return errors.Join(client.ErrNoQuorum, wait(ctx)) }, codeUnavailable},
		{"session lost", func(context.Context) error { return client.ErrSessionLost }, codeConflict},
		{"eventual keyspace", func(context.Context) error { return client.ErrNeedsStrong }, codeError},
	} {
		s := newFakeStrong()
		s.lockErr = c.err
		r := fakeRun(t, &fakeNode{strong: s}, "", "lock", "locks/a", "--timeout", "10ms", "--", "true")
		if r.code != c.code || strings.Count(r.stderr, "\n") != 1 || !slices.Equal(s.calls, []string{"Lock a 15s"}) {
			t.Errorf("%s: got %+v, calls %q; want code %d", c.name, r, s.calls, c.code)
		}
	}
}

// A lock that turns out lost when it is given up was lost while the command ran,
// however the command ended; one that cannot be given up changes nothing.
func TestUnlockFails(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		unlock  error
		command string
		code    int
		want    string
	}{
		{client.ErrSessionLost, "exit 0", codeConflict, "was lost"},
		{client.ErrNotHeld, "exit 3", codeConflict, "was lost"},
		{client.ErrNoQuorum, "exit 3", 3, "given up later, within 15s"},
	} {
		s := newFakeStrong()
		s.unlock = func() error { return fmt.Errorf("unlock: %w", c.unlock) }
		r := fakeRun(t, &fakeNode{strong: s}, "", "lock", "locks/a", "--", "sh", "-c", c.command)
		if r.code != c.code || strings.Count(r.stderr, "\n") != 1 || !strings.Contains(r.stderr, c.want) {
			t.Errorf("%v after %q: got %+v, want code %d and %q", c.unlock, c.command, r, c.code, c.want)
		}
	}
}

// A locked is a meshkv process that holds a lock of a fake node.
type locked struct {
	t      *testing.T
	cmd    *exec.Cmd
	stdout *bufio.Reader
	stderr *bytes.Buffer
}

func startLocked(t *testing.T, args ...string) *locked {
	t.Helper()
	cmd := program(t, args...)
	cmd.Env = append(cmd.Env, runAsProgram+"="+withFake, "PATH=/usr/bin:/bin")
	l := &locked{t: t, cmd: cmd, stderr: &bytes.Buffer{}}
	cmd.Stderr = l.stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	l.stdout = bufio.NewReader(stdout)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(patience, func() {
		cmd.Process.Kill()
		stdout.Close() // its child may live on
	})
	t.Cleanup(func() {
		timer.Stop()
		cmd.Process.Kill() // an error means that it ended before
		cmd.Wait()
	})
	return l
}

func (l *locked) wantLine(want string) {
	l.t.Helper()
	if got, err := l.stdout.ReadString('\n'); got != want+"\n" {
		l.t.Fatalf("on stdout: got %q, %v; want %q", got, err, want)
	}
}

func (l *locked) signal(s syscall.Signal) {
	l.t.Helper()
	if err := l.cmd.Process.Signal(s); err != nil {
		l.t.Fatal(err)
	}
}

// wantEnd reads stdout to its end, which comes when no process of the child has
// it open any more, and checks how meshkv ended.
func (l *locked) wantEnd(stdout string, code int, stderr string) {
	l.t.Helper()
	rest, err := io.ReadAll(l.stdout)
	if err != nil || string(rest) != stdout {
		l.t.Errorf("on stdout: got %q, %v; want %q", rest, err, stdout)
	}
	l.cmd.Wait() // the state tells more than the error
	if got := l.cmd.ProcessState.ExitCode(); got != code {
		l.t.Errorf("code %d, want %d", got, code)
	}
	if got := l.stderr.String(); got != stderr {
		l.t.Errorf("on stderr: got %q, want %q", got, stderr)
	}
}

const givenUp = "given up\n"

func TestLockChild(t *testing.T) {
	t.Parallel()
	lock := func(t *testing.T, script string) *locked {
		return startLocked(t, "lock", "locks/a", "--", "sh", "-c", "exec 2>/dev/null; "+script) // some shells tell of signals
	}
	const (
		forever = "for i in 1 2 3 4 5 6 7 8 9 10; do sleep 2; done; echo went on" // or nearly
		lost    = "meshkv: lock locks/a was lost while the command ran: another may hold it\n"
	)
	t.Run("exit code", func(t *testing.T) {
		startLocked(t, "lock", "locks/a", "--", "sh", "-c", "echo out; echo err >&2; exit 7").wantEnd("out\n", 7, "err\n"+givenUp)
	})
	t.Run("killed", func(t *testing.T) {
		lock(t, "kill -9 $$").wantEnd("", 128+9, givenUp)
	})
	t.Run("environment", func(t *testing.T) {
		lock(t, "echo $MESHKV_FENCING_TOKEN $MESHKV_LOCK $MESHKV_KEYSPACE $MESHKV_SESSION $MESHKV_ADDR $MESHKV_ELECTION_TOKEN").
			wantEnd("7 a locks 12 http://127.0.0.1:7951\n", 0, givenUp)
		startLocked(t, "elect", "locks/a", "host-1", "--", "sh", "-c", "echo $MESHKV_FENCING_TOKEN $MESHKV_ELECTION_TOKEN").wantEnd("7 7\n", 0, givenUp)
	})
	t.Run("stdin", func(t *testing.T) {
		cmd := program(t, "lock", "locks/a", "--", "cat")
		cmd.Env = append(cmd.Env, runAsProgram+"="+withFake, "PATH=/usr/bin:/bin")
		cmd.Stdin = strings.NewReader("in")
		if r := finish(t, cmd); r.code != 0 || r.stdout != "in" {
			t.Errorf("got %+v", r)
		}
	})
	t.Run("signals are passed on", func(t *testing.T) {
		l := lock(t, "trap 'echo int' INT; trap 'exit 9' TERM; echo ready; "+forever)
		l.wantLine("ready")
		for range 3 { // more than end a command that has no child
			l.signal(syscall.SIGINT)
			l.wantLine("int")
		}
		l.signal(syscall.SIGTERM)
		l.wantEnd("", 9, givenUp)
	})
	t.Run("interrupted child", func(t *testing.T) {
		l := lock(t, "echo ready; "+forever)
		l.wantLine("ready")
		l.signal(syscall.SIGINT)
		l.wantEnd("", 128+2, givenUp)
	})
	t.Run("lost", func(t *testing.T) {
		l := lock(t, "trap 'echo term; exit 0' TERM; echo ready; "+forever)
		l.wantLine("ready")
		l.signal(syscall.SIGUSR1)
		l.wantEnd("term\n", codeConflict, givenUp+lost)
	})
	t.Run("lost, SIGTERM ignored", func(t *testing.T) {
		l := lock(t, "trap '' TERM; echo ready; "+forever)
		l.wantLine("ready")
		l.signal(syscall.SIGUSR1)
		l.wantEnd("", codeConflict, givenUp+lost)
	})
	t.Run("lost, a child of the child ignores SIGTERM", func(t *testing.T) {
		l := lock(t, "(trap '' TERM; echo ready; "+forever+") & wait")
		l.wantLine("ready")
		l.signal(syscall.SIGUSR1)
		l.wantEnd("", codeConflict, givenUp+lost)
	})
	t.Run("lost while suspended", func(t *testing.T) {
		l := lock(t, "trap 'echo term; exit 0' TERM; (until grep -q '^State:.T' /proc/$$/status; do sleep 0.01; done; echo ready) & kill -STOP $$; "+forever)
		l.wantLine("ready")
		l.signal(syscall.SIGUSR1)
		l.wantEnd("term\n", codeConflict, givenUp+lost)
	})
	t.Run("meshkv is killed", func(t *testing.T) {
		l := lock(t, "trap 'echo term; exit 0' TERM; echo ready; "+forever)
		l.wantLine("ready")
		l.signal(syscall.SIGKILL)
		l.wantEnd("term\n", -1, "")
	})
}

func TestLockWithoutCommand(t *testing.T) {
	t.Parallel()
	for form, want := range map[string]string{
		"table": "lock locks/a is held, token 7, until interrupted", "raw": "7",
		"json": `{"keyspace":"locks","name":"a","token":7,"session":"12"}`,
	} {
		l := startLocked(t, "lock", "locks/a", "-o", form)
		l.wantLine(want)
		l.signal(syscall.SIGINT)
		l.wantEnd("", codeInterrupted, givenUp+"meshkv: interrupted\n")
	}
	l := startLocked(t, "elect", "locks/a", "host-1")
	l.wantLine("election locks/a is held, token 7, until interrupted")
	l.signal(syscall.SIGUSR1)
	l.wantEnd("", codeConflict, givenUp+"meshkv: election locks/a was lost: another may hold it\n")
}
