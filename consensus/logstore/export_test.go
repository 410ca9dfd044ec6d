package logstore

import "os"

// CommitBy is o with a commit of the test's own: put writes a frame and syncs it.
func CommitBy(o Options, commit func(put func() error) error) *Options {
	o.commit = commit
	return &o
}

// InSegmentsOf is o with segments of n bytes.
func InSegmentsOf(o Options, n int64) *Options {
	o.segmentBytes = n
	return &o
}

// SyncBy is o with an fsync of the test's own.
func SyncBy(o Options, sync func(f *os.File) error) *Options {
	o.datasync = sync
	return &o
}

// The bounds of one commit, and what is not used at the beginning of a segment.
const (
	MaxBatchChanges = maxBatchChanges
	MaxBatchBytes   = maxBatchBytes
	SegmentHead     = segmentHead
)

// CachedBytes is what g keeps in memory of its log, and how many entries that is.
func CachedBytes(g *Group) (bytes int, entries uint64) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.newest.bytes, g.newest.held.count()
}
