package nowait

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"
	"time"
)

func pair(t *testing.T) (net.Conn, net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	a, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	b, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return a, b
}

// What the other end does not read is written in part, then not at all, and nothing waits. All
// that was said to be written arrives.
func TestWriteDoesNotWait(t *testing.T) {
	if !supported {
		t.Skip("not on this system")
	}
	a, b := pair(t)
	w := NewWriter(a)
	chunk := bytes.Repeat([]byte("x"), 1<<20)
	var written int64
	for n := 1; n > 0; written += int64(n) {
		n = w.Write(chunk)
	}
	a.Close()
	if n := w.Write(chunk); n != 0 {
		t.Errorf("%d bytes were written to a closed connection", n)
	}
	if n, err := io.Copy(io.Discard, b); n != written || err != nil {
		t.Errorf("got %d bytes, %v; want %d", n, err, written)
	}
}

func TestWriteAfterDeadline(t *testing.T) {
	a, _ := pair(t)
	w := NewWriter(a)
	a.SetWriteDeadline(time.Unix(1, 0))
	if n := w.Write([]byte("x")); n != 0 {
		t.Errorf("%d bytes were written after the deadline", n)
	}
}

// A connection that may change what is written is not bypassed.
func TestNoDescriptor(t *testing.T) {
	a, _ := pair(t)
	w := NewWriter(struct{ net.Conn }{a})
	if n := w.Write([]byte("x")); w != nil || n != 0 {
		t.Errorf("got a writer, or %d bytes written", n)
	}
	if _, err := SyscallConn(struct{ net.Conn }{a}); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("got %v", err)
	}
}
