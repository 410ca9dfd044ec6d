package streams_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meshkv/meshkv/consensus/streams"
	"github.com/meshkv/meshkv/consensus/streams/memnet"
)

// start is a Mux at addr and what stops it.
func start(t *testing.T, n *memnet.Network, addr string) (m *streams.Mux, stop func()) {
	t.Helper()
	ln, err := n.Listen(addr)
	if err != nil {
		t.Fatal(err)
	}
	m = streams.New(ln, n.Dialer(addr))
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := m.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	return m, func() {
		cancel()
		running.Wait()
	}
}

func layer(t *testing.T, m *streams.Mux, name string) *streams.Layer {
	t.Helper()
	l, err := m.Layer(name)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// ended fails unless conn was closed by the other side.
func ended(t *testing.T, conn net.Conn) {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("got %v, want the end of the stream", err)
	}
	_ = conn.Close()
}

// Streams reach the group that they are for, and end with it.
func TestGroupsShareAListener(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := memnet.New()
		ma, stopA := start(t, n, "a")
		mb, stopB := start(t, n, "b")
		names := []string{"x", strings.Repeat("long", 63), "x0"}
		var closers []io.Closer
		for _, name := range names {
			la, lb := layer(t, ma, name), layer(t, mb, name)
			closers = append(closers, la, lb)
			out, err := la.Dial("b", time.Second)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := out.Write([]byte(name)); err != nil {
				t.Fatal(err)
			}
			in, err := lb.Accept()
			if err != nil {
				t.Fatal(err)
			}
			got := make([]byte, len(name))
			if _, err := io.ReadFull(in, got); err != nil || string(got) != name {
				t.Errorf("got %q, %v, want %q", got, err, name)
			}
			if err := lb.Close(); err != nil { // with its accepted stream
				t.Fatal(err)
			}
			ended(t, out)
			if _, err := lb.Accept(); !errors.Is(err, net.ErrClosed) {
				t.Errorf("got %v, want ErrClosed", err)
			}
		}
		for _, c := range append(closers, closers...) {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}
		stopA()
		stopB()
	})
}

func TestNames(t *testing.T) {
	n := memnet.New()
	ln, err := n.Listen("a")
	if err != nil {
		t.Fatal(err)
	}
	m := streams.New(ln, n.Dialer("a"))
	l := layer(t, m, "x")
	_, errTwice := m.Layer("x")
	_, errNone := m.Layer("")
	_, errLong := m.Layer(strings.Repeat("n", 256))
	if !errors.Is(errTwice, streams.ErrTaken) || !errors.Is(errNone, streams.ErrName) || !errors.Is(errLong, streams.ErrName) {
		t.Errorf("got %v, %v and %v", errTwice, errNone, errLong)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	layer(t, m, "x") // it is free again
}

// What does not say which group it wants, or wants none that is here, is closed
// and counted.
func TestRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := memnet.New()
		m, stop := start(t, n, "a")
		l := layer(t, m, "x")
		for i, greeting := range []string{"", "\x01", "\x01\x03xy", "\x02\x01x", "\x01\x00", "\x01\x01y", "GET / HTTP/1.1\r\n"} {
			conn, err := n.Dialer("c")(context.Background(), "a")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Write([]byte(greeting)); err != nil {
				t.Fatal(err)
			}
			ended(t, conn) // within the time for a greeting
			if got := m.Refused(); got != uint64(i)+1 {
				t.Errorf("%q: %d refused, want %d", greeting, got, i+1)
			}
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		stop()
	})
}

// Streams that nobody accepts, and greetings that nobody ends, are bounded.
func TestBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := memnet.New()
		m, stop := start(t, n, "a")
		l := layer(t, m, "x")
		dial := n.Dialer("c")
		var conns []net.Conn
		for range 70 {
			conn, err := dial(context.Background(), "a")
			if err != nil {
				t.Fatal(err)
			}
			conns = append(conns, conn)
			synctest.Wait()
		}
		if got := m.Refused(); got != 70-64 {
			t.Errorf("%d silent ones were refused, want 6", got)
		}
		time.Sleep(6 * time.Second)
		if got := m.Refused(); got != 70 {
			t.Errorf("%d were refused after their time, want 70", got)
		}
		for range 70 {
			conn, err := dial(context.Background(), "a")
			if err == nil {
				_, err = conn.Write([]byte("\x01\x01x"))
			}
			if err != nil {
				t.Fatal(err)
			}
			conns = append(conns, conn)
			synctest.Wait()
		}
		if got := m.Refused(); got != 70+6 {
			t.Errorf("%d were refused, want 76", got)
		}
		if err := l.Close(); err != nil { // and with it those that wait
			t.Fatal(err)
		}
		for _, conn := range conns {
			ended(t, conn)
		}
		stop()
	})
}

