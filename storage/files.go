package storage

import (
	"io"
	"os"
	"path/filepath"
)

// Files is the layer through which the log is written and read, so that tests can
// make it fail. bbolt writes its file itself.
type Files interface {
	// Create makes a new file for appending. It must not exist.
	Create(path string) (File, error)
	// Open opens an existing file for reading and appending.
	Open(path string) (File, error)
	Remove(path string) error
	// SyncDir makes creations and removals in dir durable.
	SyncDir(dir string) error
}

// A File is one file of the log.
type File interface {
	io.ReaderAt
	io.Writer // appends
	Size() (int64, error)
	Truncate(size int64) error
	Sync() error
	Close() error
}

// osFiles is the machine's own.
type osFiles struct{}

type osFile struct{ *os.File }

func (osFiles) Create(path string) (File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (osFiles) Open(path string) (File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND, 0)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (osFiles) Remove(path string) error { return os.Remove(path) }

func (osFiles) SyncDir(dir string) error { return syncDir(dir) }

func (f osFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

func syncDir(dir string) error {
	d, err := os.Open(filepath.Clean(dir))
	if err != nil {
		return err
	}
	if err := d.Sync(); err != nil {
		_ = d.Close() // the sync's error is the one that matters
		return err
	}
	return d.Close()
}
