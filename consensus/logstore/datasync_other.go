//go:build !linux

package logstore

import "os"

// datasync returns when f is on disk.
func datasync(f *os.File) error { return f.Sync() }
