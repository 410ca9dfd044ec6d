//go:build linux

package netlab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A Process identifies one process for good: a recycled pid has another start
// time. It can be stored and used by a later program.
type Process struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // in clock ticks since boot
	Cmd   string `json:"cmd"`   // its arguments, joined by spaces
}

// Start starts cmd inside the namespace, in a session of its own, so that it
// outlives the caller, and calls record before the process has run anything
// that matters: the process must read one line from its standard input first
// (see AwaitGo), and finds it closed if the caller died or record failed.
func (n Namespace) Start(cmd *exec.Cmd, record func(Process) error) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer w.Close()
	defer r.Close()
	cmd.Stdin = r
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := n.Do(cmd.Start); err != nil {
		return fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	p, err := Identify(cmd.Process.Pid)
	if err == nil {
		// The arguments show only after the exec, and the name is what it
		// was asked for.
		p.Cmd = strings.Join(cmd.Args, " ")
		err = record(p)
	}
	if err == nil {
		_, err = w.WriteString("go\n")
	}
	return errors.Join(err, cmd.Process.Release())
}

// AwaitGo blocks a process started by Start until it is recorded, and fails if
// it never will be.
func AwaitGo(stdin *os.File) error {
	line := make([]byte, 3)
	n, err := stdin.Read(line)
	if n == 0 {
		return fmt.Errorf("the starting program died before it recorded this process: %w", err)
	}
	return nil
}

// Identify describes the running process pid.
func Identify(pid int) (Process, error) {
	start, _, err := procStat(pid)
	if err != nil {
		return Process{}, err
	}
	args, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return Process{}, err
	}
	args = bytes.TrimRight(args, "\x00")
	return Process{PID: pid, Start: start, Cmd: string(bytes.ReplaceAll(args, []byte{0}, []byte{' '}))}, nil
}

// Alive reports whether p still runs: the same pid, start time and arguments,
// and no zombie.
func (p Process) Alive() bool {
	if p.PID <= 1 {
		return false
	}
	start, state, err := procStat(p.PID)
	if err != nil || start != p.Start || state == 'Z' || state == 'X' {
		return false
	}
	now, err := Identify(p.PID)
	return err == nil && now.Start == p.Start && now.Cmd == p.Cmd
}

// Signal sends sig if p still runs.
func (p Process) Signal(sig syscall.Signal) error {
	if p.PID <= 1 {
		return os.ErrProcessDone
	}
	// The handle pins the process: a pid recycled after the check below is
	// not what it signals.
	h, err := os.FindProcess(p.PID)
	if err != nil {
		return err
	}
	defer h.Release()
	if !p.Alive() {
		return os.ErrProcessDone
	}
	return h.Signal(sig)
}

// End asks p to stop, kills it after grace, and returns when it is gone.
func (p Process) End(ctx context.Context, grace time.Duration) error {
	defer p.reap()
	err := p.Signal(syscall.SIGTERM)
	if err == nil && p.gone(ctx, grace) {
		return nil
	}
	return p.Kill(ctx)
}

// Kill sends SIGKILL and returns when p is gone.
func (p Process) Kill(ctx context.Context) error {
	defer p.reap()
	if err := p.Signal(syscall.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill process %d: %w", p.PID, err)
	}
	if !p.gone(ctx, 10*time.Second) {
		return fmt.Errorf("process %d did not end after SIGKILL", p.PID)
	}
	return nil
}

func (p Process) gone(ctx context.Context, within time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for p.Alive() {
		select {
		case <-ctx.Done():
			return !p.Alive()
		case <-tick.C:
		}
	}
	return true
}

// reap collects p's exit if it was this program's child.
func (p Process) reap() {
	if p.PID > 1 {
		unix.Wait4(p.PID, nil, unix.WNOHANG, nil)
	}
}

// procStat reads the start time (field 22) and state (field 3) of a process.
func procStat(pid int) (start uint64, state byte, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, err
	}
	return parseStat(string(b))
}

func parseStat(stat string) (start uint64, state byte, err error) {
	// The command's name is in parentheses and may hold spaces and parentheses.
	_, rest, ok := cutLast(stat, ") ")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 20 || len(fields[0]) != 1 {
		return 0, 0, errors.New("process status has an unknown form")
	}
	start, err = strconv.ParseUint(fields[19], 10, 64)
	return start, fields[0][0], err
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}
