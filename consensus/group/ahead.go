package group

import (
	"errors"
	"fmt"
	"math"
	"sync"

	"github.com/hashicorp/raft"
	"github.com/meshkv/meshkv/consensus/logstore"
)

// An aheadLog lets a leader send commands to its followers while its own disk writes them
// (Ongaro 2014, §10.2.1): Raft (1.8.0) does the one after the other, so that a commit takes
// the time of two disks. StoreLogs of commands returns before they are on disk, and Raft
// counts the leader among those that have them; so whoever acts on a commit must not look
// beyond what is on this disk too:
//
//   - the applier, and with it who proposed or watches, waits (await);
//   - followers are told of no commit beyond (limit), nor are reads.
//
// So what anybody sees of a commit is on the disks of a majority, this one included. All
// else is written at once, in its order: terms and votes, since they promise that what was
// written before is there; the entry that begins a term, since it is what commits those of
// earlier terms; configurations, since the next one may be begun when Raft takes the last
// one for committed; and whatever a follower stores, since it answers for it.
type aheadLog struct {
	logstore.Log
	leads func() bool

	mu      sync.Mutex // protects the fields below
	changed *sync.Cond
	pending []*raft.Log // in Log or on their way there, ascending; what is read comes from here
	writing bool
	err     error // the log has failed: nothing is written any more
	closed  bool
}

// errNotStored: a command was committed for Raft and is not on this disk, nor will it be.
var errNotStored = errors.New("command is not on the disk of this leader")

func newAheadLog(log logstore.Log, leads func() bool) *aheadLog {
	a := &aheadLog{Log: log, leads: leads}
	a.changed = sync.NewCond(&a.mu)
	return a
}

// IsMonotonic implements raft.MonotonicLogStore, if the log does.
func (a *aheadLog) IsMonotonic() bool {
	m, ok := a.Log.(raft.MonotonicLogStore)
	return ok && m.IsMonotonic()
}

// StoreLog implements raft.LogStore.
func (a *aheadLog) StoreLog(log *raft.Log) error { return a.StoreLogs([]*raft.Log{log}) }

// StoreLogs implements raft.LogStore.
func (a *aheadLog) StoreLogs(logs []*raft.Log) error {
	ahead := a.leads()
	for _, log := range logs {
		ahead = ahead && log.Type == raft.LogCommand
	}
	if !ahead {
		if err := a.flush(); err != nil {
			return err
		}
		return a.Log.StoreLogs(logs)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.err != nil {
		return a.err
	}
	a.pending = append(a.pending, logs...)
	if !a.writing && len(a.pending) > 0 {
		a.writing = true
		go a.write() // until nothing is pending; Close waits for it
	}
	return nil
}

// write writes what is pending, all that has come each time.
func (a *aheadLog) write() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for len(a.pending) > 0 && a.err == nil {
		batch := a.pending
		a.mu.Unlock()
		err := a.Log.StoreLogs(batch)
		a.mu.Lock()
		if err != nil {
			a.err = fmt.Errorf("write entry %d: %w", batch[0].Index, err)
			break
		}
		a.pending = a.pending[len(batch):]
		if len(a.pending) == 0 {
			a.pending = nil
		}
		a.changed.Broadcast()
	}
	a.writing = false
	a.changed.Broadcast()
}

// flush returns when nothing of what is pending now is any more.
func (a *aheadLog) flush() error { return a.flushTo(math.MaxUint64) }

// flushTo is flush of what is pending up to index.
func (a *aheadLog) flushTo(index uint64) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if n := len(a.pending); n > 0 {
		index = min(index, a.pending[n-1].Index) // others may append meanwhile, for ever
	}
	for a.err == nil && len(a.pending) > 0 && a.pending[0].Index <= index {
		a.changed.Wait()
	}
	return a.err
}

// await returns when the entry at index is on disk; or errNotStored, if the log has failed
// or close was called.
func (a *aheadLog) await(index uint64) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	for len(a.pending) > 0 && a.pending[0].Index <= index {
		if a.err != nil || a.closed {
			return errNotStored
		}
		a.changed.Wait()
	}
	return nil
}

// limit is commit, or less: up to where entries are on disk.
func (a *aheadLog) limit(commit uint64) uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.pending) > 0 {
		return min(commit, a.pending[0].Index-1)
	}
	return commit
}

// close ends await.
func (a *aheadLog) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closed = true
	a.changed.Broadcast()
}

// rest returns when nothing is written any more. Nothing must be stored from then on.
func (a *aheadLog) rest() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for a.writing {
		a.changed.Wait()
	}
}

// GetLog implements raft.LogStore.
func (a *aheadLog) GetLog(index uint64, log *raft.Log) error {
	a.mu.Lock()
	if n := len(a.pending); n > 0 && index >= a.pending[0].Index && index <= a.pending[n-1].Index {
		*log = *a.pending[index-a.pending[0].Index]
		a.mu.Unlock()
		return nil
	}
	a.mu.Unlock()
	return a.Log.GetLog(index, log)
}

// LastIndex implements raft.LogStore.
func (a *aheadLog) LastIndex() (uint64, error) {
	a.mu.Lock()
	if n := len(a.pending); n > 0 {
		defer a.mu.Unlock()
		return a.pending[n-1].Index, nil
	}
	a.mu.Unlock()
	return a.Log.LastIndex()
}

// FirstIndex implements raft.LogStore.
func (a *aheadLog) FirstIndex() (uint64, error) {
	first, err := a.Log.FirstIndex()
	if err != nil || first != 0 {
		return first, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.pending) > 0 {
		return a.pending[0].Index, nil
	}
	return a.Log.FirstIndex() // they were written meanwhile
}

// DeleteRange implements raft.LogStore.
func (a *aheadLog) DeleteRange(from, to uint64) error {
	if err := a.flushTo(to); err != nil {
		return err
	}
	return a.Log.DeleteRange(from, to)
}

// Set implements raft.StableStore.
func (a *aheadLog) Set(key, value []byte) error {
	if err := a.flush(); err != nil {
		return err
	}
	return a.Log.Set(key, value)
}

// SetUint64 implements raft.StableStore.
func (a *aheadLog) SetUint64(key []byte, value uint64) error {
	if err := a.flush(); err != nil {
		return err
	}
	return a.Log.SetUint64(key, value)
}
