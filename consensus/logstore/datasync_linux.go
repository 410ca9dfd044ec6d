package logstore

import (
	"errors"
	"os"
	"syscall"
)

// datasync returns when the bytes of f are on disk, and its length; its times need
// not be.
func datasync(f *os.File) error {
	for {
		err := syscall.Fdatasync(int(f.Fd()))
		if !errors.Is(err, syscall.EINTR) {
			return os.NewSyscallError("fdatasync", err)
		}
	}
}
