package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// killAfter is how long a child has between SIGTERM and SIGKILL.
const killAfter = 5 * time.Second

// A childEnd is how a child ended.
type childEnd struct {
	code    int  // as a shell has it: 128 and the signal if one killed it
	stopped bool // it was told to end, since what it needed was lost
}

// A childExit is the code of a command's child, with which the command ends too.
type childExit struct{ code int }

func (e *childExit) Error() string { return fmt.Sprintf("the command ended with code %d", e.code) }

// runChild runs a program in a process group of its own until it ends. Signals
// are passed on to the group. When lost is closed, or ctx ends, the group gets
// SIGTERM, and what is left of it after killAfter SIGKILL.
func (a *app) runChild(ctx context.Context, argv, env []string, lost <-chan struct{}) (childEnd, error) {
	signals := make(chan os.Signal, 8)
	defer a.signals.divert(signals)()
	if ctx.Err() != nil {
		return childEnd{}, context.Cause(ctx)
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = a.stdin, a.stdout, a.stderr
	cmd.SysProcAttr = childAttributes()
	terminal := lendTerminal(a.stdin, cmd.SysProcAttr)
	defer terminal.takeBack()
	started, ended := make(chan error, 1), make(chan error, 1)
	go func() {
		// Where the child is to end with its parent, that means this thread.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			ended <- cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return childEnd{}, fmt.Errorf("start the command: %w", err)
	}
	group := -cmd.Process.Pid
	var (
		stopped  bool
		deadline <-chan time.Time
	)
	stop := func() {
		stopped, lost = true, nil
		signalGroup(group, syscall.SIGTERM)
		signalGroup(group, syscall.SIGCONT) // one that is suspended would not see it
		deadline = time.After(a.killAfter)
	}
	done := ctx.Done()
	for {
		select {
		case s := <-signals:
			signalGroup(group, s.(syscall.Signal))
		case <-terminal.changed():
			terminal.follow(-group)
		case <-lost:
			stop()
		case <-done:
			done = nil
			stop()
		case <-deadline:
			deadline = nil
			signalGroup(group, syscall.SIGKILL)
		case err := <-ended:
			var exit *exec.ExitError
			if err != nil && !errors.As(err, &exit) {
				return childEnd{stopped: stopped}, fmt.Errorf("the command: %w", err)
			}
			if deadline != nil {
				endGroup(group, deadline)
			}
			return childEnd{shellCode(cmd.ProcessState), stopped}, nil
		}
	}
}

// signalGroup sends a signal to all processes of a group. That there are none is
// no error: the last of them has ended.
func signalGroup(group int, s syscall.Signal) { _ = syscall.Kill(group, s) }

// endGroup waits until no process of the group is left, and kills the rest at
// the deadline: a lock that is lost is nobody's, the child's children included.
func endGroup(group int, deadline <-chan time.Time) {
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for syscall.Kill(group, 0) == nil {
		select {
		case <-deadline:
			signalGroup(group, syscall.SIGKILL)
			return
		case <-ticker.C:
		}
	}
}

// shellCode is the exit code that a shell would show.
func shellCode(state *os.ProcessState) int {
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal())
	}
	return state.ExitCode()
}
