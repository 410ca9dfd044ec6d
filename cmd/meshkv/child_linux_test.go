package main

import (
	"bufio"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// openTerminal is both ends of a new terminal; skipped where there is none to have.
func openTerminal(t *testing.T) (user, program *os.File) {
	t.Helper()
	user, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { user.Close() })
	var n int
	conn, err := user.SyscallConn()
	if err == nil {
		err = conn.Control(func(fd uintptr) {
			if n, err = unix.IoctlGetInt(int(fd), unix.TIOCGPTN); err == nil {
				err = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0)
			}
		})
	}
	if err != nil {
		t.Skip(err)
	}
	program, err = os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { program.Close() })
	return user, program
}

// A command that runs on a terminal reads it, gets its Ctrl-C, and survives a
// Ctrl-Z with which nobody could resume it.
func TestLockOnTerminal(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, script string
		typed        string // after the line "ready"
		code         int
		want         string // the line at the end
	}{
		{"read", "echo ready; read x; echo got $x", "hello\n", codeOK, "got hello"},
		{"interrupt", "trap 'echo int; exit 8' INT; echo ready; read x", "\x03", 8, "int"},
		{"suspend", "echo ready; read x; echo got $x", "\x1ahello\n", codeOK, "got hello"},
	} {
		t.Run(c.name, func(t *testing.T) {
			user, tty := openTerminal(t)
			cmd := program(t, "lock", "locks/a", "--", "sh", "-c", c.script)
			cmd.Env = append(cmd.Env, runAsProgram+"="+withFake, "PATH=/usr/bin:/bin")
			cmd.Stdin, cmd.Stdout = tty, tty
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			timer := time.AfterFunc(patience, func() {
				cmd.Process.Kill()
				user.Close()
			})
			defer timer.Stop()
			lines := bufio.NewReader(user)
			next := func() string {
				for {
					line, err := lines.ReadString('\n')
					if err != nil {
						t.Fatalf("terminal: %q, %v", line, err)
					}
					line = strings.TrimSpace(line)
					if line == "ready" || strings.HasSuffix(line, c.want) {
						return line
					}
				}
			}
			if line := next(); line != "ready" {
				t.Fatalf("got %q, want ready", line)
			}
			if _, err := io.WriteString(user, c.typed); err != nil {
				t.Fatal(err)
			}
			if line := next(); !strings.HasSuffix(line, c.want) {
				t.Errorf("got %q, want %q", line, c.want)
			}
			cmd.Wait() // the state tells more than the error
			if got := cmd.ProcessState.ExitCode(); got != c.code {
				t.Errorf("code %d, want %d", got, c.code)
			}
		})
	}
}
