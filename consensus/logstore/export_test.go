package logstore

import (
	"github.com/hashicorp/raft"
	bolt "go.etcd.io/bbolt"
)

// CommitBy is o with a commit of the test's own.
func CommitBy(o Options, commit func(tx *bolt.Tx) error) *Options {
	o.commit = commit
	return &o
}

// MaxBatchChanges and TrimStep are bounds of one transaction.
const (
	MaxBatchChanges = maxBatchChanges
	TrimStep        = trimStep
)

// CachedBytes is what g keeps in memory of its log, and how many entries that is.
func CachedBytes(g *Group) (bytes int, entries uint64) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if g.newest.held == (span{}) {
		return g.newest.bytes, 0
	}
	return g.newest.bytes, g.newest.held.last - g.newest.held.first + 1
}

// EntryPair is the stored key and value of an entry of a group.
func EntryPair(number uint32, log *raft.Log) (key, value []byte) {
	key = entryID{number, log.Index}.appendKey(nil)
	return key, appendEntry(nil, key, log)
}
