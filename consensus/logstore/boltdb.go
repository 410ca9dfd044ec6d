package logstore

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"github.com/meshkv/meshkv/storage"
	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// boltFiles is the engine of the kind BoltDB.
type boltFiles struct {
	dir     string
	entries int // of the cache of a group

	mu     sync.Mutex // protects the fields below; held while files are opened and removed, which is rare
	open   map[string]boltFile
	closed bool
}

// A boltFile is one group: reads of its newest entries come from memory.
type boltFile struct {
	*raft.LogCache
	*raftboltdb.BoltStore
}

// Both parts of a boltFile are log stores; the cache is in front.

func (f boltFile) FirstIndex() (uint64, error)          { return f.LogCache.FirstIndex() }
func (f boltFile) LastIndex() (uint64, error)           { return f.LogCache.LastIndex() }
func (f boltFile) GetLog(i uint64, log *raft.Log) error { return f.LogCache.GetLog(i, log) }
func (f boltFile) StoreLog(log *raft.Log) error         { return f.LogCache.StoreLog(log) }
func (f boltFile) StoreLogs(logs []*raft.Log) error     { return f.LogCache.StoreLogs(logs) }
func (f boltFile) DeleteRange(first, last uint64) error { return f.LogCache.DeleteRange(first, last) }

func openBoltDB(dir string, o *Options) *boltFiles {
	b := &boltFiles{dir: dir, open: make(map[string]boltFile), entries: defaultCacheEntries}
	if o != nil && o.CacheEntries > 0 {
		b.entries = o.CacheEntries
	}
	return b
}

// options of the files. Freed pages are not synced: after the deletion of many
// entries their list would be rewritten with every commit.
func options() *bolt.Options {
	return &bolt.Options{
		Timeout:        time.Second,
		NoFreelistSync: true,
		FreelistType:   bolt.FreelistMapType,
		NoStatistics:   true,
	}
}

func openError(path string, err error) error {
	if errors.Is(err, bolterrors.ErrTimeout) {
		return fmt.Errorf("%s is %w", path, storage.ErrLocked)
	}
	for _, damage := range []error{bolterrors.ErrInvalid, bolterrors.ErrVersionMismatch, bolterrors.ErrChecksum} {
		if errors.Is(err, damage) {
			return &storage.DamageError{File: path, Reason: err.Error(), Cause: err}
		}
	}
	return fmt.Errorf("open %s: %w", path, err)
}

func (b *boltFiles) path(name string) string {
	return filepath.Join(b.dir, "raft-"+hex.EncodeToString([]byte(name))+".db")
}

// Group implements Engine. The length of a name is bounded by that of a file's.
func (b *boltFiles) Group(name string) (Log, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f, ok := b.open[name]
	switch {
	case b.closed:
		return nil, storage.ErrClosed
	case name == "":
		return nil, fmt.Errorf("%w: group without a name", storage.ErrInvalid)
	case ok:
		return f, nil
	case len(b.open) == maxGroups:
		return nil, fmt.Errorf("%w: more than %d groups", storage.ErrInvalid, maxGroups)
	}
	path := b.path(name)
	store, err := raftboltdb.New(raftboltdb.Options{Path: path, BoltOptions: options()})
	if err != nil {
		return nil, openError(path, err)
	}
	cache, err := raft.NewLogCache(b.entries, store)
	if err == nil {
		err = syncDir(b.dir)
	}
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	f = boltFile{cache, store}
	b.open[name] = f
	return f, nil
}

// Remove implements Engine.
func (b *boltFiles) Remove(_ context.Context, name string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return storage.ErrClosed
	}
	if f, ok := b.open[name]; ok {
		delete(b.open, name)
		if err := f.Close(); err != nil {
			return err
		}
	}
	if err := os.Remove(b.path(name)); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		return err
	}
	return syncDir(b.dir)
}

// Close implements Engine. It may be called twice.
func (b *boltFiles) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	var errs []error
	for name, f := range b.open {
		errs = append(errs, f.Close())
		delete(b.open, name)
	}
	return errors.Join(errs...)
}
