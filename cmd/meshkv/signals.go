package main

import (
	"context"
	"os"
	"sync"
)

// Signals are what asks the process to end. They end its command, or go to the
// child that the command runs.
type signals struct {
	mu    sync.Mutex // protects child
	child chan<- os.Signal
}

// follow ends the command in good order at the first signal, and the process at
// the second: the command was not fast enough for the user.
func (s *signals) follow(in <-chan os.Signal, cancel context.CancelCauseFunc) {
	first := true
	for sig := range in {
		switch {
		case s.pass(sig):
		case first:
			first = false
			cancel(errInterrupted)
		default:
			os.Exit(codeInterrupted)
		}
	}
}

// pass gives sig to the child. It is dropped when as many as the channel holds
// are not taken yet: they say the same.
func (s *signals) pass(sig os.Signal) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.child == nil {
		return false
	}
	select {
	case s.child <- sig:
	default:
	}
	return true
}

// divert sends all signals to c until back is called. One that came before has
// ended the context of the command.
func (s *signals) divert(c chan<- os.Signal) (back func()) {
	s.set(c)
	return func() { s.set(nil) }
}

func (s *signals) set(c chan<- os.Signal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.child = c
}
