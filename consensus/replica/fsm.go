package replica

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"sync"

	"github.com/meshkv/meshkv/consensus/group"
	"github.com/meshkv/meshkv/consensus/machine"
)

// An entry of the log is a batch of commands, each with its length before it (uvarint).

func appendCommand(entry, cmd []byte) []byte {
	entry = binary.AppendUvarint(entry, uint64(len(cmd)))
	return append(entry, cmd...)
}

// splitEntry yields the commands of an entry. What cannot be split is yielded as
// one command that the machine refuses: all replicas do the same.
func splitEntry(entry []byte, yield func(cmd []byte)) {
	for len(entry) > 0 {
		n, used := binary.Uvarint(entry)
		if used <= 0 || n > uint64(len(entry)-used) {
			yield(nil)
			return
		}
		yield(entry[used : used+int(n)])
		entry = entry[used+int(n):]
	}
}

// An outcome is what one command did, and the index under which it did: commands have
// indexes of their own, from 1 and without holes.
type outcome struct {
	index  uint64
	result machine.Result
}

// state is the machine with those who follow it. It is the group's FSM.
type state struct {
	mu      sync.Mutex // protects the fields below
	machine *machine.Machine
	applied uint64 // commands
	later   bool   // a command of a later version was met: nothing more is applied, or read
	closed  bool
	done    chan struct{} // closed with closed, or later
	hub     hub
	waiters map[chan struct{}]uint64 // closed when applied is that; one for a batch of reads
	effects func([]outcome)          // hears of all that was applied, in order
	halted  func(error)              // hears once of later
}

var _ group.FSM = (*state)(nil)

func newState(epoch uint64) *state {
	s := &state{machine: machine.New(), hub: newHub(), waiters: make(map[chan struct{}]uint64), done: make(chan struct{})}
	s.machine.Begin(epoch)
	return s
}

// end ends all who watch or wait: nothing is applied any more.
func (s *state) end(later bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.endLocked(later)
}

func (s *state) endLocked(later bool) {
	s.later = s.later || later
	if s.closed {
		return
	}
	s.closed = true
	close(s.done)
	s.hub.end()
}

// over is why the state is not to be read any more, or nil.
func (s *state) over() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.later:
		return errLater
	case s.closed:
		return group.ErrClosed
	}
	return nil
}

// errLater: the log has a command that this version does not know. The replica must not
// go on: it would diverge.
var errLater = errors.New("the log was written by a later version of meshkv: upgrade this node")

// Apply implements group.FSM. It returns the outcomes of the batch, as []outcome, or an error.
func (s *state) Apply(_ uint64, entry []byte) any {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.later {
		return errLater
	}
	var outcomes []outcome
	splitEntry(entry, func(cmd []byte) {
		if s.later {
			return
		}
		result := s.machine.Apply(s.applied+1, cmd)
		if errors.Is(result.Err, machine.ErrUnknownCommand) || errors.Is(result.Err, machine.ErrUnknownVersion) {
			s.endLocked(true)
			if s.halted != nil {
				s.halted(errLater)
			}
			return
		}
		s.applied++
		outcomes = append(outcomes, outcome{s.applied, result})
		s.hub.note(&result)
	})
	s.hub.flush()
	s.wake()
	if s.effects != nil {
		s.effects(outcomes)
	}
	return outcomes
}

// wake lets those go on whose index is applied. The caller holds mu.
func (s *state) wake() {
	for c, index := range s.waiters {
		if index <= s.applied {
			close(c)
			delete(s.waiters, c)
		}
	}
}

// index is that of the last command. Unlike a view it costs later commands nothing.
func (s *state) index() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.applied
}

// view is the state now.
func (s *state) view() *machine.View {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.machine.View()
}

// viewAt is the state once the command at index is applied.
func (s *state) viewAt(ctx context.Context, index uint64) (*machine.View, error) {
	s.mu.Lock()
	if s.later {
		s.mu.Unlock()
		return nil, errLater
	}
	if s.applied >= index {
		defer s.mu.Unlock()
		return s.machine.View(), nil
	}
	c := make(chan struct{})
	s.waiters[c] = index
	s.mu.Unlock()
	select {
	case <-c:
		return s.view(), nil
	case <-s.done:
		return nil, s.over()
	case <-ctx.Done():
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.waiters, c)
		return nil, context.Cause(ctx)
	}
}

// Snapshot implements group.FSM.
func (s *state) Snapshot() (group.Snapshot, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.later {
		return nil, errLater
	}
	return snapshot{s.machine.View()}, nil
}

type snapshot struct{ view *machine.View }

// Write implements group.Snapshot.
func (s snapshot) Write(w io.Writer) error { return s.view.Snapshot(w) }

// Release implements group.Snapshot.
func (snapshot) Release() {}

// Restore implements group.FSM.
func (s *state) Restore(r io.Reader) error {
	restored := machine.New()
	if err := restored.Restore(r); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.machine, s.applied = restored, restored.View().Status().Applied
	s.hub.restored()
	s.wake()
	return nil
}