// A dial ends by its timeout, and with the layer.
func TestDialEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := memnet.New()
		m, stop := start(t, n, "a")
		_, stopB := start(t, n, "b")
		l := layer(t, m, "x")
		n.Cut("a", "b")
		begin := time.Now()
		if _, err := l.Dial("b", time.Second); !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) != time.Second {
			t.Errorf("got %v after %v, want the timeout", err, time.Since(begin))
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := l.Dial("b", 0); !errors.Is(err, context.Canceled) {
				t.Errorf("got %v, want the end of the layer", err)
			}
		})
		synctest.Wait()
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
		if _, err := l.Dial("a", time.Second); err == nil {
			t.Error("dialed after Close")
		}
		stop()
		stopB()
	})
}

// The network in memory does what tests of Raft rely on.
func TestMemnet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := memnet.New()
		ln, err := n.Listen("b")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := n.Listen("b"); err == nil {
			t.Error("listened twice")
		}
		if _, err := n.Dialer("a")(context.Background(), "c"); err == nil {
			t.Error("dialed nobody")
		}
		out, err := n.Dialer("a")(context.Background(), "b")
		if err != nil {
			t.Fatal(err)
		}
		in, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		there, back := memnet.Flow{Dialer: "a", Acceptor: "b"}, memnet.Flow{Dialer: "a", Acceptor: "b", Reply: true}
		read := func(c net.Conn, within time.Duration) string {
			t.Helper()
			if err := c.SetReadDeadline(time.Now().Add(within)); err != nil {
				t.Fatal(err)
			}
			b := make([]byte, 100)
			k, err := c.Read(b)
			if err != nil {
				return fmt.Sprint(errors.Is(err, os.ErrDeadlineExceeded), " ", err == io.EOF)
			}
			return string(b[:k])
		}
		write := func(c net.Conn, s string) {
			t.Helper()
			if _, err := c.Write([]byte(s)); err != nil {
				t.Fatal(err)
			}
		}
		write(out, "at once")
		if got := read(in, 1); got != "at once" {
			t.Errorf("got %q", got)
		}
		n.Hold(there)
		write(out, "held")
		write(in, "reply")
		if got := read(in, time.Hour); got != "true false" {
			t.Errorf("held: got %q", got)
		}
		if got := read(out, 1); got != "reply" {
			t.Errorf("got %q", got)
		}
		n.Release(there)
		if got := read(in, 1); got != "held" {
			t.Errorf("released: got %q", got)
		}
		n.Delay(back, time.Second)
		begin := time.Now()
		write(in, "late")
		if got := read(out, time.Hour); got != "late" || time.Since(begin) != time.Second {
			t.Errorf("delayed: got %q after %v", got, time.Since(begin))
		}
		n.Cut("a", "b")
		write(out, "lost")
		if got := read(in, time.Hour); got != "true false" {
			t.Errorf("cut: got %q", got)
		}
		n.Heal("a", "b")
		if got := read(in, time.Hour); got != "true false" { // it stays silent
			t.Errorf("healed: got %q", got)
		}
		again, err := n.Dialer("a")(context.Background(), "b")
		if err != nil {
			t.Fatal(err)
		}
		other, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		write(again, "last")
		_ = again.Close()
		if got := read(other, 1) + " " + read(other, time.Hour); got != "last false true" {
			t.Errorf("closed: got %q", got)
		}
		if _, err := other.Write([]byte("x")); err == nil {
			t.Error("wrote to a stream that is closed there")
		}
		for _, c := range []io.Closer{other, in, out, ln, ln} {
			_ = c.Close()
		}
		if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("got %v, want ErrClosed", err)
		}
	})
}
