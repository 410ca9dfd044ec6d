package main

import "syscall"

// childAttributes put a child into a process group of its own. It is told to end
// if this process is killed, which keeps nothing alive for it any more.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}
