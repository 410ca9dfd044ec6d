package faultnet

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

const patience = 10 * time.Second

// pair is a connection from a to b.
func pair(t *testing.T, n *Network) (net.Conn, net.Conn) {
	t.Helper()
	l, err := n.Node("b").ListenTCP("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	ca, err := n.Node("a").DialTCP(t.Context(), l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	cb, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Heal(); ca.Close(); cb.Close() })
	return ca, cb
}

func read(t *testing.T, c net.Conn, n int, within time.Duration) ([]byte, error) {
	t.Helper()
	b := make([]byte, n)
	c.SetReadDeadline(time.Now().Add(within))
	got, err := io.ReadFull(c, b)
	return b[:got], err
}

func TestStreamAcrossPartition(t *testing.T) {
	n := New(1)
	a, b := pair(t, n)
	if err := n.Partition([]string{"a"}, []string{"b"}); err != nil {
		t.Fatal(err)
	}
	if n.Reachable("a", "b") || !n.Reachable("a", "a") {
		t.Error("reachable is wrong")
	}
	a.Write([]byte("from a"))
	b.Write([]byte("from b"))
	for _, c := range []net.Conn{a, b} {
		if got, err := read(t, c, 1, 50*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("across the partition: %q, %v", got, err)
		}
	}
	n.Heal()
	if got, err := read(t, b, 6, patience); string(got) != "from a" {
		t.Errorf("got %q, %v", got, err)
	}
	if got, err := read(t, a, 6, patience); string(got) != "from b" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestWritesBlockWhenTheBufferIsFull(t *testing.T) {
	n := New(1)
	a, b := pair(t, n)
	n.Partition([]string{"a"}) // b is in the other group by being in none
	data := bytes.Repeat([]byte{1, 2, 3}, connBuffer/2)
	a.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
	sent, err := a.Write(data)
	if sent != connBuffer || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("wrote %d, %v", sent, err)
	}
	rest := make(chan error, 1)
	go func() {
		a.SetWriteDeadline(time.Now().Add(patience))
		_, err := a.Write(data[sent:])
		rest <- err
	}()
	n.Heal()
	if got, err := read(t, b, len(data), patience); !bytes.Equal(got, data) {
		t.Errorf("got %d bytes, %v", len(got), err)
	}
	if err := <-rest; err != nil {
		t.Error(err)
	}
}

// The other end must not learn of a close before the way is open; this end's calls end at once.
func TestCloseAcrossPartition(t *testing.T) {
	n := New(1)
	a, b := pair(t, n)
	n.Partition([]string{"a"}, []string{"b"})
	a.Write([]byte("last words"))
	blocked := make(chan error, 1)
	go func() {
		_, err := a.Read(make([]byte, 1))
		blocked <- err
	}()
	a.Close()
	if err := <-blocked; !errors.Is(err, net.ErrClosed) {
		t.Errorf("blocked read: %v", err)
	}
	if _, err := a.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("read: %v", err)
	}
	if _, err := a.Write([]byte{1}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("write: %v", err)
	}
	if err := a.SetReadDeadline(time.Time{}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("deadline: %v", err)
	}
	if got, err := read(t, b, 1, 50*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the close passed the partition: %q, %v", got, err)
	}
	n.Partition([]string{"b"}, []string{"c"}) // still cut
	if got, err := read(t, b, 1, 50*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the close passed another partition: %q, %v", got, err)
	}
	n.Heal()
	b.SetReadDeadline(time.Now().Add(patience))
	if got, err := io.ReadAll(b); string(got) != "last words" || err != nil {
		t.Errorf("after the healing: %q, %v", got, err)
	}
}

func TestDialAcrossPartition(t *testing.T) {
	n := New(1)
	_, b := pair(t, n)
	addr := b.LocalAddr().String()
	n.Partition([]string{"a"}, []string{"b"})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if _, err := n.Node("a").DialTCP(ctx, addr); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	done := make(chan error, 1)
	go func() {
		c, err := n.Node("a").DialTCP(t.Context(), addr)
		if err == nil {
			c.Close()
		}
		done <- err
	}()
	n.Heal()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := n.Partition([]string{"a"}, []string{"a"}); err == nil {
		t.Error("one node in two groups")
	}
}

func TestLatency(t *testing.T) {
	n := New(1)
	a, b := pair(t, n)
	n.SetLatency(30 * time.Millisecond)
	n.SetPairLatency("b", "c", time.Hour)
	start := time.Now()
	for range 3 { // a stream in flight, not a stop and go
		a.Write([]byte("x"))
	}
	if _, err := read(t, b, 3, patience); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took < 30*time.Millisecond {
		t.Errorf("took %v", took)
	}
	n.SetPairLatency("a", "b", 0)
	a.Write([]byte("y"))
	if _, err := read(t, b, 1, patience); err != nil {
		t.Fatal(err)
	}
}

