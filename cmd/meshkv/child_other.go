//go:build !linux

package main

import (
	"os"
	"syscall"
)

// childAttributes put a child into a process group of its own.
func childAttributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// A childTerminal is lent on Linux only: elsewhere a child cannot read the terminal.
type childTerminal struct{}

func lendTerminal(any, *syscall.SysProcAttr) *childTerminal { return nil }

func (t *childTerminal) takeBack()                 {}
func (t *childTerminal) changed() <-chan os.Signal { return nil }
func (t *childTerminal) follow(int)                {}
