package logstore

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/hashicorp/raft"
	"github.com/meshkv/meshkv/storage"
)

// A Log is what Raft needs to keep of one group.
type Log interface {
	raft.LogStore
	raft.StableStore
}

// An Engine keeps the logs of a node's groups. Safe for concurrent use.
type Engine interface {
	// Group is the group called name; it is made if there is none.
	Group(name string) (Log, error)
	// Remove removes the group called name, if there is one. Nobody may use it
	// any more.
	Remove(ctx context.Context, name string) error
	Close() error
}

// A Kind names an engine in the configuration ("log-store"). The kind of a node
// must not change while it has groups: each has its own files.
type Kind string

// JournalDir is the directory of a Journal within that of its engine.
const JournalDir = "raft-log"

// The kinds of engines; ADR 15 compares them.
const (
	// Journal is a Store, in the directory raft-log. The default.
	Journal Kind = "journal"
	// BoltDB is a raft-boltdb file for each group. It does not verify what it
	// reads, and goes on after a failed fsync.
	BoltDB Kind = "boltdb"
)

// OpenEngine opens the engine of that kind in dir, which must exist. An empty kind
// is Journal; for one that is not known the error matches storage.ErrInvalid. Of
// o, BoltDB knows CacheEntries alone.
func OpenEngine(kind Kind, dir string, o *Options) (Engine, error) {
	switch kind {
	case "", Journal:
		s, err := Open(filepath.Join(dir, JournalDir), o)
		if err != nil {
			return nil, err
		}
		return journal{s}, nil
	case BoltDB:
		return openBoltDB(dir, o), nil
	}
	return nil, fmt.Errorf("%w: log store %q is neither %q nor %q", storage.ErrInvalid, kind, Journal, BoltDB)
}

// journal is a Store as an Engine.
type journal struct{ *Store }

func (j journal) Group(name string) (Log, error) {
	g, err := j.Store.Group(name)
	if err != nil {
		return nil, err
	}
	return g, nil
}

func (j journal) Remove(_ context.Context, name string) error { return j.Store.Remove(name) }