func TestPackets(t *testing.T) {
	n := New(1)
	var c [2]net.PacketConn
	for i, name := range []string{"a", "b"} {
		var err error
		if c[i], err = n.Node(name).ListenUDP("127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		defer c[i].Close()
	}
	send := func(s string) { c[0].WriteTo([]byte(s), c[1].LocalAddr()) }
	get := func(within time.Duration) string {
		b := make([]byte, 10)
		c[1].SetReadDeadline(time.Now().Add(within))
		k, _, _ := c[1].ReadFrom(b)
		return string(b[:k])
	}
	send("1")
	if got := get(patience); got != "1" {
		t.Errorf("got %q", got)
	}
	n.Partition([]string{"a"}, []string{"b"})
	send("2")
	n.Heal()
	n.SetLoss(1)
	send("3")
	n.SetLoss(0)
	n.SetLatency(30 * time.Millisecond)
	start := time.Now()
	send("4")
	if got := get(patience); got != "4" || time.Since(start) < 30*time.Millisecond {
		t.Errorf("got %q after %v", got, time.Since(start))
	}
	n.SetLatency(time.Millisecond)
	send("5")
	n.Partition([]string{"a"}, []string{"b"}) // on its way
	n.Heal()
	send("6")
	if got := get(patience); got != "5" && got != "6" {
		t.Errorf("got %q", got)
	}
}

func TestAddressesAreForgotten(t *testing.T) {
	n := New(1)
	a, b := pair(t, n)
	u, err := n.Node("a").ListenUDP("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u.Close()
	a.Close()
	b.Close()
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.owner) != 1 { // the listener
		t.Errorf("%v", n.owner)
	}
}

// One direction, or one protocol, is cut: the rest goes on.
func TestCut(t *testing.T) {
	n := New(1)
	a, b := pair(t, n)
	ua, err := n.Node("a").ListenUDP("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ua.Close()
	ub, err := n.Node("b").ListenUDP("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ub.Close()
	// passes says whether a byte goes from one end to the other; what is cut comes after the mending.
	passes := func(from, to net.Conn) bool {
		from.Write([]byte{1})
		_, err := read(t, to, 1, 50*time.Millisecond)
		return err == nil
	}
	packet := func(from, to net.PacketConn) bool {
		from.WriteTo([]byte{1}, to.LocalAddr())
		to.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		_, _, err := to.ReadFrom(make([]byte, 1))
		return err == nil
	}
	dials := func(from string, to net.Addr) bool {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
		defer cancel()
		c, err := n.Node(from).DialTCP(ctx, to.String())
		if err == nil {
			c.Close()
		}
		return err == nil
	}
	type state struct{ streamAB, streamBA, packetAB, packetBA, dial bool }
	for _, c := range []struct {
		from, to string
		what     Traffic
		want     state
	}{
		{"a", "b", All, state{false, true, false, true, false}},
		{"a", "", All, state{false, true, false, true, false}},
		{"", "a", All, state{true, false, true, false, false}},
		{"b", "a", Streams, state{true, false, true, true, false}},
		{"b", "a", Packets, state{true, true, true, false, true}},
		{"a", "c", All, state{true, true, true, true, true}},
		{"b", "b", All, state{true, true, true, true, true}},
	} {
		n.Cut(c.from, c.to, c.what)
		got := state{passes(a, b), passes(b, a), packet(ua, ub), packet(ub, ua), dials("a", b.LocalAddr())}
		if got != c.want {
			t.Errorf("%s to %s, %d: got %+v, want %+v", c.from, c.to, c.what, got, c.want)
		}
		n.Mend(c.from, c.to, c.what)
		for _, s := range []struct {
			end  net.Conn
			open bool
		}{{b, got.streamAB}, {a, got.streamBA}} {
			if !s.open {
				if _, err := read(t, s.end, 1, patience); err != nil {
					t.Errorf("%s to %s, %d: lost: %v", c.from, c.to, c.what, err)
				}
			}
		}
	}
	n.Cut("a", "b", Packets)
	n.Cut("a", "b", Streams)
	n.Mend("a", "b", Packets)
	if passes(a, b) || !packet(ua, ub) {
		t.Error("mended the wrong protocol")
	}
	n.Heal()
	if _, err := read(t, b, 1, patience); err != nil {
		t.Error(err)
	}
}
