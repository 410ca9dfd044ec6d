package main

import (
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// childAttributes put a child into a process group of its own. It is told to end
// if this process is killed, which keeps nothing alive for it any more.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}

// A childTerminal is the terminal that a child reads. Only the foreground group of a
// terminal may, and gets its Ctrl-C: it is the child's, then, as a shell does it.
type childTerminal struct {
	fd    int
	group int              // our own
	news  <-chan os.Signal // something happened to the child
	end   func()
}

// lendTerminal prepares attr so that the child has the terminal; nil if stdin is
// none, or not ours at present.
func lendTerminal(stdin any, attr *syscall.SysProcAttr) *childTerminal {
	f, ok := stdin.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return nil
	}
	t := &childTerminal{fd: int(f.Fd()), group: syscall.Getpgrp()}
	if !t.has(t.group) {
		return nil
	}
	attr.Foreground, attr.Ctty = true, t.fd
	news := make(chan os.Signal, 1)
	signal.Notify(news, syscall.SIGCHLD)
	t.news, t.end = news, func() { signal.Stop(news) }
	return t
}

func (t *childTerminal) has(group int) bool {
	now, err := unix.IoctlGetInt(t.fd, unix.TIOCGPGRP)
	return err == nil && now == group
}

// give makes group the foreground group. Who is not in it would be stopped for
// that, and is the one who does it here. The terminal may be gone: that matters to
// nobody then.
func (t *childTerminal) give(group int) {
	signal.Ignore(syscall.SIGTTOU)
	defer signal.Reset(syscall.SIGTTOU)
	_ = unix.IoctlSetPointerInt(t.fd, unix.TIOCSPGRP, group)
}

// takeBack ends the loan.
func (t *childTerminal) takeBack() {
	if t != nil {
		t.end()
		t.give(t.group)
	}
}

// changed tells when to call follow.
func (t *childTerminal) changed() <-chan os.Signal {
	if t == nil {
		return nil
	}
	return t.news
}

// follow suspends this process, too, when the child is suspended (Ctrl-Z), and
// goes on with it. Meanwhile nothing is kept alive: what is lost by then ends the
// child. Where no shell would wake us, the child goes on at once.
func (t *childTerminal) follow(pid int) {
	var info unix.Siginfo
	if err := unix.Waitid(unix.P_PID, pid, &info, unix.WSTOPPED|unix.WNOHANG, nil); err != nil || info.Signo == 0 {
		return
	}
	woken := make(chan os.Signal, 1)
	signal.Notify(woken, syscall.SIGCONT)
	defer signal.Stop(woken)
	t.give(t.group)
	_ = syscall.Kill(0, syscall.SIGTSTP) // which the kernel drops if nobody could wake us
	select {
	case <-woken:
	case <-time.After(200 * time.Millisecond):
	}
	if t.has(t.group) {
		t.give(pid)
	}
	signalGroup(-pid, syscall.SIGCONT)
}
