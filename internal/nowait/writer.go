// Package nowait writes to connections from whoever has something to say: without a
// goroutine that is woken for it, and without waiting.
package nowait

import (
	"errors"
	"net"
	"syscall"
)

// A Writer writes what a connection takes at once. Nil takes nothing. Not safe for concurrent use.
type Writer struct {
	raw syscall.RawConn
	try func(fd uintptr) bool // made once, for all writes
	b   []byte                // what is written
	n   int                   // how much of it was
}

// NewWriter is the Writer of conn; nil if conn has no file descriptor, or the system no such call.
func NewWriter(conn net.Conn) *Writer {
	raw, err := SyscallConn(conn)
	if err != nil || !supported {
		return nil
	}
	w := &Writer{raw: raw}
	w.try = func(fd uintptr) bool {
		w.n = write(fd, w.b)
		return true // do not wait until there is room
	}
	return w
}

// SyscallConn is the file descriptor of conn. Types that wrap a connection and change nothing of
// what is written pass it on as theirs. The error matches errors.ErrUnsupported if conn has none.
func SyscallConn(conn net.Conn) (syscall.RawConn, error) {
	c, ok := conn.(syscall.Conn)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	return c.SyscallConn()
}

// Write writes a beginning of b and returns its length: 0 if there is no room, the write
// deadline of the connection is over, or it failed, which whoever writes the rest learns as well.
func (w *Writer) Write(b []byte) int {
	if w == nil {
		return 0
	}
	w.b, w.n = b, 0
	_ = w.raw.Write(w.try) // n is 0
	w.b = nil
	return w.n
}
