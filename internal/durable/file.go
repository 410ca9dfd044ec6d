// Package durable writes small files that must be whole after a crash.
package durable

import (
	"errors"
	"os"
	"path/filepath"
)

// ReplaceFile writes a file in one step: after a crash, of the machine too, there is the old one or
// the new one. It returns once the new one is on disk. One caller at a time may write a path.
func ReplaceFile(path string, content []byte) error {
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
