package storage

import (
	"log/slog"
	"time"
)

// Options of a store on disk. The zero value is usable.
type Options struct {
	// CheckpointBytes is the size of the log at which its content moves to the
	// bbolt file. If the file is larger, its size counts instead, up to half of
	// MaxLogBytes; see docs/storage.md. Default 64 MiB.
	CheckpointBytes int64
	// MaxLogBytes is the size of the log at which commits wait for the checkpoint
	// that runs. A single batch may exceed it. Default 1 GiB.
	MaxLogBytes int64
	// CheckpointIdle is after how long without a commit whatever is in the log
	// moves too. Default 10 s; negative: never.
	CheckpointIdle time.Duration
	// Files is the layer through which the log is written. Default: the machine's.
	Files Files
	// Logger receives state changes at Info and details at Debug. Default: discard.
	Logger *slog.Logger
}
