package group

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/hashicorp/raft"
)

// An FSM is the state that commands change. Apply, Snapshot and Restore are called
// by one goroutine. All replicas must come to the same state by the same
// commands: an FSM reads no clock and nothing random.
type FSM interface {
	// Apply applies a committed command. Indexes rise, with gaps. What it returns
	// goes to the proposer. It may keep cmd.
	Apply(index uint64, cmd []byte) any
	// Snapshot captures the state, quickly: nothing is applied meanwhile.
	Snapshot() (Snapshot, error)
	// Restore replaces the state by one that a Snapshot wrote.
	Restore(r io.Reader) error
}

// A Snapshot is a state that stays as it was while commands are applied.
type Snapshot interface {
	// Write writes it once.
	Write(w io.Writer) error
	// Release is called when it is not needed any more.
	Release()
}

// snapshotMagic begins a snapshot; the index up to which commands were applied
// (u64, little-endian) and the FSM's own bytes follow.
const snapshotMagic = "mkvgrp1\n"

// applier is the raft.FSM around an FSM. It knows what was applied, which
// raft.AppliedIndex does not: that is what was queued for it.
type applier struct {
	fsm       FSM
	snapshots raft.SnapshotStore // the newest one is the one that is restored
	applying  chan struct{}      // of capacity 1: something was committed
	// stored returns when an entry is on this disk; after an error of it nothing is applied
	// any more. The goroutine that applies owns refused.
	stored  func(index uint64) error
	refused error

	mu      sync.Mutex // protects the fields below
	index   uint64     // all commands up to here are applied
	waiters []waiter   // one for a batch of reads
	config  Configuration
}

func newApplier(fsm FSM, snapshots raft.SnapshotStore, stored func(index uint64) error) *applier {
	return &applier{fsm: fsm, snapshots: snapshots, stored: stored, applying: make(chan struct{}, 1)}
}

type waiter struct {
	index uint64
	done  chan struct{}
}

// Raft tells the applier of changes of the configuration too.
var _ raft.ConfigurationStore = (*applier)(nil)

// Apply implements raft.FSM. What it returns is errNotStored if the command was not applied.
func (a *applier) Apply(log *raft.Log) any {
	if a.refused == nil {
		a.refused = a.stored(log.Index)
	}
	if a.refused != nil {
		return a.refused
	}
	signal(a.applying)
	result := a.fsm.Apply(log.Index, log.Data)
	a.advance(log.Index)
	return result
}

// StoreConfiguration counts as applied: the entry needs no command.
func (a *applier) StoreConfiguration(index uint64, c raft.Configuration) {
	if a.refused != nil {
		return
	}
	signal(a.applying)
	a.configure(index, c)
	a.advance(index)
}

func (a *applier) configure(index uint64, c raft.Configuration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.config = newConfiguration(index, c)
}

// configuration must not be changed by the caller.
func (a *applier) configuration() Configuration {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.config
}

func (a *applier) advance(index uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.index = index
	a.waiters = slices.DeleteFunc(a.waiters, func(w waiter) bool {
		if w.index > index {
			return false
		}
		close(w.done)
		return true
	})
}

// applied is the index up to which all commands are applied.
func (a *applier) applied() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.index
}

// wait returns when the command at index is applied.
func (a *applier) wait(ctx context.Context, index uint64) error {
	a.mu.Lock()
	if a.index >= index {
		a.mu.Unlock()
		return nil
	}
	w := waiter{index, make(chan struct{})}
	a.waiters = append(a.waiters, w)
	a.mu.Unlock()
	select {
	case <-w.done:
		return nil
	case <-ctx.Done():
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.waiters = slices.DeleteFunc(a.waiters, func(o waiter) bool { return o == w })
	return context.Cause(ctx)
}

func (a *applier) Snapshot() (raft.FSMSnapshot, error) {
	if a.refused != nil { // Raft takes for applied what is not
		return nil, a.refused
	}
	s, err := a.fsm.Snapshot()
	if err != nil {
		return nil, err
	}
	return persister{s, a.applied()}, nil
}

func (a *applier) Restore(r io.ReadCloser) (err error) {
	defer func() { err = errors.Join(err, r.Close()) }()
	var head [len(snapshotMagic) + 8]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return fmt.Errorf("read head of snapshot: %w", err)
	}
	if string(head[:len(snapshotMagic)]) != snapshotMagic {
		return errors.New("not a snapshot of a group")
	}
	if err := a.fsm.Restore(r); err != nil {
		return err
	}
	meta, err := newestSnapshot(a.snapshots)
	if err != nil {
		return err
	}
	a.configure(meta.ConfigurationIndex, meta.Configuration)
	a.advance(binary.LittleEndian.Uint64(head[len(snapshotMagic):]))
	return nil
}

func newestSnapshot(s raft.SnapshotStore) (*raft.SnapshotMeta, error) {
	list, err := s.List()
	if err == nil && len(list) == 0 {
		err = errors.New("there is none")
	}
	if err != nil {
		return nil, fmt.Errorf("find newest snapshot: %w", err)
	}
	return list[0], nil
}

// persister is the raft.FSMSnapshot of a Snapshot.
type persister struct {
	Snapshot
	index uint64
}

func (p persister) Persist(sink raft.SnapshotSink) error {
	_, err := sink.Write(binary.LittleEndian.AppendUint64([]byte(snapshotMagic), p.index))
	if err == nil {
		err = p.Write(sink)
	}
	if err != nil {
		return errors.Join(err, sink.Cancel())
	}
	return sink.Close()
}
