package group

import (
	"errors"
	"fmt"

	"github.com/hashicorp/raft"
)

// Recovered is what a replica has that was recovered.
type Recovered struct {
	Last uint64 // index of its last entry; all up to it are applied
	Term uint64 // the replica leads in a later one
}

// keyCurrentTerm is where Raft keeps the term.
var keyCurrentTerm = []byte("CurrentTerm")

// Recover makes self, whose ID is c's, the only member of a group that has lost its
// majority for ever. The replica must not be open. Of c, Streams and Bootstrap are not
// used; the FSM is not to be used afterwards.
//
// Everything in the log counts as committed from now on, also what never was, and what
// only the others had committed is gone. The others must not come back: they do not
// know of this, and could elect a leader of their own with the same group. Whoever
// calls it gives the group's streams another name, so that nobody hears them. It may
// be repeated if it failed, or was cut short.
func Recover(c Config, self Server) (Recovered, error) {
	if c.ID == "" || c.ID != self.ID || self.Addr == "" || c.Dir == "" || c.Log == nil || c.FSM == nil {
		return Recovered{}, errors.New("group: ID, Dir, Log and FSM are required, and this replica with its address")
	}
	c = c.defaults()
	logger := newLogger(c.Logger)
	snapshots, err := raft.NewFileSnapshotStoreWithLogger(c.Dir, keptSnapshots, logger)
	if err != nil {
		return Recovered{}, fmt.Errorf("open snapshots: %w", err)
	}
	begun, err := raft.HasExistingState(c.Log, c.Log, snapshots)
	if err == nil && !begun {
		err = errors.New("the replica is empty")
	}
	if err != nil {
		return Recovered{}, fmt.Errorf("recover: %w", err)
	}
	term, err := c.Log.GetUint64(keyCurrentTerm)
	if err != nil {
		return Recovered{}, fmt.Errorf("read term: %w", err)
	}
	// A vote that was given stays given.
	if err := c.Log.SetUint64(keyCurrentTerm, term+1); err != nil {
		return Recovered{}, fmt.Errorf("raise term: %w", err)
	}
	_, nowhere := raft.NewInmemTransport(raft.ServerAddress(self.Addr))
	only := raft.Configuration{Servers: []raft.Server{{ID: raft.ServerID(self.ID), Address: raft.ServerAddress(self.Addr)}}}
	if err := raft.RecoverCluster(c.raft(logger), newApplier(c.FSM, snapshots, func(uint64) error { return nil }), c.Log, c.Log, snapshots, nowhere, only); err != nil {
		return Recovered{}, fmt.Errorf("recover: %w", err)
	}
	meta, err := newestSnapshot(snapshots)
	if err != nil {
		return Recovered{}, err
	}
	return Recovered{Last: meta.Index, Term: term + 1}, nil
}
