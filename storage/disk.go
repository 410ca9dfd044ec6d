package storage

import "errors"

// Open is replaced by the disk store.
func Open(dir string, o *Options) (Store, error) { return nil, errors.ErrUnsupported }

// Discard is replaced by the disk store.
func Discard(dir string) (movedTo string, err error) { return "", errors.ErrUnsupported }
